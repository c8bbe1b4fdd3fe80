"""Records of benchmarks: runs in fresh processes, repeats in turn, a CSV that says where its numbers come from."""

import datetime
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from repro.config.errors import InputError
from repro.config.hardware import processor_and_cores
from repro.config.spec import RunSpec
from repro.results import write_csv
from repro.runs.directory import RunDirectory


def interleave(measures: Mapping[str, Callable[[], dict[str, float]]], repeats: int) -> pd.DataFrame:
    """Every implementation once a round, so that a slow minute of the machine meets all of them."""
    rows = [
        {"implementation": name, "repeat": repeat} | measure()
        for repeat in range(repeats)
        for name, measure in measures.items()
    ]
    return pd.DataFrame(rows)


def run_fresh(
    spec: RunSpec,
    folder: Path,
    workers: int = 0,
    environment: Mapping[str, str] = os.environ,
    checkpoint_seconds: float | None = None,
) -> dict[str, Any]:
    """The very code of a run, in a process of its own; returns its result. Raises InputError where it fails."""
    command = run_command(spec, folder, workers, checkpoint_seconds)
    done = subprocess.run(command, capture_output=True, text=True, env=dict(environment))  # noqa: S603
    results = list(folder.glob("runs/single/*/result.json"))
    result = RunDirectory(results[0].parent).read_result() if results else None
    if done.returncode or result is None:
        raise InputError(f"the run to measure failed: {(done.stderr or done.stdout).strip()[-800:]}")
    return result


def run_command(
    spec: RunSpec, folder: Path, workers: int = 0, checkpoint_seconds: float | None = None
) -> list[str | Path]:
    """The command line of a run below `folder`, where its spec is written."""
    folder.mkdir(parents=True, exist_ok=True)
    spec_file = folder / "bench.json"
    spec_file.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "repro", "run", spec_file]
    command += ["--runs", folder / "runs", "--workers", str(workers)]
    return command + (["--checkpoint-seconds", str(checkpoint_seconds)] if checkpoint_seconds is not None else [])


def write(table: pd.DataFrame, file: Path) -> None:
    """The table with machine, versions and date on every row."""
    write_csv(table.assign(**origin()), file)


def update(table: pd.DataFrame, file: Path, keys: Sequence[str], device: str = "cpu") -> pd.DataFrame:
    """Put the table's rows beside those already in the file; a row of the same keys on the same machine is replaced.

    Returns this machine's rows of the file, with their origin.
    """
    new = table.assign(**origin(device))
    keys = [*keys, "machine"]
    if file.exists():
        old = pd.read_csv(file)
        if missing := [key for key in keys if key not in old]:
            raise InputError(f"{file}: no column '{missing[0]}', so not written by this benchmark; use another --out")
        new = pd.concat([old, new]).drop_duplicates(keys, keep="last")
    new = new.sort_values(keys, kind="stable").reset_index(drop=True)
    write_csv(new, file)
    return new[new["machine"] == origin(device)["machine"]]


def origin(device: str = "cpu") -> dict[str, str]:
    """Where a number comes from, for every row."""
    program = "python -m benchmarks" if Path(sys.argv[0]).parent.name == "benchmarks" else "repro"
    machine = processor_and_cores()
    if device == "cuda":
        import torch

        machine = f"{torch.cuda.get_device_name(0)}; {machine}"
    return {
        "machine": machine,
        "torch_version": version("torch"),
        "open_clip_version": version("open_clip_torch"),
        "command": " ".join([program, *(os.path.basename(a) if os.path.isabs(a) else a for a in sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
    }


def summary(table: pd.DataFrame, value: str, reference: str) -> pd.DataFrame:
    """Median and spread of each implementation, and its ratio to the reference."""
    grouped = table.groupby("implementation", sort=False)[value]
    shown = pd.DataFrame({"median": grouped.median(), "least": grouped.min(), "most": grouped.max()})
    return shown.assign(ratio=shown["median"] / shown["median"][reference]).reset_index()
