"""The speed and memory of one rank of a kind of machine: measured once by short runs, or assumed from a profile.

Time is a sum, each term a quantity of counts.Work times what one of it costs: matrix products at a steady rate, all
else in the towers by the bytes it moves, and what is paid by the call and by the parameter. So small models, which are
far below the rate of the products, need no table of their own.
"""

import dataclasses
import os
from dataclasses import dataclass, field

from repro.config.cluster import ALL_MEMORY, ClusterProfile, Layout
from repro.config.hardware import cores, visible_gpus

GPU_RESERVED_BYTES = 1 << 30
"""Memory of a GPU that tensors cannot use: CUDA's context and libraries, NCCL's buffers. Assumed."""
GPU_FRAGMENTED = 1.1
"""Activations take so many times their bytes, with the temporary tensors beside them. Assumed."""


@dataclass(frozen=True)
class Machine:
    """Seconds are of one rank with one thread, or one GPU; by precision, optimizer or loss where they differ.

    origin: 'measured' with versions, or 'assumed' with where from. loss_flop_seconds: in fp32, where it differs from
    the towers'. process_bytes: of a rank before it has a model (forked: as a sweep starts it, sharing what it
    imported); on GPUs not part of the GPU's memory. state_factor: bytes held for each byte of weights, gradients,
    moments and copies for log lines; likewise the other factors.
    """

    name: str
    origin: str
    flop_seconds: dict[str, float]
    byte_seconds: dict[str, float] = field(default_factory=lambda: {"fp32": 0.0, "bf16": 0.0})
    operation_seconds: float = 0.0
    parameter_seconds: dict[str, float] = field(default_factory=dict)
    logged_parameter_seconds: float = 0.0
    step_seconds: float = 0.0
    pair_seconds: dict[str, float] = field(default_factory=dict)
    loss_flop_seconds: dict[str, float] = field(default_factory=dict)
    start_seconds: float = 0.0
    evaluated_example_seconds: float = 0.0
    process_bytes: float = 0.0
    forked_process_bytes: float = 0.0
    state_factor: float = 1.0
    activation_factor: float = 1.0
    input_factor: float = 1.0
    on_gpu: bool = False


OURS = Machine(
    name="AMD EPYC, 2 cores",
    origin="measured with torch 2.14.1, 2026-11-24",
    flop_seconds={"fp32": 9.582e-12, "bf16": 1.578e-12},
    byte_seconds={"fp32": 1.888e-10, "bf16": 7.584e-10},
    operation_seconds=2.244e-6,
    parameter_seconds={"adamw": 2.006e-9, "adafactor": 1.286e-9, "lion": 2.006e-9},
    logged_parameter_seconds=1.822e-9,
    step_seconds=1.202e-3,
    pair_seconds={"sigmoid": 2.720e-9, "softmax": 1.993e-9},
    loss_flop_seconds={"sigmoid": 5.221e-12, "softmax": 5.138e-12},
    start_seconds=3.307,
    evaluated_example_seconds=4.307e-4,
    process_bytes=846.0e6,
    forked_process_bytes=645.8e6,
    state_factor=0.6816,
    activation_factor=1.447,
    input_factor=0.1897,
)
"""Stands in for any machine without GPUs. Fitted to eleven runs, and held against 22 others (docs/lab-notebook.md)."""


@dataclass(frozen=True)
class Place:
    """Where runs are to run.

    machine: what a rank sustains. speed_is_known: whether times can be predicted, too. memory_bytes: what one rank has
    for itself; None where nobody said. cores_per_rank: on CPUs, as asked for. at_once: runs.
    """

    name: str
    machine: Machine
    memory_bytes: int | None
    speed_is_known: bool = True
    cores_per_rank: int = 1
    auto_micro_batch: bool = False
    at_once: int = 1

    @property
    def processor(self) -> str:
        return "GPU" if self.machine.on_gpu else "core"


def place_on(profile: ClusterProfile, name: str, layout: Layout) -> Place:
    """A cluster, by its profile; of speed nothing is known where a profile with GPUs has no tflops_per_rank."""
    on_gpu, memory = bool(profile.gpus_per_node), memory_of_a_rank(profile, layout)
    if on_gpu and memory is not None:
        memory -= GPU_RESERVED_BYTES
    machine = OURS
    if on_gpu or profile.tflops_per_rank is not None:
        seconds = 1e-12 / (profile.tflops_per_rank or float("nan"))
        origin = f"assumed: {profile.tflops_per_rank or 0:g} TFLOP/s a rank (tflops_per_rank), all else at no cost"
        factor = GPU_FRAGMENTED if on_gpu else 1.0
        machine = Machine(name, origin, {"fp32": seconds, "bf16": seconds}, activation_factor=factor, on_gpu=on_gpu)
    known, at_once = not (on_gpu and profile.tflops_per_rank is None), profile.array_parallelism
    return Place(name, machine, memory, known, profile.cpus_per_rank, profile.auto_micro_batch, at_once)


def this_place(threads: int, ranks: int, jobs: int | None) -> Place:
    """This machine, by `repro sweep`: runs side by side, each of so many ranks and threads, share cores and memory.
    Of its GPUs, where it has some, nothing is known.
    """
    if visible_gpus():
        unknown = float("nan")
        gpu = Machine("", "", {"fp32": unknown, "bf16": unknown}, activation_factor=GPU_FRAGMENTED, on_gpu=True)
        return Place("this machine", gpu, None, speed_is_known=False, at_once=jobs or 1)
    at_once = jobs or max(1, cores() // (threads * ranks))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (at_once * ranks)
    forked = dataclasses.replace(OURS, process_bytes=OURS.forked_process_bytes)
    return Place("this machine", forked, memory, cores_per_rank=threads, at_once=at_once)


def memory_of_a_rank(profile: ClusterProfile, layout: Layout) -> int | None:
    """Bytes of its GPU, or its share of the node's. None where the profile does not say."""
    if profile.gpus_per_node:
        return profile.gpu_memory_bytes
    if profile.memory_bytes in (None, ALL_MEMORY):
        return None
    return profile.memory_bytes // layout.ranks_per_node
