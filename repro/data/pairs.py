"""Image-caption pairs in a fixed order: positions → decoded, tokenized batches.

The n-th sample of training is a function of (data, seed, n) alone, so ranks, workers and micro-batches only say who
reads it, and a run resumes anywhere. A sample that cannot be used gives its place to the sample at the same
position of the next epoch's order, again a function of the position, and is counted.
"""

import bisect
import functools
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from repro.config.errors import BadData
from repro.data.cache import KeptSamples
from repro.data.corruption import Corruption
from repro.data.languages import caption_in, captions_in, language_at
from repro.data.shards import JSON, ShardIndex

if TYPE_CHECKING:
    from repro.data.embeddings import EmbeddedPairs

CHUNK = 256
"""Samples that a worker decodes at a time."""
MOST_SUBSTITUTES = 100
"""As many bad samples in a row as mean that these are no image-caption pairs."""


class SampleOrder:
    """A shuffle that needs no list: shards are permuted each epoch, and samples within windows of shards.

    sizes: samples of each shard. shuffle_shards: shards of a window; a window that spans all shards is a full shuffle.
    """

    def __init__(self, sizes: list[int], seed: int, shuffle_shards: int):
        self.sizes = np.asarray(sizes, np.int64)
        self.total = int(self.sizes.sum())
        self.first_of_shard = np.cumsum(self.sizes) - self.sizes
        self.seed = seed
        self.shuffle_shards = shuffle_shards

    def locate(self, position: int) -> tuple[int, int]:
        """The shard, and the sample within it, that stand at a position of the endless order."""
        epoch, place = divmod(position, self.total)
        window = bisect.bisect_right(self._epoch(epoch)[1], place)
        start, shards, ends, shuffled = self._window(epoch, window)
        sample = int(shuffled[place - start])
        which = bisect.bisect_right(ends, sample)
        return shards[which], sample - (ends[which - 1] if which else 0)

    def numbers(self, positions: range) -> np.ndarray:
        """Sample numbers at the positions, [n] int64; `locate` for many at once."""
        found, position = [], positions.start
        while position < positions.stop:
            epoch, place = divmod(position, self.total)
            window = bisect.bisect_right(self._epoch(epoch)[1], place)
            start, shards, ends, shuffled = self._window(epoch, window)
            samples = shuffled[place - start : place - start + positions.stop - position]
            which = np.searchsorted(ends, samples, side="right")
            first_of_window = np.array([0, *ends[:-1]])  # the number within the window of each shard's first
            found.append(samples + (self.first_of_shard[shards] - first_of_window)[which])
            position += len(samples)
        return np.concatenate(found)

    @functools.lru_cache(maxsize=4)  # noqa: B019 an order lives as long as its run
    def _epoch(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """The epoch's order of shards, and the position in it at which each window ends."""
        shards = np.random.default_rng((self.seed, epoch)).permutation(len(self.sizes))
        ends = np.cumsum(self.sizes[shards])
        last = np.arange(self.shuffle_shards, len(shards) + self.shuffle_shards, self.shuffle_shards) - 1
        return shards, ends[np.minimum(last, len(shards) - 1)].tolist()

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def _window(self, epoch: int, window: int) -> tuple[int, list[int], list[int], np.ndarray]:
        """Where a window starts, its shards, where each ends within it, and its samples shuffled."""
        shards, window_ends = self._epoch(epoch)
        chosen = shards[window * self.shuffle_shards : (window + 1) * self.shuffle_shards]
        ends = np.cumsum(self.sizes[chosen])
        shuffled = np.random.default_rng((self.seed, epoch, window + 1)).permutation(int(ends[-1]))
        return (window_ends[window - 1] if window else 0), chosen.tolist(), ends.tolist(), shuffled


@dataclass
class PairBatch:
    """images: [n, 3, H, W] uint8, or their embeddings [n, d] fp16. tokens: [n, context_length].

    bad: (shard, reason) → samples passed over.
    """

    images: torch.Tensor
    tokens: torch.Tensor
    bad: Counter = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.images)

    @staticmethod
    def join(chunks: list["PairBatch"]) -> "PairBatch":
        if len(chunks) == 1:
            return chunks[0]
        return PairBatch(
            torch.cat([chunk.images for chunk in chunks]),
            torch.cat([chunk.tokens for chunk in chunks]),
            sum((chunk.bad for chunk in chunks), Counter()),
        )


