"""One row of a plan: all that a run takes, by its layout and machine; and what the runs of a sweep take together."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repro.config.cluster import ClusterProfile
from repro.config.layout import JobGroup, Layout
from repro.config.spec import RunSpec
from repro.estimate import seconds
from repro.estimate.disk import (
    CHECKPOINTS,
    checkpoint_bytes,
    embeddings_bytes,
    images_to_embed,
    sent_bytes,
    shard_bytes,
)
from repro.estimate.machine import GPU_FRAGMENTED, GPU_RESERVED_BYTES, Machine
from repro.estimate.memory import PARTS, largest_micro_batch, memory_parts, peak_bytes
from repro.estimate.needs import for_run, loss_flops, memory_there, parameters, tower_flops
from repro.estimate.work import work_of
from repro.models.sizes import ModelSize

SMALL_SHARES = (0.1, 0.5)
"""Of the towers' FLOPs, at which the loss is no longer small."""


@dataclass(frozen=True)
class Place:
    """Where runs are to run."""

    name: str
    machine: Machine | None
    """None where nobody knows how fast it is: a GPU profile without tflops_per_rank."""
    on_gpu: bool
    memory_bytes: int | None
    """That one rank has for itself; None where nobody said."""
    cores_a_rank: int = 1
    """On CPUs, as asked for."""
    auto_micro_batch: bool = False
    at_once: int = 1
    """Runs."""

    @property
    def processor(self) -> str:
        return "GPU" if self.on_gpu else "core"


def place_of(profile: ClusterProfile, name: str, layout: Layout, machine: Machine | None) -> Place:
    there = memory_there(profile, layout)
    on_gpu = bool(profile.gpus_per_node)
    if there is not None and on_gpu:
        there -= GPU_RESERVED_BYTES
    cores, at_once = profile.cpus_per_rank, profile.array_parallelism
    return Place(name, machine, on_gpu, there, cores, profile.auto_micro_batch, at_once)


