"""A series as numbers: one cell for each batch size, its mean over seeds in percent, its runs and their spread."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from repro.config.errors import InputError, nearest
from repro.results.series import draws, finished, numbers, series_columns

TOLD = ("setup", "examples_seen")
"""What names a series even where a table has one value of it."""


@dataclass(frozen=True)
class Cells:
    """Of one series and metric, in the order of batch size; all arrays [cells]."""

    sizes: np.ndarray
    means: np.ndarray
    """Percent."""
    runs: np.ndarray
    """Seeds behind each mean; of a published mean as many as its authors say."""
    squares: np.ndarray
    """Sum of squared deviations from the cell's mean, in points²."""
    degrees: np.ndarray
    """Degrees of freedom of `squares`: seeds less one, 0 where there is one."""

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def octaves(self) -> np.ndarray:
        """log₂ of the batch sizes."""
        return np.log2(self.sizes.astype(float))


def default_by(table: pd.DataFrame) -> list[str]:
    """The columns that name and tell apart this table's series: setup, examples seen, all that differs, and loss."""
    named = [*(c for c in TOLD if c in table), *series_columns(table)]
    return [*dict.fromkeys(named), "loss"]


def runs_in_percent(table: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """Finished runs that have the metric, one row for each series, batch size and seed; `percent` is the metric's.

    Rows of the same seed are averaged first: they are one draw, not two. Raises InputError for an unknown metric.
    """
    if metric not in table:
        raise InputError(f"'{metric}' is no column of the table{nearest(metric, [c for c in table if '/' in c])}")
    runs = finished(table)
    keys = list(dict.fromkeys([*by, "batch_size", "seed"]))
    said = {column: _column(runs, column) for column in ("published_seeds", "published_std")}
    plain = runs[[key for key in keys if key != "seed"]].assign(
        seed=draws(runs), percent=100 * numbers(runs[metric]), **said
    )
    plain = plain[np.isfinite(plain["percent"])]
    how = {"percent": "mean", "published_seeds": "max", "published_std": "max"}
    return plain.groupby(keys, dropna=False, as_index=False).agg(how)


def _column(runs: pd.DataFrame, name: str) -> pd.Series | float:
    return numbers(runs[name]) if name in runs else np.nan


def cells_of(runs: pd.DataFrame) -> Cells:
    """The cells of one series. runs: its part of what runs_in_percent returns."""
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