class Pairs(torch.utils.data.Dataset):
    """Ranges of positions → PairBatch.

    resize: PIL image → PIL image of the model's size. tokenize: list of captions → [n, context_length].
    kept: decoded samples of small data sets, read and added to. languages: of captions by language, those to show.
    corruption: what is corrupted; never of what is kept.
    """

    chunk = CHUNK

    def __init__(
        self,
        files: list[Path],
        indexes: list[ShardIndex],
        order: SampleOrder,
        resize: Callable[[Image.Image], Image.Image],
        tokenize: Callable[[list[str]], torch.Tensor],
        kept: KeptSamples | None = None,
        languages: Sequence[str] = (),
        corruption: Corruption | None = None,
    ):
        self.files, self.indexes, self.order = files, indexes, order
        self.resize, self.tokenize, self.kept = resize, tokenize, kept
        self.languages, self.corruption = languages, corruption

    def __getitem__(self, positions: range) -> PairBatch | BadData:
        """BadData is returned, not raised: a worker's exception arrives as its message alone, without the counts."""
        bad: Counter = Counter()
        try:
            samples = [self._usable(position, bad) for position in positions]
            others = self._others(positions)
        except BadData as error:
            return error.with_traceback(None)
        fresh = [sample for sample in (*samples, *others.values()) if sample.tokens is None]
        if fresh:
            for sample, tokens in zip(fresh, self.tokenize([s.caption for s in fresh]).numpy(), strict=True):
                sample.tokens = tokens
                if self.kept is not None:
                    self.kept.write(sample.number, sample.image, tokens, sample.language)
        if self.corruption is not None:
            samples = _corrupt(samples, positions, others, self.corruption)
        images = torch.from_numpy(np.stack([sample.image for sample in samples]))
        tokens = torch.from_numpy(np.stack([sample.tokens for sample in samples]))
        return PairBatch(images.permute(0, 3, 1, 2).contiguous(), tokens, bad)

    def _others(self, positions: range) -> dict[int, "Sample"]:
        """Samples of elsewhere in the global batch whose texts go with images of these positions.

        Whoever reads them as their own counts what is bad among them.
        """
        if self.corruption is None:
            return {}
        wanted = {self.corruption.text_position(position) for position in positions}.difference(positions)
        return {position: self._usable(position, Counter()) for position in sorted(wanted)}

    def _usable(self, position: int, bad: Counter) -> "Sample":
        language = language_at(self.order.seed, position, len(self.languages)) if self.languages else 0
        for attempt in range(MOST_SUBSTITUTES):
            shard, place = self.order.locate(position + attempt * self.order.total)
            number = int(self.order.first_of_shard[shard]) + place
            if self.kept is not None and (kept := self.kept.read(number, language)) is not None:
                return Sample(number, *kept)
            try:
                image, caption = self.read(shard, place, language)
                return Sample(number, image, None, caption, language)
            except UnusableSample as reason:
                bad[self.files[shard].name, str(reason)] += 1
        (shard_name, reason), _ = bad.most_common(1)[0]
        raise BadData(f"{MOST_SUBSTITUTES} bad samples in a row, most in {shard_name}: {reason}", bad)

    def read(self, shard: int, sample: int, language: int = 0) -> tuple[np.ndarray, str]:
        """One pair: [H, W, 3] uint8 and its caption, in one of the languages. Raises UnusableSample."""
        index = self.indexes[shard]
        if self.languages:
            caption = parse_captions(self._bytes(shard, index.json[sample]), self.languages, language)
        else:
            caption = parse_caption(self._bytes(shard, index.caption[sample]), int(index.kind[sample]))
        return decode_image(self._bytes(shard, index.image[sample]), self.resize), caption

    def _bytes(self, shard: int, place: np.ndarray) -> bytes:
        offset, size = int(place[0]), int(place[1])
        try:
            file = _opened(self.files[shard])  # held, so that no other thread's miss in the cache closes it
            data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise UnusableSample(f"cannot be read: {error.strerror}") from None
        if len(data) != size:
            raise UnusableSample("cut off")
        return data


