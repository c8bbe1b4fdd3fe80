"""FLOPs, parameters, messages and files of a run, counted from its spec and the model's size (models/sizes.py).

FLOPs count two for each multiplication of a matrix product. A backward pass is two forward passes.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.data.eval_sets import MULTILINGUAL, dataset_name, languages_of, members, split_shots, world_sets
from repro.loss.registry import LOSSES
from repro.models.sizes import ModelSize
from repro.world.scenes import CLASSES
from repro.world.write import CLASSIFICATION_IMAGES, RETRIEVAL_IMAGES, TEMPLATES

MOMENT_BYTES = {"adamw": 8, "adafactor": 2, "lion": 4}
"""Moments of a trained parameter: AdamW's two in fp32, Adafactor's first in bf16 (its second is small), Lion's."""
NUMBER_BYTES = {"bf16": 6, "fp32": 8}
"""A number of a text's embedding that travels between ranks, and of its gradient, which is fp32."""
COUNTING_FLOPS = {"all": 0, "random": 0, "hard": 4, "easy": 4}
"""Per pair and dimension where negatives are chosen by their logits: two counts, a product each."""
COUNTING_BYTES = 2 * 8 * 65_536
"""All-reduced where negatives are chosen: two histograms of 16 bits (loss/negatives.py)."""
PAIR_BYTES = 25_000
"""A pair in shards that cannot be measured: as img2dataset leaves it at 256 px (LAION-400M: 10 TB)."""
SHAPES_PAIR_BYTES = 6_144
"""A pair in the embedded world's shards."""
EVAL_SIZES = {
    "imagenet1k": (50_000, 80_000),
    "imagenetv2": (10_000, 80_000),
    "imagenet-a": (7_500, 16_000),
    "imagenet-r": (30_000, 16_000),
    "objectnet": (18_574, 9_040),
    "cifar100": (10_000, 1_800),
    "pets": (3_669, 37),
    "mscoco_captions": (5_000, 25_000),
    "flickr30k": (1_000, 5_000),
    "flickr8k": (1_000, 5_000),
    "crossmodal3600": (3_600, 7_260),
    "xtd10": (1_000, 1_000),
}
"""Images, and texts with all templates, of clip-benchmark's test splits; of those in many languages, of one."""


def sized(spec: RunSpec, size: ModelSize) -> ModelSize:
    """The model's size with the run's own token embedding: a bottleneck of K columns holds N·K + K·width numbers in
    place of N·width, and costs one product more (section 4.3)."""
    if spec.token_bottleneck is None:
        return size
    rows, width, columns = size.token_rows, size.token_width, spec.token_bottleneck
    return dataclasses.replace(
        size,
        parameters=size.parameters - rows * width + rows * columns + columns * width,
        text_flops=size.text_flops + 2 * size.context_length * columns * width,
        text_kept_bytes=size.text_kept_bytes + 4 * size.context_length * columns,
    )


@dataclass(frozen=True)
class Parameters:
    """trained: numbers that the optimizer changes. held: those in a rank's memory, a locked tower's with them.
    all: also those of an image tower whose embeddings were computed beforehand (siglit).
    """

    trained: int
    held: int
    all: int


def trained_towers(spec: RunSpec) -> tuple[bool, bool]:
    """Whether the image tower is trained, and the text tower."""
    images = spec.trains and not spec.reads_embeddings and spec.image_learning_rate_multiplier > 0
    return images, spec.trains and spec.text_learning_rate_multiplier > 0


def parameters(spec: RunSpec, size: ModelSize) -> Parameters:
    size = sized(spec, size)
    image, text = size.image_parameters, size.parameters - size.image_parameters
    images_train, texts_train = trained_towers(spec)
    held = text if spec.reads_embeddings else image + text
    return Parameters(image * images_train + text * texts_train, held, image + text)


def passes(spec: RunSpec, ranks: int) -> tuple[int, int]:
    """Forward passes (a backward pass is two) of a step through the image tower and through the text tower.

    Three of a trained tower; four where a rank's share exceeds a micro-batch and is embedded twice
    (embedding-gradient caching); one of a locked tower; none where its embeddings were computed beforehand.
    """
    if not spec.trains:
        return 0, 0
    through = 4 if spec.batch_size // ranks > spec.micro_batch else 3
    images_train, texts_train = trained_towers(spec)
    of_images = 0 if spec.reads_embeddings else through if images_train else 1
    return of_images, through if texts_train else 1


