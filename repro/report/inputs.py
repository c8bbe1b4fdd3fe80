"""What a report is drawn from, read: run directories or tables of results, imported tables, benchmarks.

Whatever cannot be read is a row that says so (runs), or is told as a warning (all else): no broken file stops a report.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from repro import results
from repro.config.errors import InputError
from repro.config.sweep import Sweep, list_sweeps, load_sweep
from repro.report import tables
from repro.report.exhibits.exhibit import stem
from repro.report.found import Found
from repro.results import sources

logger = logging.getLogger(__name__)

MOST_LOGS = 1000
"""Runs whose training curves a page holds; of more none, since reading them takes too long."""
LOGGED = ("loss", "gradient_norm", "update_norm", "logit_scale", "logit_bias", "positive_logit", "negative_logit")
BESIDE = ("evaluations", "curves")
"""What `repro collect` writes beside a table: results/<sweep>-evaluations.csv and -curves.csv."""
ROW = (sources.ORIGIN, "sweep", "run_id", "examples_seen_at")
"""What tells the rows of such tables apart, whichever of them it has."""


def read(
    names: Sequence[str] = (),
    runs: Path = Path("runs"),
    tables_folder: Path = Path("results"),
    metrics: Sequence[str] = (),
) -> Found:
    """names: sweeps with runs, or CSV files of `repro collect`; none means every sweep. Raises InputError.

    Tables in tables_folder/imported (repro import) and bench (repro bench) join whatever is named. A run that several
    of them hold counts once, as the first of them has it.
    """
    files = _of_runs([name for name in names if name.endswith(".csv")], tables_folder)
    sweeps = [results.choose_sweep(runs, name) for name in names if not name.endswith(".csv")]
    if not names:
        sweeps = sorted(results.sweeps(runs))
        results.choose_sweep(runs, None)  # says how to make some, where there are none
    parts = [results.load(runs)] if not names else [results.load(runs, sweep) for sweep in sweeps]
    parts += [sources.load(file) for file in files]
    parts += _imported(tables_folder / "imported", files)
    table = tables.with_mean_recall(_once(parts))
    tables.check_metrics(table, metrics)
    evaluations = [results.load_evaluations(runs, sweep) for sweep in sweeps]
    curves = [results.load_curves(runs, sweep, named) for sweep in sweeps if (named := _curves_of(sweep))]
    few = sum(map(len, parts)) <= MOST_LOGS
    logs = [results.load_curves(runs, sweep, LOGGED) for sweep in sweeps if few]
    return Found(
        runs=table,
        evaluations=tables.with_mean_recall(_once([*evaluations, *_beside(files, "evaluations")])),
        curves=_once([*curves, *_beside(files, "curves")]),
        logs=_once(logs),
        published=results.published(),
        bench=_benchmarks(tables_folder),
        metrics=tuple(metrics),
    )


def _of_runs(named: Sequence[str], folder: Path) -> Sequence[str]:
    """Of CSV files, as results/*.csv names them, those of runs; all where there is none, so that the mistake is told.

    What stands beside one of them joins with it, and measurements join anyway.
    """
    joining = {place.resolve() for name in named for kind in BESIDE for place in [_place_beside(name, kind)]}
    joining |= {file.resolve() for file, _ in _measurements(folder)}
    return [name for name in named if Path(name).resolve() not in joining] or named


def _benchmarks(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of `repro bench` by name, and under its command's name what a sweep that is a measurement left."""
    found: dict[str, list[pd.DataFrame]] = {}
    for file, name in [
        *_measurements(folder),
        *((file, file.stem) for file in sorted((folder / "bench").glob("*.csv"))),
    ]:
        if file.exists() and (table := _read_csv(file)) is not None:
            found.setdefault(name, []).append(table)
    return {name: _together(parts) for name, parts in found.items()}


def _measurements(folder: Path) -> list[tuple[Path, str]]:
    """(file, command) of the sweeps that are measurements."""
    return [(folder / f"{sweep.name}.csv", command) for sweep in list_sweeps() for command in _commands(sweep)]


def _commands(sweep: Sweep) -> set[str]:
    measured = (sweep.bench(scale) for scale in sweep.scales)
    return {command for command, _ in filter(None, measured)}


def _together(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table with the columns of all."""
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _once(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table with the columns of all, and each row of the first part that has it."""
    parts = [part for part in parts if len(part)]
    table = _together(parts)
    if "run_id" not in table:
        return table
    part = pd.Series([number for number, each in enumerate(parts) for _ in range(len(each))], table.index)
    first = part.groupby([table[column] for column in ROW if column in table], dropna=False).transform("min")
    return table[(part == first) | table["run_id"].isna()].reset_index(drop=True)


def _imported(folder: Path, named: Sequence[str]) -> list[pd.DataFrame]:
    """The folder's tables but those that are named; rows that do not say whose they are go by the file's name."""
    found = []
    for file in sorted(folder.glob("*.csv")):
        if file.resolve() in {Path(name).resolve() for name in named}:
            continue
        try:
            table = sources.load(str(file))
        except InputError as error:
            logger.warning("%s: left out of the report: %s", file, str(error).removeprefix(f"{file}: "))
            continue
        origin = table[sources.ORIGIN].fillna(file.stem) if sources.ORIGIN in table else file.stem
        found.append(table.assign(**{sources.ORIGIN: origin}))
    return found


def _beside(files: Sequence[str], kind: str) -> list[pd.DataFrame]:
    places = [_place_beside(name, kind) for name in files]
    return [table for place in places if place.exists() and (table := _read_csv(place)) is not None]


def _place_beside(name: str, kind: str) -> Path:
    return Path(name).with_name(f"{Path(name).stem}-{kind}.csv")


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
        return Path(names[0]).name.removesuffix(".csv")
    scales = set(found.ours["scale"])
    return stem(scales.pop() or "all") if len(scales) == 1 else "all"


def title_of(found: Found, names: Sequence[str]) -> str:
    what = name_of(found, names)
    return f"SigLIP, reproduced: {what}" + (" scale" if len(names) != 1 and what != "all" else "")
