"""What a report is drawn from, read: run directories or tables of results, imported tables, benchmarks.

Whatever cannot be read is a row that says so (runs), or is told as a warning (all else): no broken file stops a report.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from repro import results, sources
from repro.errors import InputError
from repro.report import tables
from repro.report.found import Found
from repro.sweep import Sweep, list_sweeps, load_sweep

logger = logging.getLogger(__name__)

MOST_LOGS = 1000
"""Runs whose training curves a page holds; of more none, since reading them takes too long."""
LOGGED = ("loss", "gradient_norm", "update_norm", "logit_scale", "logit_bias", "positive_logit", "negative_logit")
BESIDE = ("evaluations", "curves")
"""What `repro collect` writes beside a table: results/<sweep>-evaluations.csv and -curves.csv."""


def read(
    names: Sequence[str] = (),
    runs: Path = Path("runs"),
    tables_folder: Path = Path("results"),
    metrics: Sequence[str] = (),
) -> Found:
    """names: sweeps with runs, or CSV files of `repro collect`; none means every sweep. Raises InputError.

    Tables in tables_folder/imported (repro import) and bench (repro bench) join whatever is named.
    """
    files = [name for name in names if name.endswith(".csv")]
    sweeps = [results.choose_sweep(runs, name) for name in names if name not in files]
    if not names:
        sweeps = sorted(results.sweeps(runs))
        results.choose_sweep(runs, None)  # says how to make some, where there are none
    parts = [results.load(runs)] if not names else [results.load(runs, sweep) for sweep in sweeps]
    parts += [sources.load(file) for file in files]
    parts += [_of_origin(file) for file in sorted((tables_folder / "imported").glob("*.csv"))]
    table = tables.with_mean_recall(_together(parts))
    tables.check_metrics(table, metrics)
    evaluations = [results.load_evaluations(runs, sweep) for sweep in sweeps]
    curves = [results.load_curves(runs, sweep, named) for sweep in sweeps if (named := _curves_of(sweep))]
    few = sum(map(len, parts)) <= MOST_LOGS
    logs = [results.load_curves(runs, sweep, LOGGED) for sweep in sweeps if few]
    return Found(
        runs=table,
        evaluations=tables.with_mean_recall(_together([*evaluations, *_beside(files, "evaluations")])),
        curves=_together([*curves, *_beside(files, "curves")]),
        logs=_together(logs),
        published=results.published(),
        bench=_benchmarks(tables_folder),
        metrics=tuple(metrics),
    )


def _benchmarks(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of `repro bench` by name, and under its command's name what a sweep that is a measurement left."""
    found: dict[str, list[pd.DataFrame]] = {}
    measured = [(folder / f"{sweep.name}.csv", command) for sweep in list_sweeps() for command in _commands(sweep)]
    for file, name in [*measured, *((file, file.stem) for file in sorted((folder / "bench").glob("*.csv")))]:
        if file.exists() and (table := _read_csv(file)) is not None:
            found.setdefault(name, []).append(table)
    return {name: _together(parts) for name, parts in found.items()}


def _commands(sweep: Sweep) -> set[str]:
    measured = (sweep.bench(scale) for scale in sweep.scales)
    return {command for command, _ in filter(None, measured)}


def _together(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table with the columns of all."""
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _of_origin(file: Path) -> pd.DataFrame:
    table = sources.load(str(file))
    return table.assign(origin=table["origin"].fillna(file.stem) if "origin" in table else file.stem)


def _beside(files: Sequence[str], kind: str) -> list[pd.DataFrame]:
    places = [Path(name).with_name(f"{Path(name).stem}-{kind}.csv") for name in files]
    return [table for place in places if place.exists() and (table := _read_csv(place)) is not None]


def _read_csv(file: Path) -> pd.DataFrame | None:
    try:
        return pd.read_csv(file, low_memory=False)
    except (OSError, ValueError) as error:
        logger.warning("%s: left out of the report: %s", file, error)
        return None


def _curves_of(sweep: str) -> tuple[str, ...]:
    """Columns of the logs that belong to the sweep's result."""
    try:
        return load_sweep(sweep).curves
    except InputError:  # a sweep of one's own, whose file is elsewhere
        return ()


def name_of(found: Found, names: Sequence[str]) -> str:
    """A report's folder: the sweep or table that was named, where it is one; else the scale of its runs, or 'all'."""
    if len(names) == 1:
        return Path(names[0]).stem
    scales = set(found.ours["scale"].dropna().astype(str))
    return scales.pop() if len(scales) == 1 else "all"


def title_of(found: Found, names: Sequence[str]) -> str:
    what = name_of(found, names)
    return f"SigLIP, reproduced: {what}" + (" scale" if len(names) != 1 and what != "all" else "")