def kept_bytes(spec: RunSpec, size: ModelSize) -> tuple[int, int]:
    """Bytes that an image and a text keep for the backward pass, in fp32: none in a locked tower."""
    size, (images_train, texts_train) = sized(spec, size), trained_towers(spec)
    return size.image_kept_bytes * images_train, size.text_kept_bytes * texts_train


def example_bytes(spec: RunSpec, size: ModelSize) -> int:
    """An example as it waits for its micro-batch: image and tokens, or the image's embedding (siglit, 16 bit)."""
    return 2 * size.embed_dim + 8 * size.context_length if spec.reads_embeddings else size.input_bytes


def tower_flops(spec: RunSpec, size: ModelSize, ranks: int) -> int:
    """FLOPs of the towers for one example in training."""
    size, (of_images, of_texts) = sized(spec, size), passes(spec, ranks)
    return of_images * size.image_flops + of_texts * size.text_flops


def pair_flops(spec: RunSpec, size: ModelSize) -> int:
    """FLOPs of the loss for one pair: 6·d for the sigmoid, 8·d for the softmax, which computes its logits twice."""
    return (LOSSES[spec.loss].flops + COUNTING_FLOPS[spec.negatives]) * size.embed_dim if spec.trains else 0


def training_flops(spec: RunSpec, size: ModelSize, ranks: int) -> float:
    """FLOPs of the whole run over all ranks: the towers' for each example, the loss' for each of a step's B² pairs."""
    an_example = tower_flops(spec, size, ranks) + spec.batch_size * pair_flops(spec, size)
    return float(spec.steps * spec.batch_size * an_example)


@dataclass(frozen=True)
class Work:
    """One rank's work in one step.

    moved_bytes: what layers keep for the backward pass, times the passes: a measure of all that is no matrix product.
    operations: calls of torch's operators, which on small tensors cost more than what they compute. logged: trained
    parameters that are copied and compared for a log line, a share where not every step has one. pairs: this rank's
    images with all texts.
    """

    image_flops: int
    text_flops: int
    moved_bytes: int
    operations: int
    trained: int
    logged: float
    pairs: int
    loss_flops: int

    @property
    def tower_flops(self) -> int:
        return self.image_flops + self.text_flops


