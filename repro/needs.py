"""What a run needs, worked out before it starts: FLOPs for an estimate of hours, bytes for a refusal in time.

The memory is a lower bound: what is refused could not have run. What passes may still be short of memory, by what is
not counted: the allocator's gaps, libraries, gradients on their way to other ranks, parameters kept for a log line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.cluster import ALL_MEMORY, ClusterProfile
from repro.counts import format_bytes
from repro.errors import InputError
from repro.jobs import JobGroup, Layout
from repro.model_size import ModelSize, model_size
from repro.spec import RunSpec

BYTES_A_PARAMETER = {"adamw": 16, "adafactor": 10, "lion": 12}
"""Weight and gradient in fp32; AdamW's two moments and Lion's one in fp32, Adafactor's first in bf16 and next to
nothing beside.
"""
BYTES_A_WEIGHT = 4
BYTES_AN_EMBEDDING = 16
"""A number of an image's and a text's embedding and of their gradients, in fp32."""
LOSS_FLOPS = {"sigmoid": 6, "softmax": 8}
"""Of one number of one pair's embeddings: three matrix products, and four."""


def training_flops(spec: RunSpec, size: ModelSize, ranks: int) -> float:
    """Of the whole run, over all ranks.

    Towers: a backward pass is two forward passes, so 3 of them, 6 FLOPs for each weight and token; and one more, 8,
    where a rank's share is more than a micro-batch and is embedded twice (embedding-gradient caching).
    Loss: 6·B²·d a step for the sigmoid, 8·B²·d for the softmax, which makes its logits twice.
    A locked tower takes one, and none where its embeddings were made before (siglit).
    """
    passes = 4 if spec.batch_size // ranks > spec.micro_batch else 3
    image, text = ((passes if learns else 1) for learns in _learning(spec))
    image = 0 if spec.setup == "siglit" else image
    towers = image * size.image_flops + text * size.text_flops
    return spec.steps * spec.batch_size * (towers + LOSS_FLOPS[spec.loss] * spec.batch_size * size.embed_dim)


def memory_needed(spec: RunSpec, layout: Layout, size: ModelSize, on_gpu: bool) -> int:
    """Bytes of one rank, at least: weights with gradients and optimizer, a micro-batch's activations, its share of
    the embeddings with gradients, one tile of the loss; on CPUs its share of the batch too, which GPUs do not hold.

    Activations in bf16 are taken as half of those in fp32: autocast keeps some in fp32. A share that is one
    micro-batch keeps those of both towers at once, several micro-batches those of one tower at a time. A locked tower
    keeps none, and is weights alone; in siglit it is not there, and embeddings in half precision are for its images.
    """
    if spec.setup == "released":
        return BYTES_A_WEIGHT * size.parameters
    local, half = spec.batch_size // layout.ranks, spec.precision == "bf16"
    image_learns, text_learns = _learning(spec)
    kept = size.image_kept_bytes * image_learns, size.text_kept_bytes * text_learns
    an_image, a_text = ((BYTES_A_PARAMETER[spec.optimizer] if learns else BYTES_A_WEIGHT) for learns in _learning(spec))
    an_image, an_input = (0, 2 * size.embed_dim) if spec.setup == "siglit" else (an_image, size.input_bytes)
    activations = local * sum(kept) if local <= spec.micro_batch else spec.micro_batch * max(kept)
    tile = 2 * min(local, 4096) ** 2 if on_gpu else 12 * min(local, 512) * min(local, 1024)
    gathered = spec.batch_size * size.embed_dim * (6 if half else 8) if spec.exchange == "gather" else 0
    return (
        an_image * size.image_parameters
        + a_text * (size.parameters - size.image_parameters)
        + activations // (2 if half else 1)
        + BYTES_AN_EMBEDDING * size.embed_dim * local
        + gathered
        + tile
        + (0 if on_gpu else local * an_input)
    )


def _learning(spec: RunSpec) -> tuple[bool, bool]:
    """Whether the image and the text tower do."""
    return spec.image_learning_rate_multiplier > 0, spec.text_learning_rate_multiplier > 0


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
