"""A grid of runs as it lies on disk: directories with the files that real runs leave, made without training."""

import json
import statistics
from pathlib import Path
from typing import Any

import torch

from repro.config.errors import InputError
from repro.config.spec import FORMAT, LOG_LINES, RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch.complete import complete
from repro.runs.directory import RunDirectory
from repro.runs.execute import provenance
from repro.world.source import eval_folders

SWEEP = "batch-size"
LOSSES = ("sigmoid", "softmax")
BATCH_SIZES = (31, 63, 64, 128, 256)
"""At 64 examples a rank, on nodes of two ranks, three layouts: one rank, one node, two nodes."""
DATA = "shapes:2048"
EXAMPLES = 1024
STATES = {"finished": 80, "oom": 5, "diverged": 4, "killed": 3, "interrupted": 3, "cancelled": 2, "pending": 3}
"""Of a hundred runs; the grid's last one is corrupt."""
AT = "2026-11-24T06:29:32+00:00"


def seeds(count: int) -> list[int]:
    """Of a grid of `count` runs. Raises InputError."""
    cells = len(LOSSES) * len(BATCH_SIZES)
    if count < 1 or count % cells:
        raise InputError(f"{count} runs: expected a multiple of {cells} ({len(LOSSES)} losses × {len(BATCH_SIZES)})")
    return list(range(count // cells))


def options(count: int) -> list[str]:
    """The command line of `repro sweep` for the grid of `count` runs."""
    axes = ["--loss", *LOSSES, "--batch-size", *map(str, BATCH_SIZES), "--seed", *map(str, seeds(count))]
    return ["sweep", SWEEP, *axes, "--set", f"data={DATA}", "--examples", str(EXAMPLES)]


def specs(count: int) -> list[RunSpec]:
    """The runs that `options(count)` names."""
    axes = {"loss": list(LOSSES), "batch_size": list(BATCH_SIZES), "seed": seeds(count)}
    return complete(expand(load_sweep(SWEEP), "laptop", Overrides(axes, {"data": DATA, "examples_seen": EXAMPLES})))


def make(runs: Path, count: int, finished: bool = False) -> None:
    """Run directories of the grid: all finished, or in a mix of states of which the last is corrupt."""
    states = ["finished"] if finished else [state for state, share in STATES.items() for _ in range(share)]
    grid = specs(count)
    origin = provenance(grid[0], torch.device("cpu"))
    for number, spec in enumerate(grid):
        directory = RunDirectory(runs / SWEEP / spec.run_id)
        _make_run(directory, spec, states[number % len(states)], origin)
    if not finished:
        directory.result_file.write_text('{"status": "fini')


def _make_run(directory: RunDirectory, spec: RunSpec, state: str, origin: dict[str, Any]) -> None:
    _write(directory.spec_file, spec.model_dump())
    if state == "pending":
        return
    log = [_logged(step, spec) for step in range(1, LOG_LINES + 1)]
    directory.log_file.write_text("".join(json.dumps(line) + "\n" for line in log))
    _write(directory.provenance_file, origin)
    _write(directory.alive_file(0), "")
    attempt = {"host": origin["host"], "pid": 2**22 + 1, "process_started": "gone", "job_id": "", "ranks": 1}
    ended = {} if state == "interrupted" else {"outcome": state.replace("cancelled", "interrupted"), "ended_at": AT}
    _write(directory.attempts / "0001.json", {**attempt, "started_at": AT, **ended})
    if state == "cancelled":
        _write(directory.cancelled_file, {"by": "somebody", "at": AT})
    elif state == "finished":
        trained = _trained(log, spec)
        _write(directory.trained_file, trained)
        _write(directory.final, "")
        _write_result(directory, {"status": state, "reason": "", **trained, "metrics": _evaluate(directory, spec)})
    elif state != "interrupted":
        measured = {key: log[-1][key] for key in ("examples_per_second", "peak_memory_bytes")}
        _write_result(directory, {**measured, "status": state, "reason": f"{state} at step {LOG_LINES}"})


def _logged(step: int, spec: RunSpec) -> dict[str, Any]:
    """One line of log.jsonl, as train/loop.py writes it."""
    values = {"step": step, "examples_seen": step * spec.batch_size, "time": 1795501772.7609391, "loss": 3.5 + 1 / step}
    values |= {"logit_scale": 10.235296249389648, "logit_bias": -9.957587242126465}
    values |= {"positive_logit": -2.544622032299883, "negative_logit": -6.897828177792869}
    values |= {"gradient_norm": 5.379127025604248, "parameter_norm": 47.79815673828125}
    values |= {"update_norm": 3.2459007343277335e-05, "learning_rate": 3.756326579171798e-07}
    values |= {"examples_per_second": 1857.1134691512793 + spec.seed, "data_wait_share": 0.025837542874984815}
    return values | {"bad_samples": 0, "peak_memory_bytes": 669593600}


def _trained(log: list[dict[str, Any]], spec: RunSpec) -> dict[str, Any]:
    last = log[-1]
    values = {"steps": spec.steps, "step_seconds": statistics.median(line["time"] for line in log) / 1e11}
    values |= {key: last[key] for key in ("examples_per_second", "data_wait_share", "peak_memory_bytes")}
    values |= {"final_loss": last["loss"], "final_logit_scale": last["logit_scale"]}
    return values | {"final_logit_bias": last["logit_bias"], "ranks": 1, "bad_samples": 0}


def _evaluate(directory: RunDirectory, spec: RunSpec) -> dict[str, float]:
    """clip-benchmark's JSON of each evaluation; the metrics of all."""
    classification = {"acc1": 0.097, "acc5": 0.49, "mean_per_class_recall": 0.096}
    retrieval = {f"{what}_retrieval_recall@{k}": 0.06 * k for what in ("image", "text") for k in (1, 5, 10)}
    metrics: dict[str, float] = {}
    for name in (Path(folder).name for folder in eval_folders(spec)):
        found = retrieval if "retrieval" in name else classification
        values = {"dataset": f"wds/{name}", "model": f"local-dir:{directory.checkpoints}", "pretrained": "final.pt"}
        _write(directory.evals / f"{name}.json", {**values, "metrics": found, "language": "en"})
        metrics |= {f"{name}/{key}": value for key, value in found.items()}
    return metrics


def _write_result(directory: RunDirectory, result: dict[str, Any]) -> None:
    _write(directory.result_file, {"format": FORMAT, **result, "finished_at": AT})


def _write(file: Path, values: Any) -> None:
    """As rundir.write_json, but for the fsync: ten thousand runs are made in a minute."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(values if isinstance(values, str) else json.dumps(values, indent=1) + "\n")