@dataclass
class Sample:
    """One pair on its way into a batch: number in the data set, [H, W, 3] uint8, [L] tokens once there are some.

    language: the place among the languages of the one that was asked for.
    """

    number: int
    image: np.ndarray
    tokens: np.ndarray | None
    caption: str = ""
    language: int = 0


def _corrupt(
    samples: list[Sample], positions: range, others: dict[int, Sample], corruption: Corruption
) -> list[Sample]:
    """The pairs of these positions as the run shall see them; others: by position, what else their texts are from."""
    by_position = others | dict(zip(positions, samples, strict=True))
    return [
        Sample(
            sample.number,
            corruption.image_at(position, sample.image),
            corruption.tokens_at(position, by_position[corruption.text_position(position)].tokens),
        )
        for position, sample in zip(positions, samples, strict=True)
    ]


class UnusableSample(ValueError):
    """One sample cannot be used; the message is the reason that is counted."""


def parse_caption(data: bytes, kind: int) -> str:
    """Raises UnusableSample where there is none."""
    try:
        text = data.decode()
        if kind == JSON:
            text = json.loads(text).get("caption") or ""
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError):
        raise UnusableSample("caption cannot be read") from None
    if not isinstance(text, str) or not text.strip():
        raise UnusableSample("empty caption")
    return text.strip()


def parse_captions(data: bytes, languages: Sequence[str], wanted: int) -> str:
    """Read a caption from a json, empty where there is none. Raises UnusableSample where no language is there."""
    try:
        caption = caption_in(captions_in(data or b"{}"), languages, wanted)
    except ValueError:
        raise UnusableSample("caption cannot be read") from None
    if caption is None:
        raise UnusableSample(f"no caption in {', '.join(languages)}")
    return caption


def decode_image(data: bytes, resize: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """[H, W, 3] uint8. Raises UnusableSample."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of odd palettes and EXIF, thousands of times
            return np.asarray(resize(Image.open(io.BytesIO(data))).convert("RGB"))
    except Exception as error:  # PIL raises whatever its decoders meet: OSError, SyntaxError, ValueError …
        raise UnusableSample(f"image cannot be decoded ({type(error).__name__})") from None


@functools.lru_cache(maxsize=128)
def _opened(file: Path) -> io.FileIO:
    """Kept open; closes when the cache lets go of it. pread moves no offset, so forked workers can share it."""
    return io.FileIO(file)


def local_positions(step: int, batch_size: int, rank: int, ranks: int, chunk: int = CHUNK) -> Iterator[range]:
    """The ranges of positions that one rank reads for one step: its contiguous share of the global batch."""
    local = batch_size // ranks
    start = step * batch_size + rank * local
    for first in range(start, start + local, chunk):
        yield range(first, min(first + chunk, start + local))


def loaded(data: torch.utils.data.Dataset, ranges: Iterable[range], workers: int) -> Iterator[Any]:
    """What the data hold at these ranges, in order; read ahead by workers where there are some."""
    # Forked, where Python would spawn (macOS, 3.14): resize and tokenize are functions that cannot be pickled.
    of_workers = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}
    # A generator of its own: each start of a loader draws a number, and a resumed run starts one more.
    return iter(
        torch.utils.data.DataLoader(
            data, sampler=ranges, batch_size=None, num_workers=workers, generator=torch.Generator(), **of_workers
        )
    )


def batches(
    pairs: "Pairs | EmbeddedPairs", *, first_step: int, steps: int, batch_size: int, rank: int, ranks: int, workers: int
) -> Iterator[PairBatch]:
    """This rank's local batch of each step from `first_step` on. Raises BadData."""
    ranges = (
        chunk
        for step in range(first_step, steps)
        for chunk in local_positions(step, batch_size, rank, ranks, pairs.chunk)
    )
    chunks = loaded(pairs, ranges, workers)
    per_step = len(list(local_positions(0, batch_size, rank, ranks, pairs.chunk)))
    for _ in range(first_step, steps):
        found = [next(chunks) for _ in range(per_step)]
        if refused := next((chunk for chunk in found if isinstance(chunk, BadData)), None):
            # The error's frames hold the loader, and workers whose loader the garbage collector finds are waited for
            # in vain.
            found = chunks = None
            raise BadData(str(refused), refused.counts)
        yield PairBatch.join(found)
