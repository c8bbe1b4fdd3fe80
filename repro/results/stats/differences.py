"""A series as numbers (one cell for each batch size), and its noise: how far one more seed lands from another.

Noise is the pooled standard deviation over cells. A series' own seeds say it best. Where they are few, cells of the
same setup in the same table lend theirs; published single runs take the spread that the paper states (table 7). Noise
is never borrowed from another scale: without any of these it is unknown, and what depends on it cannot be told.

Then differences in points, tested: is there one (Student's t), is it within a margin (two one-sided tests), Holm. A
difference is claimed after Holm's correction over all comparisons of a series. Equality needs none where it is claimed
of all of them together: each of the tests has to pass (an intersection-union test). Where both sides have the seeds,
runs are paired by seed and the spread of the paired differences is pooled over the rows given; otherwise each side
brings its own noise, its own or borrowed (Welch).
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from repro.config.errors import InputError, nearest
from repro.results.tables import ORIGIN, PAPER, draws, finished, numbers, part_of, series_columns, split

ENOUGH_DEGREES = 4
"""A series with at least so many degrees of freedom needs no loan: its 95 % intervals are then 1.4 times those of
known noise, and 1.1 times with ten."""
POOL_BY = (ORIGIN, "setup", "scale")
"""Columns in which a cell that lends its spread must agree with the series that borrows it."""
UNKNOWN = "unknown"
POOLED = "pooled over"
LEVEL = 0.05
LEAST_MARGIN = 0.5
"""Points: about what the paper's text treats as no difference."""
NOISES = 2
"""The default margin is no less than so many standard errors of a cell's mean: no finer than the table can resolve."""
PAIRED = "paired by seed"


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


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, in the order given; NaN stays, and does not count as a comparison."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted


def p_difference(points: np.ndarray, error: np.ndarray, degrees: np.ndarray | int) -> np.ndarray:
    """Two-sided p of no difference; NaN where the standard error is."""
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = np.where(error > 0, np.abs(points) / error, np.where(points != 0, np.inf, 0.0))
        return np.where(np.isnan(error), np.nan, 2 * stdtr(degrees, -statistic))


def p_equal(points: np.ndarray, error: np.ndarray, degrees: np.ndarray | int, margin: float) -> np.ndarray:
    """p of two one-sided tests (TOST) that the difference lies within ± margin points; NaN where unknown."""
    with np.errstate(invalid="ignore", divide="ignore"):
        room = margin - np.abs(points)
        statistic = np.where(error > 0, room / error, np.where(room > 0, np.inf, -np.inf))
        return np.where(np.isnan(error), np.nan, stdtr(degrees, -statistic))


def half_width(error: np.ndarray | float, degrees: np.ndarray | int) -> np.ndarray:
    """Half the width of the 95 % interval, in points."""
    with np.errstate(invalid="ignore"):
        return stdtrit(degrees, 1 - LEVEL / 2) * error


def verdicts(
    points: np.ndarray, holm_p: np.ndarray, equal_p: np.ndarray, above: str, below: str, equal_first: bool
) -> list[str]:
    """A word for each: above, below, 'equal' or 'cannot tell'.

    equal_first: a difference that is sure, and surely within the margin, is 'equal' (growing does not pay for it);
    otherwise it is a difference.
    """
    words = []
    for difference, p, same in zip(points, holm_p, equal_p, strict=True):
        found = [("equal", same < LEVEL), (above if difference > 0 else below, p < LEVEL)]
        words.append(next((word for word, true in (found if equal_first else found[::-1]) if true), "cannot tell"))
    return words


def noises_of(runs: Sequence[int]) -> float:
    """How many standard deviations of one run the default margin is; runs: of each cell."""
    return NOISES / float(np.sqrt(np.median(runs)))


def widest_margin(sides: Iterable[tuple[Noise, int]]) -> float:
    """Default margin in points between means of several noises; sides: each with the runs behind its mean."""
    return max([LEAST_MARGIN, *(noises_of([runs]) * noise.points for noise, runs in sides if noise.points)])


