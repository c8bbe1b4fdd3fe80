"""Which runs a command means: a sweep's name, or runs by id, a part of one that names it alone, or directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.config.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from repro.launch import Cell


def select(targets: Sequence[str], runs: Path) -> "dict[str, list[Cell]]":
    """Sweep → its chosen runs. No target: the most recent sweep. Raises InputError with the nearest name."""
    from repro import results
    from repro.cli.status import read_cells
    from repro.launch import Cell

    found: dict[str, dict[str, Cell]] = {}
    sweeps = results.sweeps(runs)
    for target in targets or [results.choose_sweep(runs, None)]:
        cells = read_cells(runs, target)[0] if target in sweeps else [one_run(target, runs)]
        for cell in cells:
            found.setdefault(cell.sweep, {}).setdefault(cell.directory.path.name, cell)
    return {sweep: list(cells.values()) for sweep, cells in found.items()}


def one_run(target: str, runs: Path) -> "Cell":
    """Raises InputError, with the nearest, where no run or more than one is meant."""
    from repro.config.errors import InputError, nearest
    from repro.config.files import CorruptRun
    from repro.launch import Cell
    from repro.runs.directory import find_run, run_directories

    directory = find_run(target, runs)
    if directory is None:
        every = run_directories(runs)
        meant = [one for one in every if target in one.path.name]
        if len(meant) != 1:
            names = [one.path.name for one in every]
            several = f": {len(meant)} runs have it in their names, first {meant[0].path.name}" if meant else ""
            raise InputError(f"no run '{target}' in {runs}{several or nearest(target, names)}")
        directory = meant[0]
    try:
        return Cell(directory.read_spec(), directory)
    except CorruptRun as error:
        raise InputError(str(error)) from None


def chosen_metrics(table: "pd.DataFrame", names: Sequence[str]) -> "tuple[pd.DataFrame, list[str]]":
    """The table with mean recalls, and the metrics: those named, or one of each data set. Raises InputError."""
    from repro.results.tables import check_metrics, main_metrics, with_mean_recall

    wide = with_mean_recall(table)
    check_metrics(wide, names)
    return wide, list(names) or main_metrics(wide)


def chosen_series(table: "pd.DataFrame", names: Sequence[str]) -> list[str] | None:
    """The columns named with --by, None for all that differs. Raises InputError; warns where unlike runs are mixed."""
    if not names:
        return None
    from repro.results.tables import series_columns

    known = [column for column in table.columns if "/" not in column]
    for name in names:
        if name not in known:
            raise InputError(f"--by {name}: no such column{nearest(name, known)}")
    if mixed := [column for column in series_columns(table) if column not in names]:
        click.echo(f"--by: runs that differ in {', '.join(mixed)} are averaged as if they were seeds", err=True)
    return list(dict.fromkeys([*names, "loss"]))
