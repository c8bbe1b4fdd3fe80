"""A series as numbers (one cell for each batch size), and its noise: how far one more seed lands from another.

Noise is the pooled standard deviation over cells. A series' own seeds say it best. Where they are few, cells of the
same setup in the same table lend theirs; published single runs take the spread that the paper states (table 7). Noise
is never borrowed from another scale: without any of these it is unknown, and what depends on it cannot be told.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from repro.config.errors import InputError, nearest
from repro.results.sources import ORIGIN, PAPER
from repro.results.tables import draws, finished, numbers, part_of, series_columns, split

ENOUGH_DEGREES = 4
"""A series with at least so many degrees of freedom needs no loan: its 95 % intervals are then 1.4 times those of
known noise, and 1.1 times with ten."""
POOL_BY = (ORIGIN, "setup", "scale")
"""Columns in which a cell that lends its spread must agree with the series that borrows it."""
UNKNOWN = "unknown"
POOLED = "pooled over"


@dataclass(frozen=True)
class Cells:
    """Cells of one series and metric, in the order of batch size; all arrays are [cells].

    means: percent. runs: seeds behind each mean; of a published mean as many as its authors say. squares: sums of
    squared deviations from the mean, in points². degrees: of freedom behind `squares`, 0 where there is one seed.
    """

    sizes: np.ndarray
    means: np.ndarray
    runs: np.ndarray
    squares: np.ndarray
    degrees: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def octaves(self) -> np.ndarray:
        """log₂ of the batch sizes."""
        return np.log2(self.sizes.astype(float))


@dataclass(frozen=True)
class Noise:
    """points: standard deviation of single runs over seeds, None where unknown; degrees: of freedom behind it."""

    points: float | None
    degrees: int
    source: str

    def of_contrast(self, weights_squared: np.ndarray | float) -> np.ndarray | float:
        """Standard error of Σ wᵢ·meanᵢ, in points; weights_squared: Σ wᵢ²/nᵢ, nᵢ the runs behind a mean."""
        return np.nan if self.points is None else self.points * np.sqrt(weights_squared)


def default_by(table: pd.DataFrame) -> list[str]:
    """The columns that name and tell apart this table's series: setup, examples seen, all that differs, and loss."""
    named = [*(c for c in ("setup", "examples_seen") if c in table), *series_columns(table)]
    return [*dict.fromkeys(named), "loss"]


def measured_series(
    table: pd.DataFrame, metric: str, by: Sequence[str]
) -> Iterator[tuple[dict[str, object], pd.DataFrame, Cells, Noise]]:
    """Yield each series that has the metric: its columns and values, its runs in percent, its cells and its noise.

    Raises InputError for an unknown metric.
    """
    measured = _runs_in_percent(table, metric, by)
    lent: dict[tuple[str, ...], Noise] = {}
    for series, runs in split(measured, by) if len(measured) else []:
        cells = _cells_of(runs)
        yield series, runs, cells, _noise_of(cells, part_of(table, series), table, metric, lent)


def _runs_in_percent(table: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """Finished runs that have the metric, one row for each series, batch size and seed; `percent` is the metric's.

    Rows of the same seed are averaged first: they are one draw, not two.
    """
    if metric not in table:
        raise InputError(f"'{metric}' is no column of the table{nearest(metric, [c for c in table if '/' in c])}")
    runs = finished(table)
    keys = list(dict.fromkeys([*by, "batch_size", "seed"]))
    how = {"percent": "mean", "published_seeds": "max", "published_std": "max"}
    said = {column: numbers(runs[column]) if column in runs else np.nan for column in how if column != "percent"}
    plain = runs[[key for key in keys if key != "seed"]].assign(
        seed=draws(runs), percent=100 * numbers(runs[metric]), **said
    )
    return plain[np.isfinite(plain["percent"])].groupby(keys, dropna=False, as_index=False).agg(how)


def _cells_of(runs: pd.DataFrame) -> Cells:
    """The cells of one series; runs: its part of what _runs_in_percent returns."""
    groups = runs.groupby("batch_size")
    found = groups["percent"].agg(["mean", "count", "var"]).sort_index()
    degrees = found["count"] - 1
    squares = (found["var"].fillna(0) * degrees).to_numpy(float)
    said = groups[["published_seeds", "published_std"]].max().reindex(found.index)
    published = (degrees == 0) & (said["published_seeds"] > 1) & said["published_std"].notna()
    count = np.where(published, said["published_seeds"], found["count"]).astype(int)
    squares = np.where(published, (100 * said["published_std"]) ** 2 * (count - 1), squares)
    degrees = np.where(published, count - 1, degrees).astype(int)
    return Cells(found.index.to_numpy(np.int64), found["mean"].to_numpy(float), count, squares, degrees)


def _noise_of(
    cells: Cells, rows: pd.DataFrame, table: pd.DataFrame, metric: str, lent: dict[tuple[str, ...], Noise]
) -> Noise:
    """From the series' own seeds, the table's or the paper's. rows: of the series; lent: by those who borrow."""
    own = _pooled([cells], "its seeds")
    if own.degrees >= ENOUGH_DEGREES:
        return own
    if not own.degrees and ORIGIN in rows and len(rows) and (rows[ORIGIN] == PAPER).all():
        return published_noise()
    columns = [column for column in POOL_BY if column in rows]
    borrower = tuple(str(sorted(map(str, rows[column].unique()))) for column in columns)
    if borrower not in lent:
        alike = table
        for column in columns:
            alike = alike[alike[column].isin(rows[column].unique())]
        lent[borrower] = pooled_noise(alike, metric)
    return lent[borrower] if lent[borrower].degrees > own.degrees else own


@functools.cache
def published_noise() -> Noise:
    """Noise of a run at the paper's scale: table 7, ImageNet after 3 B examples, five seeds each of three settings."""
    from repro.results import published

    rows = published().query("source == 'table-7'")
    degrees = rows["seeds"] - 1
    points = float(np.sqrt((rows["std"] ** 2 * degrees).sum() / degrees.sum()))
    return Noise(points, int(degrees.sum()), "published (table 7)")


def pooled_noise(table: pd.DataFrame, metric: str) -> Noise:
    """Pooled over the cells of all series of a table."""
    by = list(dict.fromkeys(["loss", *series_columns(table)]))
    runs = _runs_in_percent(table, metric, by)
    found = [_cells_of(part) for _, part in split(runs, by)] if len(runs) else []
    lending = sum(int((each.degrees > 0).sum()) for each in found)
    setup = f" of {table['setup'].iloc[0]}" if "setup" in table and len(table) else ""
    return _pooled(found, f"{POOLED} {lending} {'cell' if lending == 1 else 'cells'}{setup}")


def _pooled(found: Sequence[Cells], source: str) -> Noise:
    degrees = sum(int(cells.degrees.sum()) for cells in found)
    if not degrees:
        return Noise(None, 0, UNKNOWN)
    return Noise(float(np.sqrt(sum(cells.squares.sum() for cells in found) / degrees)), degrees, source)
