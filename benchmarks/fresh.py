"""What the scripts share: runs in fresh processes, repeats in turn, tables that say where their numbers are from."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from repro.bench.record import origin, run_command
from repro.config.errors import InputError
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


def write(table: pd.DataFrame, file: Path) -> None:
    """The table with machine, versions and date on every row."""
    write_csv(table.assign(**origin()), file)


def summary(table: pd.DataFrame, value: str, reference: str) -> pd.DataFrame:
    """Median and spread of each implementation, and its ratio to the reference."""
    grouped = table.groupby("implementation", sort=False)[value]
    shown = pd.DataFrame({"median": grouped.median(), "least": grouped.min(), "most": grouped.max()})
    return shown.assign(ratio=shown["median"] / shown["median"][reference]).reset_index()
