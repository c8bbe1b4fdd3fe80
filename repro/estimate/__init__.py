"""Memory, time and disk of runs, predicted before anyone spends a GPU-hour: for dry runs, plans, and the refusal of
runs that cannot fit.

`counts` counts a run's work from its spec and the model's size; `costs` says what a kind of machine sustains; here
the two become memory, time and totals. Nothing imports torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from repro.config.cluster import ClusterProfile, JobGroup, Layout
from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.units import format_bytes
from repro.estimate import counts
from repro.estimate.costs import Machine, Place, memory_of_a_rank
from repro.models.sizes import ModelSize, model_size

PARTS = ("process", "weights", "optimizer", "activations", "copies", "embeddings", "batch", "tile")
BYTES_PER_EMBEDDED = 16
"""A number of an image's and a text's embedding and of their gradients, in fp32."""
CHECKPOINTS = 3
"""At a time on disk while a run trains: the two that are kept and the one being written (train/checkpoint.py)."""
SIDE_BY_SIDE = 0.9
"""Utilisation of a processor by two towers side by side, and by threads that share a tower's operations. Assumed."""
BARE = {on_gpu: Machine("", "", {}, on_gpu=on_gpu) for on_gpu in (False, True)}
"""Machines that hold no more than what is counted."""


def memory_parts(spec: RunSpec, layout: Layout, size: ModelSize, machine: Machine) -> dict[str, float]:
    """Bytes of one rank at its peak, by what holds them.

    weights: with gradients. activations: of a micro-batch, those of both towers at once on CPUs (what one tower frees
    the other does not find again) and where a rank's share is one micro-batch; in bf16 half, and a copy of the weights
    in bf16 beside. copies: two of what is trained, for a log line's norm of the update; on a GPU only what exceeds the
    activations, which are gone by then. embeddings: of a rank's share with
    gradients, and those that travel. batch: a rank's share of it, which GPUs do not hold.
    """
    weights, half = counts.parameters(spec, size), spec.precision == "bf16"
    parts = dict.fromkeys(PARTS, 0.0) | {
        "process": machine.process_bytes,
        "weights": machine.state_factor * 4 * (weights.held + weights.trained),
        "optimizer": machine.state_factor * counts.MOMENT_BYTES[spec.optimizer] * weights.trained,
    }
    if not spec.trains:
        return parts
    local, kept = spec.batch_size // layout.ranks, counts.kept_bytes(spec, size)
    at_once = sum(kept) if local <= spec.micro_batch or not machine.on_gpu else max(kept)
    activations = min(local, spec.micro_batch) * at_once / (2 if half else 1) + (2 * weights.held if half else 0)
    activations *= machine.activation_factor
    copies = machine.state_factor * 8 * weights.trained
    travelling = 0
    if spec.exchange == "gather":
        travelling = spec.batch_size
    elif layout.ranks > 1:  # two blocks, and two on the way back of a ring that turns both ways
        travelling = local * (4 if spec.exchange == "ring-bidirectional" else 2)
    embeddings = BYTES_PER_EMBEDDED * local + counts.NUMBER_BYTES[spec.precision] * travelling
    if machine.on_gpu:
        batch, tile, copies = 0.0, 2 * min(local, 4096) ** 2, max(0.0, copies - activations)
    else:
        batch = machine.input_factor * local * counts.example_bytes(spec, size)
        tile = 12 * min(local, 512) * min(local, 1024)
    return parts | {
        "activations": activations,
        "copies": copies,
        "embeddings": float(embeddings * size.embed_dim),
        "batch": batch,
        "tile": float(tile),
    }


def least_bytes(spec: RunSpec, layout: Layout, size: ModelSize, on_gpu: bool) -> float:
    """A lower bound on one rank's memory: a run that is refused by it could not have run."""
    parts = memory_parts(spec, layout, size, BARE[on_gpu])
    in_bf16 = 2 * counts.parameters(spec, size).held if spec.trains and spec.precision == "bf16" else 0
    return sum(parts.values()) - parts["copies"] - in_bf16  # neither need be there at the peak


