"""What `repro plan` predicts beside what runs take: other runs than those that it was calibrated by.

Other batch sizes, micro-batches, losses, optimizers, precisions and models, one of which is much larger than any that
calibration saw. Seconds of a step are the processor's, as in calibration. Beside them stand finished runs of a results
table, if they ran on this machine: forked by a sweep, and timed by the clock.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from repro.bench.calibrate import Case, read_all, seconds_of, spec_of
from repro.config.errors import InputError
from repro.config.layout import Layout
from repro.config.spec import RunSpec
from repro.estimate.machine import Machine
from repro.estimate.memory import peak_bytes
from repro.estimate.seconds import loss_seconds, step_seconds
from repro.estimate.work import work_of
from repro.launch.complete import prepare_data
from repro.models.sizes import model_size

MEMORY_WITHIN, TIME_WITHIN = 0.15, 0.25
"""What we ask of ourselves."""

TOLD = ("setup", "loss", "batch_size", "micro_batch", "optimizer", "precision", "token_bottleneck")
"""Of a spec, in a row."""
CASES: tuple[Case, ...] = (
    {"batch_size": 64, "steps": 50, "loss": "softmax"},
    {"batch_size": 256, "steps": 30},
    {"batch_size": 2048, "micro_batch": 256, "steps": 6, "loss": "softmax"},
    {"batch_size": 8192, "micro_batch": 512, "steps": 4},
    {"batch_size": 256, "steps": 12, "model": (128, 3, 8706)},
    {"batch_size": 96, "micro_batch": 32, "steps": 20, "model": (128, 3, 8706), "optimizer": "adafactor"},
    {"batch_size": 64, "steps": 16, "model": (256, 2, 8706)},
    {"batch_size": 128, "steps": 15, "model": (128, 3, 8706), "precision": "bf16"},
    {"batch_size": 8, "steps": 6, "model": "siglip-s16-128"},
    {"batch_size": 256, "steps": 15, "model": (128, 3, 8706), "image_learning_rate_multiplier": 0.0},
    {"batch_size": 128, "steps": 40, "token_bottleneck": 16, "optimizer": "lion"},
    {"setup": "siglit", "batch_size": 512, "steps": 20},
)


def compare(machine: Machine, rounds: int, report: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
    """A row a run: predicted and measured. Raises InputError for a machine that was not measured."""
    if not machine.measured:
        raise InputError("this machine is not calibrated: repro plan --calibrate")
    with tempfile.TemporaryDirectory(prefix="repro-plan-") as folder:
        specs = [spec_of(case, Path(folder)) for case in CASES]
        prepare_data(specs, 1)
        readings = read_all(specs, rounds, report)
        rows = [
            _row(spec, seconds_of(reading, machine), reading.peak_memory_bytes, machine)
            for spec, reading in zip(specs, readings, strict=True)
        ]
    how = "clock" if machine.on_gpu else "processor time"
    return pd.DataFrame(rows).assign(measured=f"{how}, least of {rounds}")


def compare_results(file: Path, machine: Machine) -> pd.DataFrame:
    """A row for each finished run of this machine in a results table."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    forked = replace(machine, process_bytes=machine.forked_process_bytes)
    rows = []
    for found in table[(table["status"] == "finished") & (table["machine"] == machine.name)].to_dict("records"):
        given: dict[str, Any] = {name: found[name] for name in RunSpec.model_fields if found.get(name)}
        given |= {name: given[name].split() for name in ("languages", "evaluate_at") if name in given}
        spec, measured = RunSpec.parse(given, str(file)), float(found["step_seconds"])
        rows.append(_row(spec, measured, float(found["peak_memory_bytes"]), forked) | {"measured": f"clock, {file}"})
    return pd.DataFrame(rows)


def _row(spec: RunSpec, step: float, peak: float, machine: Machine) -> dict[str, Any]:
    size = model_size(spec.model)
    work = work_of(spec, size, 1)
    seconds, memory = step_seconds(spec, work, machine), peak_bytes(spec, Layout(1, 1), size, machine)
    told = {name: getattr(spec, name) for name in TOLD}
    return {
        "model": Path(spec.model).stem,
        **told,
        "parameters_learning": work.learning,
        "loss_time_share": loss_seconds(spec, work, machine) / seconds,
        "step_seconds_predicted": seconds,
        "step_seconds_measured": step,
        "step_seconds_ratio": seconds / step,
        "peak_memory_bytes_predicted": memory,
        "peak_memory_bytes_measured": peak,
        "peak_memory_bytes_ratio": memory / peak,
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """What fits a terminal: milliseconds and MB, and whether both are within what we ask."""
    time, memory = table["step_seconds_ratio"], table["peak_memory_bytes_ratio"]
    within = (time.sub(1).abs() <= TIME_WITHIN) & (memory.sub(1).abs() <= MEMORY_WITHIN)
    shown = table[["setup", "model", "loss", "batch_size", "micro_batch"]].copy()
    for name in ("predicted", "measured"):
        shown[f"ms {name}"] = 1e3 * table[f"step_seconds_{name}"]
    shown["ratio"] = time
    for name in ("predicted", "measured"):
        shown[f"MB {name}"] = table[f"peak_memory_bytes_{name}"] / 1e6
    return shown.assign(**{"ratio ": memory, "within": within.map({True: "yes", False: "NO"})})
