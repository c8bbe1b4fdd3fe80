"""Training data corrupted on purpose: how much noise a loss bears (SigLIP, section 4.9 and figure 7).

- image: with probability p an image is replaced by uniform noise.
- text: with probability p a text is replaced by random tokens, of a random length.
- batch: a share p of the pairs of each global batch have their texts shuffled among them.

Several of them are drawn independently of each other. All is a function of (seed, position), so that ranks, workers
and micro-batches change nothing, a run resumes exactly, and both losses see the same. What is corrupted at a small p is
corrupted at a larger one too.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from repro.config.spec import RunSpec

SALT = 0xC0447
"""Sets these random streams apart from those of the sample order, which begin with the same seed."""
_IMAGE, _TEXT, _BATCH = range(3)


@dataclass(frozen=True)
class RandomTexts:
    """Texts of random tokens, between the marks that the tokenizer puts around every text.

    before, after: the tokens of an empty text, up to the place of its first word and from there on: the end's mark and
    padding. ordinary: [V] all other tokens. The paper does not say what becomes of the marks; they are kept, because
    open_clip's towers read a text out at its end's mark, and a length is then what the padding says it is.
    """

    before: np.ndarray
    after: np.ndarray
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenize: Callable[[list[str]], torch.Tensor], vocabulary_size: int) -> "RandomTexts":
        empty, word = tokenize(["", "a"]).numpy()
        first = int((empty != word).argmax())
        return cls(empty[:first], empty[first:], np.setdiff1d(np.arange(vocabulary_size), empty))

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """[L] tokens: at least one is random, and room is left for the end's mark."""
        length = random.integers(1, max(1, len(self.after) - 1), endpoint=True)
        chosen = self.ordinary[random.integers(0, len(self.ordinary), length)]
        return np.concatenate([self.before, chosen, self.after])[: len(self.before) + len(self.after)]


@dataclass(frozen=True)
class Corruption:
    """Corruption of a run: which of image, text and batch, how often, and where the batches begin."""

    image: bool
    text: bool
    batch: bool
    probability: float
    seed: int
    batch_size: int
    random_texts: RandomTexts = field(repr=False)

    @classmethod
    def of(
        cls, spec: RunSpec, tokenize: Callable[[list[str]], torch.Tensor], vocabulary_size: int
    ) -> "Corruption | None":
        """None where the spec corrupts nothing."""
        if spec.corruption == "none":
            return None
        parts = spec.corruption.split("-")
        chosen = ("image" in parts, "text" in parts, "batch" in parts)
        texts = RandomTexts.of(tokenize, vocabulary_size)
        return cls(*chosen, spec.corruption_probability, spec.seed, spec.batch_size, texts)

    def text_position(self, position: int) -> int:
        """The position whose text goes with the image of this one: of the same global batch."""
        if not self.batch:
            return position
        step, place = divmod(position, self.batch_size)
        return step * self.batch_size + int(_text_places(self.seed, step, self.batch_size, self.probability)[place])

    def image_at(self, position: int, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8: the image, or noise in its place."""
        if not self.image:
            return image
        random = self._random(_IMAGE, position)
        if random.random() >= self.probability:
            return image
        return random.integers(0, 256, image.shape, np.uint8)

    def tokens_at(self, position: int, tokens: np.ndarray) -> np.ndarray:
        """[L]: the tokens, or random ones in their place. position: of the image that the text goes with."""
        if not self.text:
            return tokens
        random = self._random(_TEXT, position)
        if random.random() >= self.probability:
            return tokens
        return self.random_texts.draw(random).astype(tokens.dtype)

    def _random(self, what: int, position: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, SALT, what, position))


@functools.lru_cache(maxsize=4)
def _text_places(seed: int, step: int, batch_size: int, share: float) -> np.ndarray:
    """[B]: the place in the step's batch that each text is from.

    The chosen pairs hand their texts round in one random cycle, so that none keeps its own: p of the batch is
    misaligned, where a plain shuffle would leave one pair of the chosen right.
    """
    order = np.random.default_rng((seed, SALT, _BATCH, step)).permutation(batch_size)
    chosen = order[: round(share * batch_size)]
    places = np.arange(batch_size)
    places[chosen] = np.roll(chosen, 1)
    return places