def peak_bytes(spec: RunSpec, layout: Layout, size: ModelSize, machine: Machine) -> float:
    predicted = sum(memory_parts(spec, layout, size, machine).values())
    return max(predicted, least_bytes(spec, layout, size, machine.on_gpu))


def smaller_micro_batches(spec: RunSpec, layout: Layout, most: int) -> list[RunSpec]:
    """The run with each micro-batch of at most so many examples that divides a rank's share, the largest first."""
    local = spec.batch_size // layout.ranks
    divisors = {d for root in range(1, int(local**0.5) + 1) if local % root == 0 for d in (root, local // root)}
    return [spec.model_copy(update={"micro_batch": d}) for d in sorted(divisors, reverse=True) if d <= most]


def sizes_of(specs: Iterable[RunSpec]) -> dict[str, ModelSize]:
    """Sizes of the models that the runs name. Raises InputError for one that is not there."""
    return {model: model_size(model) for model in sorted({spec.model for spec in specs})}


def threads_of(spec: RunSpec, machine: Machine) -> float:
    return 1.0 if machine.on_gpu else max(1.0, SIDE_BY_SIDE * spec.threads)


def tower_seconds(spec: RunSpec, work: counts.Work, machine: Machine) -> float:
    flop, byte = machine.flop_seconds[spec.precision], machine.byte_seconds[spec.precision]
    alone = work.tower_flops * flop + work.moved_bytes * byte + work.operations * machine.operation_seconds
    if machine.on_gpu or spec.threads == 1:
        return alone
    if not (work.image_flops and work.text_flops):  # one tower alone has all threads
        return alone / threads_of(spec, machine)
    larger = max(work.image_flops, work.text_flops) / work.tower_flops
    threads_each = 1 + SIDE_BY_SIDE * (spec.threads // 2 - 1)
    return alone * max(larger / threads_each, 1 / (SIDE_BY_SIDE * spec.threads))


def loss_seconds(spec: RunSpec, work: counts.Work, machine: Machine) -> float:
    flop = machine.flop_seconds[spec.precision]
    if spec.loss in machine.loss_flop_seconds:
        flop *= machine.loss_flop_seconds[spec.loss] / machine.flop_seconds["fp32"]
    return (work.loss_flops * flop + work.pairs * machine.pair_seconds.get(spec.loss, 0.0)) / threads_of(spec, machine)


def step_seconds(spec: RunSpec, size: ModelSize, ranks: int, machine: Machine) -> float:
    """By the clock, on a machine that has nothing else to do; messages between ranks are not counted."""
    work = counts.work_of(spec, size, ranks)
    state = work.trained * machine.parameter_seconds.get(spec.optimizer, 0.0)
    state += work.logged * machine.logged_parameter_seconds
    seconds = tower_seconds(spec, work, machine) + loss_seconds(spec, work, machine)
    return seconds + state / threads_of(spec, machine) + machine.step_seconds


def forward_seconds(images: int, texts: int, size: ModelSize, machine: Machine, precision: str) -> float:
    """Seconds of one forward pass of so many images and texts, on one thread."""
    flops = images * size.image_flops + texts * size.text_flops
    moved = images * size.image_kept_bytes + texts * size.text_kept_bytes
    return flops * machine.flop_seconds[precision] + moved * machine.byte_seconds[precision]


def evaluation_seconds(spec: RunSpec, size: ModelSize, machine: Machine) -> float:
    """On one rank, in bf16 as clip-benchmark does it."""
    images, texts = counts.evaluated(spec)
    towers = forward_seconds(images, texts, counts.sized(spec, size), machine, "bf16")
    return towers / threads_of(spec, machine) + (images + texts) * machine.evaluated_example_seconds


@dataclass(frozen=True)
class Prediction:
    """One run's. FLOPs are of the whole run over all ranks; memory and the time of a step of one rank.

    Times are None where nobody knows how fast the place is. largest_micro_batch: that fits; None where none does, or
    nobody said how much memory there is.
    """

    spec: RunSpec
    layout: Layout
    size: ModelSize
    place: Place

    @cached_property
    def parameters(self) -> counts.Parameters:
        return counts.parameters(self.spec, self.size)

    @cached_property
    def tower_flops(self) -> float:
        examples = self.spec.steps * self.spec.batch_size
        return float(examples * counts.tower_flops(self.spec, self.size, self.layout.ranks))

    @cached_property
    def loss_flops(self) -> float:
        return float(self.spec.steps * self.spec.batch_size**2 * counts.pair_flops(self.spec, self.size))

    @property
    def loss_share(self) -> float:
        """The loss' share of the FLOPs."""
        return self.loss_flops / max(1.0, self.tower_flops + self.loss_flops)

    @cached_property
    def memory_parts(self) -> dict[str, float]:
        return memory_parts(self.spec, self.layout, self.size, self.place.machine)

    @cached_property
    def memory_bytes(self) -> float:
        return peak_bytes(self.spec, self.layout, self.size, self.place.machine)

    @property
    def fits(self) -> bool | None:
        there = self.place.memory_bytes
        return None if there is None else self.memory_bytes <= there

    @cached_property
    def largest_micro_batch(self) -> int | None:
        there, local = self.place.memory_bytes, self.spec.batch_size // self.layout.ranks
        if there is None or not self.spec.trains:
            return None
        tried = smaller_micro_batches(self.spec, self.layout, local)
        fits = (each for each in tried if peak_bytes(each, self.layout, self.size, self.place.machine) <= there)
        return next((each.micro_batch for each in fits), None)

    @cached_property
    def sent_bytes(self) -> tuple[float, float]:
        """By one rank in a step: by the loss, and to average gradients."""
        return counts.sent_bytes(self.spec, self.size, self.layout.ranks)

    @cached_property
    def step_seconds(self) -> float | None:
        if not (self.place.speed_is_known and self.spec.trains):
            return None
        return step_seconds(self.spec, self.size, self.layout.ranks, self.place.machine)

    @property
    def train_seconds(self) -> float | None:
        return (self.step_seconds or 0.0) * self.spec.steps if self.place.speed_is_known else None

    @cached_property
    def evaluation_seconds(self) -> float | None:
        """With the start of the process."""
        if not self.place.speed_is_known:
            return None
        return self.place.machine.start_seconds + evaluation_seconds(self.spec, self.size, self.place.machine)

    @property
    def seconds(self) -> float | None:
        return None if self.train_seconds is None else self.train_seconds + self.evaluation_seconds

    @property
    def processors(self) -> int:
        """GPUs of the run, or the cores that are asked for."""
        return self.layout.ranks * (1 if self.place.machine.on_gpu else self.place.cores_per_rank)

    @property
    def processor_hours(self) -> float | None:
        """All ranks train; the first evaluates alone while its job still has the others'."""
        return None if self.seconds is None else self.seconds * self.processors / 3600

    @property
    def sustained_flops(self) -> float | None:
        """Per second and rank while it trains: the utilisation that the time supposes."""
        if not self.train_seconds:
            return None
        return (self.tower_flops + self.loss_flops) / self.train_seconds / self.layout.ranks

    def row(self) -> dict[str, Any]:
        """For a CSV: units in the names."""
        spec, local = self.spec, self.spec.batch_size // self.layout.ranks
        fields = ("setup", "scale", "loss", "batch_size", "seed", "examples_seen", "model", "precision", "optimizer")
        machine, (resumable, final) = self.place.machine, counts.checkpoint_bytes(spec, self.size)
        return {
            "run_id": spec.run_id,
            **{name: getattr(spec, name) for name in fields},
            "steps": spec.steps,
            "place": self.place.name,
            "speed": f"{machine.origin}; {machine.name}" if self.place.speed_is_known else "unknown",
            "nodes": self.layout.nodes,
            "ranks": self.layout.ranks,
            "local_batch": local,
            "micro_batch": min(local, spec.micro_batch),
            "parameters_learning": self.parameters.trained,
            "parameters_frozen": self.parameters.all - self.parameters.trained,
            "tower_flops": self.tower_flops,
            "loss_flops": self.loss_flops,
            "loss_share": self.loss_share,
            "memory_bytes": self.memory_bytes,
            **{f"memory_{part}_bytes": count for part, count in self.memory_parts.items()},
            "memory_there_bytes": self.place.memory_bytes,
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "sent_loss_bytes_a_step": self.sent_bytes[0],
            "sent_gradient_bytes_a_step": self.sent_bytes[1],
            "step_seconds": self.step_seconds,
            "train_seconds": self.train_seconds,
            "evaluation_and_start_seconds": self.evaluation_seconds,
            "seconds": self.seconds,
            "processor": self.place.processor,
            "processor_hours": self.processor_hours,
            "sustained_flops_a_second": self.sustained_flops,
            "checkpoint_bytes": resumable,
            "final_bytes": final,
        }


@dataclass(frozen=True)
class Totals:
    """All runs of a sweep together.

    seconds: by the clock, with as many runs at a time as the place allows; at least the longest run. checkpoint_bytes:
    while the largest runs train, as many as go at a time. final_bytes: of the weights that stay. embedding_hours: of
    processors, to embed each image once (siglit).
    """

    runs: int
    flops: float
    processor_hours: float | None
    seconds: float | None
    final_bytes: int
    checkpoint_bytes: int
    shard_bytes: int
    shards_assumed: bool
    embeddings_bytes: int
    embedded_images: int
    embedding_hours: float | None


def totals(predictions: Sequence[Prediction]) -> Totals:
    timed = all(each.seconds is not None for each in predictions)
    at_once = max((each.place.at_once for each in predictions), default=1)
    seconds = [each.seconds for each in predictions] if timed else []
    written = [counts.checkpoint_bytes(each.spec, each.size) for each in predictions]
    largest = sorted((CHECKPOINTS * resumable for resumable, _ in written), reverse=True)
    specs = [each.spec for each in predictions]
    shards, assumed = counts.shard_bytes(specs)
    one_of = {(each.spec.data, each.spec.model): each for each in predictions}
    images = [(one_of[key], count) for key, count in counts.images_to_embed(specs).items()]
    embedding = [
        forward_seconds(count, 0, each.size, each.place.machine, each.spec.precision) for each, count in images
    ]
    return Totals(
        runs=len(predictions),
        flops=sum(each.tower_flops + each.loss_flops for each in predictions),
        processor_hours=sum(each.processor_hours for each in predictions) if timed else None,
        seconds=max(max(seconds, default=0.0), sum(seconds) / at_once) if timed else None,
        final_bytes=sum(final for _, final in written),
        checkpoint_bytes=sum(largest[:at_once]),
        shard_bytes=shards,
        shards_assumed=assumed,
        embeddings_bytes=sum(counts.embeddings_bytes(count, each.size) for each, count in images),
        embedded_images=sum(count for _, count in images),
        embedding_hours=sum(embedding) / 3600 if timed else None,
    )


def crossover(spec: RunSpec, size: ModelSize, ranks: int, share: float) -> float:
    """The batch size at which the loss takes this share of the towers' FLOPs: it grows with the batch, they do not."""
    return share * counts.tower_flops(spec, size, ranks) / counts.pair_flops(spec, size)


def check_memory(groups: Iterable[JobGroup], profile: ClusterProfile) -> None:
    """Raises InputError, with what would fit, for the first run that needs more memory than there is.

    Where the profile has auto_micro_batch, only for one that no micro-batch makes fit.
    """
    groups = list(groups)
    sizes = sizes_of(spec for group in groups for spec in group.specs)
    for group in groups:
        there = memory_of_a_rank(profile, group.layout)
        for spec in group.specs if there is not None else ():
            _check_memory(spec, sizes[spec.model], group.layout, profile, there)


def _check_memory(spec: RunSpec, size: ModelSize, layout: Layout, profile: ClusterProfile, there: int) -> None:
    local, on_gpu = spec.batch_size // layout.ranks, bool(profile.gpus_per_node)
    needed = least_bytes(spec, layout, size, on_gpu)
    if needed <= there:
        return
    smaller = smaller_micro_batches(spec, layout, min(local, spec.micro_batch - 1))
    fits = next((each for each in smaller if least_bytes(each, layout, size, on_gpu) <= there), None)
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
        f"needs at least {format_bytes(needed)}, and {key} is {format_bytes(there)}; {advice}"
    )
