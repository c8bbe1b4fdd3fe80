"""What checkpoints cost: the time of a run with and without them, of one checkpoint, and of going on after a kill.

The run is the laptop recipe's, or another model's, in fresh processes, in turn. Its time is taken from its log, from
the first line to the last, so that all that checkpoints do to training is in it. CPU seconds, of the whole process, say
more where others use the machine too.
"""

import contextlib
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.fresh import run_fresh
from repro.bench.record import run_command
from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch.complete import complete, prepare_data
from repro.runs.directory import RunDirectory, run_directories
from repro.train.checkpoint import Checkpoints
from repro.train.state import size_bytes, to_host

WITH, WITHOUT = "with checkpoints", "without"
MEASURED = (
    "training_ratio",
    "cpu_ratio",
    "checkpoint_share",
    "checkpoint_bytes",
    "copy_seconds",
    "write_seconds",
    "resume_seconds",
    "steps_redone",
)
NEVER_SECONDS = 1e9
POLL_SECONDS = 0.01


def compare(
    model: str, batch_size: int, examples: int, seconds: float, data: str, threads: int, repeats: int
) -> pd.DataFrame:
    """One row a run: the seconds of its training, and for the one with checkpoints their ratio to the one without in
    the same round (of CPU seconds too), the share of them that it was blocked, the cost of one checkpoint and that of
    a resume.
    """
    values = {"model": model, "batch_size": batch_size, "examples_seen": examples, "data": data, "threads": threads}
    values |= {"loss": "sigmoid", "evals": ()}
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({}, values)))
    prepare_data([spec], threads)
    rows = []
    for repeat in range(repeats):
        resumed = _killed_and_resumed(spec, seconds)  # first: it may say that the run is too short to be measured
        without = _timed(spec, NEVER_SECONDS)
        rows.append({"implementation": WITHOUT, "repeat": repeat} | without)
        row = {"implementation": WITH, "repeat": repeat} | _timed(spec, seconds) | resumed
        ratios = {f"{of}_ratio": row[f"{of}_seconds"] / without[f"{of}_seconds"] for of in ("training", "cpu")}
        rows.append(row | ratios)
    settings = {"model": model, "batch_size": batch_size, "examples": examples, "threads": threads}
    return pd.DataFrame(rows).assign(**settings, every_seconds=seconds)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median, least and most of each measurement of the runs with checkpoints."""
    measured = table[table["implementation"] == WITH][list(MEASURED)]
    return pd.DataFrame(
        {"of": MEASURED, "median": measured.median(), "least": measured.min(), "most": measured.max()}
    ).reset_index(drop=True)


def _timed(spec: RunSpec, checkpoint_seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run_fresh(spec, Path(scratch), checkpoint_seconds=checkpoint_seconds)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        (directory,) = run_directories(Path(scratch) / "runs")
        lines = directory.read_log()
    return {
        "training_seconds": lines[-1]["time"] - lines[0]["time"],
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "checkpoint_share": result["checkpoint_share"],
        "peak_memory_bytes": result["peak_memory_bytes"],
    }


def _killed_and_resumed(spec: RunSpec, checkpoint_seconds: float) -> dict[str, Any]:
    """Kill a run (SIGKILL) in the middle between two checkpoints, measure what it left, and start it again."""
    with tempfile.TemporaryDirectory() as scratch:
        command = run_command(spec, Path(scratch), checkpoint_seconds=checkpoint_seconds)
        with _started(command) as process:
            _wait(process, lambda: next(Path(scratch).glob("runs/*/*/checkpoints/step-*.pt"), None))
            time.sleep(checkpoint_seconds / 2)
        (directory,) = run_directories(Path(scratch) / "runs")
        measured = _one_checkpoint(directory)
        lost = directory.last_logged()["step"] - measured.pop("step")
        started = time.time()
        with _started(command) as process:
            resumed = _wait(process, lambda: _first_step_after(directory, started))
    return measured | {"steps_redone": lost, "resume_seconds": resumed - started}


@contextlib.contextmanager
def _started(command: list[str | Path]) -> Iterator[subprocess.Popen]:
    """A process that is killed (SIGKILL) at the end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


def _wait(process: subprocess.Popen, found: Callable[[], Any]) -> Any:
    """What `found` finds while the process runs. Raises InputError where it ends before."""
    while process.poll() is None:
        if value := found():
            return value
        time.sleep(POLL_SECONDS)
    raise InputError("the run to kill ended before its first checkpoint: use more --examples, or fewer --every seconds")


def _first_step_after(directory: RunDirectory, moment: float) -> float | None:
    return next((line["time"] for line in directory.read_log() if line["time"] > moment), None)


def _one_checkpoint(directory: RunDirectory) -> dict[str, float]:
    """Of the newest: its size, seconds to copy what it holds and to write it, and its step."""
    file = max(directory.checkpoints.glob("step-*.pt"))
    state = torch.load(file, weights_only=True)
    started = time.perf_counter()
    copy = to_host(state)
    copied = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=directory.path) as folder:
        Checkpoints(Path(folder)).save(state["step"], copy)
        written = time.perf_counter()
    return {
        "step": state["step"],
        "checkpoint_bytes": file.stat().st_size,
        "state_bytes": size_bytes(state),
        "copy_seconds": copied - started,
        "write_seconds": written - copied,
    }
