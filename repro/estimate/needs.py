"""What a run needs, worked out before it starts: FLOPs for an estimate of hours, bytes for a refusal in time.

The memory is a lower bound: what is refused could not have run. What passes may still be short of memory, by what is
not counted: the allocator's gaps, libraries, gradients on their way to other ranks, parameters kept for a log line.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.config.cluster import ALL_MEMORY, ClusterProfile
from repro.config.errors import InputError
from repro.config.layout import JobGroup, Layout
from repro.config.spec import RunSpec
from repro.config.units import format_bytes
from repro.loss.registry import LOSSES
from repro.models.sizes import ModelSize, model_size

MOMENT_BYTES = {"adamw": 8, "adafactor": 2, "lion": 4}
"""Of a parameter that learns: AdamW's two in fp32, Adafactor's first in bf16 and next to nothing beside, Lion's one."""
BYTES_A_PARAMETER = {name: 8 + moments for name, moments in MOMENT_BYTES.items()}
"""Of one that learns: with weight and gradient, both in fp32."""
BYTES_AN_EMBEDDING = 16
"""A number of an image's and a text's embedding and of their gradients, in fp32."""
"""Of one number of one pair's embeddings: three matrix products, and four."""
COUNTING_FLOPS = {"all": 0, "random": 0, "hard": 4, "easy": 4}
"""More of them where negatives are chosen by their logits: two counts, a product each."""


def for_run(spec: RunSpec, size: ModelSize) -> ModelSize:
    """The model's size with the run's own token embedding: a bottleneck of K columns holds N·K + K·width numbers in
    place of N·width, and costs a product more (section 4.3)."""
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
    """How many numbers the towers have."""

    learning: int
    held: int
    """In the memory of a rank that trains: those that learn, and those of a locked tower."""
    all: int
    """With those of an image tower whose embeddings were made before (siglit)."""


def parameters(spec: RunSpec, size: ModelSize) -> Parameters:
    image, text = size.image_parameters, size.parameters - size.image_parameters
    images_learn, texts_learn = learning(spec)
    held = text if spec.reads_embeddings else image + text
    return Parameters(image * images_learn + text * texts_learn, held, image + text)


def learning(spec: RunSpec) -> tuple[bool, bool]:
    """Whether the image tower does, and the text tower."""
    trains = spec.trains
    images = trains and not spec.reads_embeddings and spec.image_learning_rate_multiplier > 0
    return images, trains and spec.text_learning_rate_multiplier > 0


def passes(spec: RunSpec, ranks: int) -> tuple[int, int]:
    """Through the image tower and the text tower in a step, in forward passes: a backward pass is two.

    So 3 of them, 6 FLOPs for each weight and token; and one more, 8, where a rank's share is more than a micro-batch
    and is embedded twice (embedding-gradient caching). A tower that does not learn is passed once, and not at all
    where its embeddings were made before.
    """
    if not spec.trains:
        return 0, 0
    through = 4 if spec.batch_size // ranks > spec.micro_batch else 3
    images_learn, texts_learn = learning(spec)
    of_images = 0 if spec.reads_embeddings else through if images_learn else 1
    return of_images, through if texts_learn else 1


def tower_flops(spec: RunSpec, size: ModelSize, ranks: int) -> int:
    """Of one example in training."""
    size, (of_images, of_texts) = for_run(spec, size), passes(spec, ranks)
    return of_images * size.image_flops + of_texts * size.text_flops


def loss_flops(spec: RunSpec, size: ModelSize) -> int:
    """Of one pair: 6·d for the sigmoid, 8·d for the softmax, which makes its logits twice; whichever tower learns."""
    return (LOSSES[spec.loss].flops + COUNTING_FLOPS[spec.negatives]) * size.embed_dim


def training_flops(spec: RunSpec, size: ModelSize, ranks: int) -> float:
    """Of the whole run, over all ranks: of the towers for each example, of the loss for each of a step's B² pairs."""
    pairs = spec.batch_size * loss_flops(spec, size)
    return spec.steps * spec.batch_size * (tower_flops(spec, size, ranks) + pairs)


def memory_needed(spec: RunSpec, layout: Layout, size: ModelSize, on_gpu: bool) -> int:
    """Bytes of one rank, at least: weights with gradients and optimizer, a micro-batch's activations, its share of
    the embeddings with gradients, one tile of the loss; on CPUs its share of the batch too, which GPUs do not hold.

    Activations in bf16 are taken as half of those in fp32: autocast keeps some in fp32. A share that is one
    micro-batch keeps those of both towers at once, several micro-batches those of one tower at a time. A locked tower
    keeps none, and is weights alone; in siglit it is not there, and embeddings in half precision are for its images.
    """
    size = for_run(spec, size)
    held = parameters(spec, size)
    weights = 4 * held.held + (BYTES_A_PARAMETER[spec.optimizer] - 4) * held.learning
    if not spec.trains:
        return weights
    local, half = spec.batch_size // layout.ranks, spec.precision == "bf16"
    kept = kept_bytes(spec, size)
    activations = local * sum(kept) if local <= spec.micro_batch else spec.micro_batch * max(kept)
    return (
        weights
        + activations // (2 if half else 1)
        + BYTES_AN_EMBEDDING * size.embed_dim * local
        + gathered_bytes(spec, size)
        + tile_bytes(local, on_gpu)
        + (0 if on_gpu else local * example_bytes(spec, size))
    )


