"""What one rank of a kind of machine sustains: measured by `repro plan --calibrate`, or assumed from a profile.

Time is a sum, each term a quantity of work.py times what one of it costs: matrix products at a steady rate, all else in
the towers by the bytes it moves, and what is paid by the call, the parameter, the example. So small models, which are
far below the rate of the products, need no table of their own.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.config.cluster import ClusterProfile
from repro.config.errors import InputError
from repro.config.files import CorruptRun, read_object
from repro.config.hardware import processor_and_cores
from repro.config.resources import PACKAGE, cache_folder

OURS = PACKAGE / "estimate" / "machines.json"
"""Machines that were calibrated for the project, by name."""
GPU_RESERVED_BYTES = 1 << 30
"""Of a GPU, that tensors cannot have: CUDA's context and libraries, NCCL's buffers. Assumed."""
GPU_FRAGMENTED = 1.1
"""Activations take so many times their bytes, with the temporary tensors beside them. Assumed."""


@dataclass(frozen=True)
class Machine:
    """Seconds are of one rank with one thread, or one GPU; by precision, optimizer or loss where they differ."""

    name: str
    origin: str
    """'measured' with a date and versions, or 'assumed' with where from."""
    flop_seconds: dict[str, float]
    """Of a FLOP of the towers' matrix products, by precision."""
    byte_seconds: dict[str, float]
    """Of a byte that a pass through a tower moves (Work.moved_bytes)."""
    operation_seconds: float = 0.0
    parameter_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    logged_parameter_seconds: float = 0.0
    step_seconds: float = 0.0
    input_byte_seconds: float = 0.0
    """Of an example that was decoded before; what decoding adds is not counted."""
    pair_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Of a pair of the loss beside its products, by loss."""
    loss_flop_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """By loss, where measured in fp32; else the towers'."""
    start_seconds: float = 0.0
    evaluated_example_seconds: float = 0.0
    """Of an image or a text in an evaluation, beside the towers: reading, decoding, tokenizing."""

    process_bytes: float = 0.0
    """Of a rank before it has a model, with Python, torch and libraries; on GPUs not part of the GPU's memory."""
    forked_process_bytes: float = 0.0
    """The same where `repro sweep` forks a run from one that has imported all: what they share counts less."""
    state_factor: float = 1.0
    """Bytes held for each byte of weights, gradients, moments and copies for log lines; likewise below."""
    activation_factor: float = 1.0
    input_factor: float = 1.0
    on_gpu: bool = False

    @property
    def measured(self) -> bool:
        return self.origin.startswith("measured")


def assumed(profile: ClusterProfile, name: str) -> Machine | None:
    """From what a profile says a rank sustains, in all; None where it does not."""
    if profile.tflops_per_rank is None:
        return None
    rate = profile.tflops_per_rank * 1e12
    on_gpu = bool(profile.gpus_per_node)
    return Machine(
        name=name,
        origin=f"assumed: {profile.tflops_per_rank:g} TFLOP/s a rank (tflops_per_rank), all else at no cost",
        flop_seconds={"fp32": 1 / rate, "bf16": 1 / rate},
        byte_seconds={"fp32": 0.0, "bf16": 0.0},
        activation_factor=GPU_FRAGMENTED if on_gpu else 1.0,
        on_gpu=on_gpu,
    )


def calibrated(file: Path | None = None) -> Machine | None:
    """The calibration of this machine: the person's own, else ours, else None. Of a file that is named, the only one in
    it too, whatever machine that is. Raises InputError."""
    if file and not file.exists():
        raise InputError(f"--calibration {file}: no such file; repro plan --calibrate --calibration {file} writes one")
    for place in (file,) if file else (own_file(), OURS):
        machines = read_machines(place)
        if file and len(machines) == 1:
            return next(iter(machines.values()))
        if (found := _named(machines, processor_and_cores())) is not None:
            return found
        if file:
            known = ", ".join(machines) or "none at all"
            raise InputError(f"--calibration {file}: none of this machine ({processor_and_cores()}); it has {known}")
    return None


def _named(machines: dict[str, Machine], name: str) -> Machine | None:
    """On a machine with a GPU, that of its GPU, whose name goes before."""
    if Path("/dev/nvidia0").exists():
        return next((machine for key, machine in machines.items() if key.endswith(f"; {name}")), None)
    return machines.get(name)


def calibrated_or_ours() -> Machine:
    """Of this machine, or else ours, which stands in for it under its own name. Raises InputError."""
    found = calibrated() or next(iter(read_machines(OURS).values()), None)
    if found is None:
        raise InputError("no machine is calibrated; expected one: repro plan --calibrate")
    return found


def own_file() -> Path:
    return cache_folder() / "machines.json"


def read_machines(file: Path) -> dict[str, Machine]:
    """Raises InputError for a file that holds anything else; where there is none: none."""
    if not file.exists():
        return {}
    try:
        return {name: Machine(**values) for name, values in read_object(file).items()}
    except (CorruptRun, TypeError) as error:
        raise InputError(f"{file}: expected machines as `repro plan --calibrate` writes them: {error}") from None


def keep(machine: Machine, file: Path) -> None:
    """Add a machine to a file of them, or renew it there."""
    machines: dict[str, Any] = {name: dataclasses.asdict(each) for name, each in read_machines(file).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(machines | {machine.name: dataclasses.asdict(machine)}, indent=1) + "\n")
