"""Differences in points, tested: is there one (Student's t), is it within a margin (two one-sided tests), Holm.

A difference is claimed after Holm's correction over all comparisons of a series. Equality needs none where it is
claimed of all of them together: each of the tests has to pass (an intersection-union test).

Where both sides have the seeds, runs are paired by seed and the spread of the paired differences is pooled over the
rows given; otherwise each side brings its own noise, its own or borrowed (Welch). Where neither is known there is no
interval, and what it would tell cannot be told.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from repro.results.stats.noise import ENOUGH_DEGREES, Noise, measured_series

LEVEL = 0.05
LEAST_MARGIN = 0.5
"""Points: about what the paper's text treats as no difference."""
NOISES = 2
"""The default margin is no less than so many standard errors of a cell's mean: no finer than the table can resolve."""
PAIRED = "paired by seed"


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