def measured(table: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """One row for each series and batch size: `by`, batch_size, percent, runs, noise (Noise), percents (by seed)."""
    rows = []
    for series, runs, cells, noise in measured_series(table, metric, by):
        for (size, group), mean, count in zip(runs.groupby("batch_size"), cells.means, cells.runs, strict=True):
            percents = dict(zip(group["seed"], group["percent"], strict=True))
            rows.append((*series.values(), int(size), mean, int(count), noise, percents))
    return pd.DataFrame(rows, columns=[*by, "batch_size", "percent", "runs", "noise", "percents"])


def tested(pairs: pd.DataFrame, above: str, below: str) -> pd.DataFrame:
    """Second minus first of each row. pairs: percent, runs, noise and percents, each with _first and _second.

    Returns first_percent, second_percent, difference_points, seeds (of the pairs, or of the side that has fewer),
    noise_source, low_points, high_points (95 %, not corrected), p, p_holm (over these rows), p_equal (TOST within
    margin_points) and verdict (`above` where the second is ahead, `below`, 'equal' or 'cannot tell'); NaN where the
    noise is unknown.
    """
    seeds = [_shared_seeds(row) for row in pairs.itertuples()]
    spreads = [
        np.array([row.percents_second[seed] - row.percents_first[seed] for seed in each])
        for row, each in zip(pairs.itertuples(), seeds, strict=True)
    ]
    degrees = sum(max(0, len(each) - 1) for each in spreads)
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in spreads if len(each))
    paired = Noise(float(np.sqrt(squares / degrees)), degrees, PAIRED) if degrees else None
    columns = ["first_percent", "second_percent", "difference_points", "error", "degrees", "seeds", "noise_source"]
    rows = [_difference(row, each, paired) for row, each in zip(pairs.itertuples(), seeds, strict=True)]
    found = pd.DataFrame(rows, columns=columns, index=pairs.index)
    points, error, degrees = (found.pop(name).to_numpy(float) for name in columns[2:5])
    sides = [zip(pairs[f"noise_{side}"], pairs[f"runs_{side}"], strict=True) for side in ("first", "second")]
    margin = widest_margin(each for side in sides for each in side)
    width, p = half_width(error, degrees), p_difference(points, error, degrees)
    corrected, equal = holm(p), p_equal(points, error, degrees, margin)
    found.insert(2, "difference_points", points)
    found = found.assign(low_points=points - width, high_points=points + width, p=p, p_holm=corrected, p_equal=equal)
    words = verdicts(points, corrected, equal, above, below, equal_first=False)
    return found.assign(margin_points=margin, verdict=words)


def _shared_seeds(row: object) -> list[object]:
    """Seeds of both sides; none where a mean is published, of which only the number of seeds is known."""
    if row.runs_first != len(row.percents_first) or row.runs_second != len(row.percents_second):
        return []
    return [seed for seed in row.percents_first if seed in row.percents_second]


def _difference(row: object, seeds: Sequence[object], paired: Noise | None) -> tuple:
    first, second, n = row.percent_first, row.percent_second, min(row.runs_first, row.runs_second)
    error, degrees, source = _welch(row)
    if seeds and paired and (paired.degrees >= ENOUGH_DEGREES or not paired.degrees < degrees):
        sides = (row.percents_first, row.percents_second)
        first, second = (float(np.mean([percents[seed] for seed in seeds])) for percents in sides)
        n = len(seeds)
        error, degrees, source = paired.points / np.sqrt(n), paired.degrees, PAIRED
    return first, second, second - first, error, degrees, n, source


def _welch(row: object) -> tuple[float, float, str]:
    """Standard error of the difference of two independent means, and Satterthwaite's degrees of freedom."""
    first, second = row.noise_first, row.noise_second
    source = first.source if first.source == second.source else f"{first.source}; {second.source}"
    if first.points is None or second.points is None:
        return np.nan, 1.0, source
    parts = first.points**2 / row.runs_first, second.points**2 / row.runs_second
    total = sum(parts)
    if not total:
        return 0.0, float(min(first.degrees, second.degrees)), source
    return np.sqrt(total), total**2 / (parts[0] ** 2 / first.degrees + parts[1] ** 2 / second.degrees), source