def work_of(spec: RunSpec, size: ModelSize, ranks: int) -> Work:
    local, trained = spec.batch_size // ranks, parameters(spec, size).trained
    pairs = local * spec.batch_size if spec.trains else 0
    size, (of_images, of_texts) = sized(spec, size), passes(spec, ranks)
    micro_batches = -(-local // spec.micro_batch)
    return Work(
        image_flops=local * of_images * size.image_flops,
        text_flops=local * of_texts * size.text_flops,
        moved_bytes=local * (of_images * size.image_kept_bytes + of_texts * size.text_kept_bytes),
        operations=micro_batches * (of_images * size.image_operations + of_texts * size.text_operations),
        trained=trained,
        logged=trained / spec.log_every,
        pairs=pairs,
        loss_flops=pairs * pair_flops(spec, size),
    )


def sent_bytes(spec: RunSpec, size: ModelSize, ranks: int) -> tuple[float, float]:
    """Sent by one rank in a step: by the loss, and to average gradients. A ring and a gather send as much.

    Every rank sees each other's texts once (twice for the softmax, the second time with their log-sum-exps) and sends
    their gradients home in fp32; gradients of weights are averaged by an all-reduce that sends nothing twice.
    """
    if ranks == 1 or not spec.trains:
        return 0.0, 0.0
    local = spec.batch_size // ranks
    texts = local * size.embed_dim * (2 if spec.precision == "bf16" else 4)
    a_block = texts + 4 * local * size.embed_dim
    a_block += (LOSSES[spec.loss].passes - 1) * (texts + 2 * 8 * local)
    loss, all_reduce = float((ranks - 1) * a_block), 2 * (ranks - 1) / ranks
    if spec.negatives != "all":
        loss += all_reduce * COUNTING_BYTES + (0 if spec.negatives == "random" else 2 * (ranks - 1) * texts)
    return loss, all_reduce * 4 * parameters(spec, size).trained


def checkpoint_bytes(spec: RunSpec, size: ModelSize) -> tuple[int, int]:
    """A checkpoint to resume from (held weights and moments), and the final weights: a whole model as open_clip has
    it, with a locked tower, and the token table that a bottleneck's factors make."""
    if not spec.trains:
        return 0, 0
    counted = parameters(spec, size)
    return 4 * counted.held + MOMENT_BYTES[spec.optimizer] * counted.trained, 4 * size.parameters


def shard_bytes(specs: Sequence[RunSpec]) -> tuple[int, bool]:
    """Bytes of all data that the runs read, and whether any of it is assumed.

    Shards that cannot be measured are taken as if the longest run saw each example once.
    """
    total, assumed = 0, False
    for data in sorted({spec.data for spec in specs if spec.trains}):
        measured = _measured_bytes(data)
        assumed |= measured is None
        total += (
            PAIR_BYTES * max(spec.examples_seen for spec in specs if spec.data == data)
            if measured is None
            else measured
        )
    return total, assumed


def _measured_bytes(data: str) -> int | None:
    if not data:
        return None
    if (pairs := _world_pairs(data)) is not None:
        return SHAPES_PAIR_BYTES * pairs
    from repro.data.shards import is_remote, list_shards  # imports numpy

    if any(is_remote(part) for part in data.split("::")):
        return None
    try:
        return sum(Path(shard).stat().st_size for shard in list_shards(data))
    except (InputError, OSError):
        return None


def _world_pairs(data: str) -> int | None:
    """Pairs of the embedded world; None for shards, which would have to be read to be counted."""
    from repro.world.source import is_shapes, world_size

    return world_size(data) if is_shapes(data) else None


def images_to_embed(specs: Sequence[RunSpec]) -> dict[tuple[str, str], int]:
    """(data, model) of siglit runs → images to embed once: all of the data, as far as the longest run sees them."""
    longest: dict[tuple[str, str], int] = {}
    for spec in specs:
        if spec.reads_embeddings:
            seen = min(spec.examples_seen, _world_pairs(spec.data) or spec.examples_seen)
            longest[spec.data, spec.model] = max(longest.get((spec.data, spec.model), 0), seen)
    return longest


def embeddings_bytes(images: int, size: ModelSize) -> int:
    """Images embedded once, in 16 bit, with their texts' tokens in 32 (data/embeddings.py)."""
    return images * (2 * size.embed_dim + 4 * size.context_length)


def eval_size(name: str, data: str) -> tuple[int, int] | None:
    """Images and texts of one evaluation; None where they are not known here. Images of several languages once."""
    base, shots = split_shots(name)
    if sets := world_sets(base, data):
        if shots:
            return CLASSIFICATION_IMAGES + shots * len(CLASSES), 0
        texts = len(TEMPLATES) * len(CLASSES) + RETRIEVAL_IMAGES * (len(sets) - 1)
        return CLASSIFICATION_IMAGES + RETRIEVAL_IMAGES, texts
    known = EVAL_SIZES.get(dataset_name(base).removeprefix("wds_").removeprefix("vtab_"))
    if known is None or shots:
        return known and (known[0], 0)
    return known[0], known[1] * (len(languages_of(base)) if base in MULTILINGUAL else 1)


def unknown_evals(spec: RunSpec) -> list[str]:
    """Evaluations whose size is not known here, and so not counted."""
    return [name for name in _data_sets(spec) if eval_size(name, spec.data) is None]


def _data_sets(spec: RunSpec) -> list[str]:
    """The spec's evaluations, collections as their members."""
    return [each for name in spec.evals for each in ([name] if world_sets(name, spec.data) else members(name))]


def evaluated(spec: RunSpec) -> tuple[int, int]:
    """Images and texts of all evaluations of a run, also of those during training."""
    sizes = [eval_size(name, spec.data) or (0, 0) for name in _data_sets(spec)]
    times = 1 + sum(0 < at < spec.examples_seen for at in spec.evaluate_at)
    return times * sum(images for images, _ in sizes), times * sum(texts for _, texts in sizes)
