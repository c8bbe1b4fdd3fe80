"""The noise of a run: how far one more seed lands from another, as the pooled standard deviation over cells.

A series' own seeds say it best. Where they are few, cells of the same setup in the same table lend theirs; published
single runs take the spread that the paper states (table 7). Noise is never borrowed from another scale: without any
of these it is unknown, and what depends on it cannot be told.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from repro.results.series import part_of, series_columns, split
from repro.results.sources import ORIGIN, PAPER
from repro.results.stats.cells import Cells, cells_of, runs_in_percent

ENOUGH_DEGREES = 4
"""A series with at least so many degrees of freedom needs no loan: its 95 % intervals are then 1.4 times those of
known noise, and 1.1 times with ten."""
LENDERS = (ORIGIN, "setup", "scale")
"""Columns in which a cell that lends its spread must agree with the series that borrows it."""
UNKNOWN = "unknown"
POOLED = "pooled over"


@dataclass(frozen=True)
class Noise:
    """points: standard deviation of single runs over seeds, None where unknown; degrees: of freedom behind it."""

    points: float | None
    degrees: int
    source: str

    def of_contrast(self, weights_squared: np.ndarray | float) -> np.ndarray | float:
        """Standard error of Σ wᵢ·meanᵢ, in points; weights_squared: Σ wᵢ²/nᵢ, nᵢ the runs behind a mean."""
        return np.nan if self.points is None else self.points * np.sqrt(weights_squared)


NONE = Noise(None, 0, UNKNOWN)


class Lenders:
    """The noise of a table's series in one metric. Keeps what cells of an origin, setup and scale lend: it is asked for
    by every series that has too few seeds.
    """

    def __init__(self, table: pd.DataFrame, metric: str):
        self.table, self.metric = table, metric
        self._lent: dict[tuple[str, ...], Noise] = {}

    def noise_of(self, cells: Cells, series: dict[str, object]) -> Noise:
        """From the series' own seeds, the table's or the paper's; see the module. series: its columns and values."""
        own = _pooled([cells], "its seeds")
        if own.degrees >= ENOUGH_DEGREES:
            return own
        rows = part_of(self.table, series)
        if not own.degrees and ORIGIN in rows and len(rows) and (rows[ORIGIN] == PAPER).all():
            return published_noise()
        lent = self._lent_to(rows)
        return lent if lent.degrees > own.degrees else own

    def _lent_to(self, rows: pd.DataFrame) -> Noise:
        """Pooled over all cells with several seeds that agree with these rows in LENDERS."""
        columns = [column for column in LENDERS if column in rows]
        key = tuple(str(sorted(map(str, rows[column].unique()))) for column in columns)
        if key not in self._lent:
            alike = self.table
            for column in columns:
                alike = alike[alike[column].isin(rows[column].unique())]
            self._lent[key] = _of_table(alike, self.metric)
        return self._lent[key]


@functools.cache
def published_noise() -> Noise:
    """Of one run at the paper's scale: table 7, ImageNet after 3 B examples, five seeds each of three settings."""
    from repro.results import published

    rows = published().query("source == 'table-7'")
    degrees = rows["seeds"] - 1
    return Noise(
        float(np.sqrt((rows["std"] ** 2 * degrees).sum() / degrees.sum())), int(degrees.sum()), "published (table 7)"
    )


def _of_table(table: pd.DataFrame, metric: str) -> Noise:
    """Pooled over the cells of all series of a table of one setup."""
    by = list(dict.fromkeys(["loss", *series_columns(table)]))
    runs = runs_in_percent(table, metric, by)
    found = [cells_of(part) for _, part in split(runs, by)] if len(runs) else []
    lending = sum(int((each.degrees > 0).sum()) for each in found)
    setup = f" of {table['setup'].iloc[0]}" if "setup" in table and len(table) else ""
    return _pooled(found, f"{POOLED} {lending} {'cell' if lending == 1 else 'cells'}{setup}")


def _pooled(found: Sequence[Cells], source: str) -> Noise:
    degrees = sum(int(cells.degrees.sum()) for cells in found)
    if not degrees:
        return NONE
    return Noise(float(np.sqrt(sum(cells.squares.sum() for cells in found) / degrees)), degrees, source)