def this_place(machine: Machine, threads: int, ranks: int, jobs: int | None) -> Place:
    """This machine, by `repro sweep`: runs side by side, each of so many ranks and threads, share cores and memory."""
    at_once = jobs or max(1, len(os.sched_getaffinity(0)) // (threads * ranks))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (at_once * ranks)
    forked = dataclasses.replace(machine, process_bytes=machine.forked_process_bytes)
    return Place("this machine", forked, machine.on_gpu, memory, threads, at_once=at_once)


@dataclass(frozen=True)
class RunPlan:
    """FLOPs are of the whole run over all ranks; memory, bytes sent and the time of a step of one rank."""

    spec: RunSpec
    layout: Layout
    place: Place
    parameters_learning: int
    parameters_frozen: int
    tower_flops: float
    loss_flops: float
    memory_parts: dict[str, float]
    memory_bytes: float
    largest_micro_batch: int | None
    """That fits; None where none does, or nobody said how much memory there is."""
    sent_bytes: dict[str, float]
    step_seconds: float | None
    train_seconds: float | None
    evaluation_seconds: float | None
    """With the start of the process."""
    checkpoint_bytes: int
    final_bytes: int

    @property
    def fits(self) -> bool | None:
        there = self.place.memory_bytes
        return None if there is None else self.memory_bytes <= there

    @property
    def loss_share(self) -> float:
        """Of the FLOPs."""
        return self.loss_flops / max(1.0, self.tower_flops + self.loss_flops)

    @property
    def seconds(self) -> float | None:
        return None if self.train_seconds is None else self.train_seconds + self.evaluation_seconds

    @property
    def processor_hours(self) -> float | None:
        """Of GPUs, or of cores. All ranks train, the first evaluates alone while its job has the others' still."""
        a_rank = 1 if self.place.on_gpu else self.place.cores_a_rank
        return None if self.seconds is None else self.seconds * self.layout.ranks * a_rank / 3600

    @property
    def sustained_flops(self) -> float | None:
        """A second and rank, while it trains: the utilisation that the time supposes."""
        if not self.train_seconds:
            return None
        return (self.tower_flops + self.loss_flops) / self.train_seconds / self.layout.ranks


def plan_run(spec: RunSpec, layout: Layout, size: ModelSize, place: Place) -> RunPlan:
    machine = place.machine or _unknown_speed(place)
    work, known = work_of(spec, size, layout.ranks), place.machine is not None
    numbers, released = parameters(spec, for_run(spec, size)), not spec.trains
    step = None if not known or released else seconds.step_seconds(spec, work, machine)
    evaluation = machine.start_seconds + seconds.evaluation_seconds(spec, size, machine) if known else None
    there, examples = place.memory_bytes, spec.steps * spec.batch_size
    fitting = None if there is None or released else largest_micro_batch(spec, layout, size, machine, there)
    pair_flops = 0 if released else loss_flops(spec, size)
    return RunPlan(
        spec=spec,
        layout=layout,
        place=place,
        parameters_learning=numbers.learning,
        parameters_frozen=numbers.all - numbers.learning,
        tower_flops=float(examples * tower_flops(spec, size, layout.ranks)),
        loss_flops=float(examples * spec.batch_size * pair_flops),
        memory_parts=memory_parts(spec, layout, size, machine),
        memory_bytes=peak_bytes(spec, layout, size, machine),
        largest_micro_batch=fitting,
        sent_bytes=sent_bytes(spec, size, layout.ranks),
        step_seconds=step,
        train_seconds=None if not known else (step or 0.0) * spec.steps,
        evaluation_seconds=evaluation,
        checkpoint_bytes=checkpoint_bytes(spec, size)[0],
        final_bytes=checkpoint_bytes(spec, size)[1],
    )


def _unknown_speed(place: Place) -> Machine:
    """Only its memory is asked for."""
    factor = GPU_FRAGMENTED if place.on_gpu else 1.0
    return Machine(place.name, "unknown", {}, {}, activation_factor=factor, on_gpu=place.on_gpu)


def plan_groups(
    groups: Sequence[JobGroup], profile: ClusterProfile, name: str, machine: Machine | None, sizes: dict[str, ModelSize]
) -> list[RunPlan]:
    """Of all runs on a cluster, in the order of their arrays."""
    return [
        plan_run(spec, group.layout, sizes[spec.model], place_of(profile, name, group.layout, machine))
        for group in groups
        for spec in group.specs
    ]


@dataclass(frozen=True)
class Totals:
    runs: int
    flops: float
    processor_hours: float | None
    seconds: float | None
    """By the clock, if so many runs go at a time as the place allows; at least the longest run."""
    final_bytes: int
    """Of the weights that stay."""
    checkpoint_bytes: int
    """While the largest runs train, as many as go at a time."""
    shard_bytes: int
    shards_assumed: bool
    embeddings_bytes: int
    embedded_images: int
    embedding_hours: float | None
    """Of processors: embedding each image once (siglit)."""


def totals(plans: Sequence[RunPlan], sizes: dict[str, ModelSize]) -> Totals:
    specs = [plan.spec for plan in plans]
    timed = all(plan.seconds is not None for plan in plans)
    at_once = max((plan.place.at_once for plan in plans), default=1)
    each = [plan.seconds for plan in plans] if timed else []
    largest = sorted((CHECKPOINTS * plan.checkpoint_bytes for plan in plans), reverse=True)
    shards, assumed = shard_bytes(specs)
    images, places = images_to_embed(specs), {(plan.spec.data, plan.spec.model): plan for plan in plans}
    hours = [embedding_hours(count, sizes[key[1]], places[key]) for key, count in images.items()]
    return Totals(
        runs=len(plans),
        flops=sum(plan.tower_flops + plan.loss_flops for plan in plans),
        processor_hours=sum(plan.processor_hours for plan in plans) if timed else None,
        seconds=max(max(each, default=0.0), sum(each) / at_once) if timed else None,
        final_bytes=sum(plan.final_bytes for plan in plans),
        checkpoint_bytes=sum(largest[:at_once]),
        shard_bytes=shards,
        shards_assumed=assumed,
        embeddings_bytes=sum(embeddings_bytes(count, sizes[model]) for (_, model), count in images.items()),
        embedded_images=sum(images.values()),
        embedding_hours=None if None in hours else sum(hours),
    )


def embedding_hours(images: int, size: ModelSize, plan: RunPlan) -> float | None:
    """Of processors, for a forward pass of each image where a siglit run is planned."""
    machine, precision = plan.place.machine, plan.spec.precision
    if machine is None:
        return None
    an_image = (
        size.image_flops * machine.flop_seconds[precision] + size.image_kept_bytes * machine.byte_seconds[precision]
    )
    return images * an_image / 3600


def crossover(spec: RunSpec, size: ModelSize, ranks: int, share: float) -> float:
    """The batch size at which the loss takes this share of the towers' FLOPs: it grows with the batch, they do not."""
    return share * tower_flops(spec, size, ranks) / loss_flops(spec, size)


def row(plan: RunPlan) -> dict[str, Any]:
    """For a CSV: units in the names."""
    spec = plan.spec
    told = ("setup", "scale", "loss", "batch_size", "seed", "examples_seen", "model", "precision", "optimizer")
    local = spec.batch_size // plan.layout.ranks
    machine = plan.place.machine
    return {
        "run_id": spec.run_id,
        **{name: getattr(spec, name) for name in told},
        "steps": spec.steps,
        "place": plan.place.name,
        "speed": "unknown" if machine is None else f"{machine.origin}; {machine.name}",
        "nodes": plan.layout.nodes,
        "ranks": plan.layout.ranks,
        "local_batch": local,
        "micro_batch": min(local, spec.micro_batch),
        "parameters_learning": plan.parameters_learning,
        "parameters_frozen": plan.parameters_frozen,
        "tower_flops": plan.tower_flops,
        "loss_flops": plan.loss_flops,
        "loss_share": plan.loss_share,
        "memory_bytes": plan.memory_bytes,
        **{f"memory_{part}_bytes": plan.memory_parts.get(part, 0.0) for part in PARTS},
        "memory_there_bytes": plan.place.memory_bytes,
        "fits": plan.fits,
        "largest_micro_batch": plan.largest_micro_batch,
        "sent_loss_bytes_a_step": plan.sent_bytes["loss"],
        "sent_gradient_bytes_a_step": plan.sent_bytes["gradients"],
        "step_seconds": plan.step_seconds,
        "train_seconds": plan.train_seconds,
        "evaluation_and_start_seconds": plan.evaluation_seconds,
        "seconds": plan.seconds,
        "processor": plan.place.processor,
        "processor_hours": plan.processor_hours,
        "sustained_flops_a_second": plan.sustained_flops,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "final_bytes": plan.final_bytes,
    }