def kept_bytes(spec: RunSpec, size: ModelSize) -> tuple[int, int]:
    """What an image and a text keep for the backward pass, in fp32: nothing in a tower that does not learn."""
    images_learn, texts_learn = learning(spec)
    return size.image_kept_bytes * images_learn, size.text_kept_bytes * texts_learn


def gathered_bytes(spec: RunSpec, size: ModelSize) -> int:
    """All texts and their gradients, which a gather holds on every rank and a ring does not."""
    a_number = 6 if spec.precision == "bf16" else 8
    return spec.batch_size * size.embed_dim * a_number if spec.exchange == "gather" else 0


def tile_bytes(local: int, on_gpu: bool) -> int:
    return 2 * min(local, 4096) ** 2 if on_gpu else 12 * min(local, 512) * min(local, 1024)


def example_bytes(spec: RunSpec, size: ModelSize) -> int:
    """An example as it waits for its micro-batch: image and tokens, or the image's embedding (siglit, 16 bit)."""
    return 2 * size.embed_dim + 8 * size.context_length if spec.reads_embeddings else size.input_bytes


def memory_there(profile: ClusterProfile, layout: Layout) -> int | None:
    """Bytes of one rank: its GPU's, or its share of the node's. None where the profile does not say."""
    if profile.gpus_per_node:
        return profile.gpu_memory_bytes
    if profile.memory_bytes in (None, ALL_MEMORY):
        return None
    return profile.memory_bytes // layout.ranks_per_node


@dataclass(frozen=True)
class Needs:
    """Of one group of jobs. Hours are of processors: GPUs, or the cores that are asked for on CPUs."""

    processors: int
    """Of one job."""
    memory_bytes: int
    """Of one rank of the run that needs most, at least."""
    most_hours: float
    """If each job takes its whole time limit once."""
    estimated_hours: float | None
    longest_seconds: float | None
    """Seconds that the longest run takes from start to end, by the clock; both None without tflops_per_rank."""


def needs_of(groups: Sequence[JobGroup], profile: ClusterProfile) -> list[Needs]:
    """Raises InputError for a model that is not there."""
    sizes = sizes_of(groups)
    return [_needs_of(group, profile, sizes) for group in groups]


def _needs_of(group: JobGroup, profile: ClusterProfile, sizes: dict[str, ModelSize]) -> Needs:
    layout, on_gpu = group.layout, bool(profile.gpus_per_node)
    processors = layout.ranks * (1 if on_gpu else profile.cpus_per_rank)
    memory = max(memory_needed(spec, layout, sizes[spec.model], on_gpu) for spec in group.specs)
    most = len(group.specs) * processors * profile.time_seconds / 3600
    if profile.tflops_per_rank is None:
        return Needs(processors, memory, most, None, None)
    speed = layout.ranks * profile.tflops_per_rank * 1e12
    seconds = [training_flops(spec, sizes[spec.model], layout.ranks) / speed for spec in group.specs]
    return Needs(processors, memory, most, sum(seconds) * processors / 3600, max(seconds))


def sizes_of(groups: Iterable[JobGroup]) -> dict[str, ModelSize]:
    """Of each model that the runs name. Raises InputError for one that is not there."""
    return {model: model_size(model) for model in sorted({spec.model for group in groups for spec in group.specs})}


def check_memory(groups: Iterable[JobGroup], profile: ClusterProfile) -> None:
    """Raises InputError, with what would fit, for the first run that needs more memory than there is.

    Where the profile has auto_micro_batch, only for one that no micro-batch makes fit.
    """
    groups = list(groups)
    sizes = sizes_of(groups)
    for group in groups:
        there = memory_there(profile, group.layout)
        for spec in group.specs if there is not None else ():
            if memory_needed(spec, group.layout, sizes[spec.model], bool(profile.gpus_per_node)) > there:
                _refuse(spec, group.layout, sizes[spec.model], profile, there)


def _refuse(spec: RunSpec, layout: Layout, size: ModelSize, profile: ClusterProfile, there: int) -> None:
    local, on_gpu = spec.batch_size // layout.ranks, bool(profile.gpus_per_node)
    smaller = [m for m in range(min(local, spec.micro_batch), 0, -1) if local % m == 0 and m < spec.micro_batch]
    tried = (spec.model_copy(update={"micro_batch": micro_batch}) for micro_batch in smaller)
    fits = next((each for each in tried if memory_needed(each, layout, size, on_gpu) <= there), None)
    if fits is not None and profile.auto_micro_batch:
        return
    key = "gpu_memory" if on_gpu else f"memory ÷ {layout.ranks_per_node} ranks of a node"
    if fits is None:
        advice = f"no micro-batch would fit: expected more memory, a smaller model, or less than {local:,} a rank"
    else:
        advice = (
            f"micro_batch {fits.micro_batch:,} (--set micro_batch={fits.micro_batch}) would fit, "
            "or auto_micro_batch: true in the cluster's profile"
        )
    raise InputError(
        f"batch_size {spec.batch_size:,}, micro_batch {spec.micro_batch:,}, {spec.loss}: a rank of {layout.ranks} "
        f"needs at least {format_bytes(memory_needed(spec, layout, size, on_gpu))}, "
        f"and {key} is {format_bytes(there)}; {advice}"
    )
