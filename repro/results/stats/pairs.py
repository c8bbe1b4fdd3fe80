"""Two sets of rows that match, and the difference between them with its interval.

Where both sides have the seeds, runs are paired by seed and the spread of the paired differences is pooled over the
rows given; otherwise each side brings its own noise, its own or borrowed (Welch). Where neither is known there is no
interval, and what it would tell cannot be told.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from repro.results.series import split
from repro.results.stats.cells import cells_of, runs_in_percent
from repro.results.stats.differences import half_width, p_difference
from repro.results.stats.noise import ENOUGH_DEGREES, Lenders, Noise

PAIRED = "paired by seed"


def measured(table: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """One row for each series and batch size: `by`, batch_size, percent, runs, noise (Noise), percents (by seed)."""
    every, lenders = runs_in_percent(table, metric, by), Lenders(table, metric)
    rows = []
    for series, runs in split(every, by) if len(every) else []:
        cells = cells_of(runs)
        noise = lenders.noise_of(cells, series)
        for position, (size, group) in enumerate(runs.groupby("batch_size")):
            percents = dict(zip(group["seed"], group["percent"], strict=True))
            numbers = {"percent": cells.means[position], "runs": int(cells.runs[position])}
            rows.append({**series, "batch_size": int(size), **numbers, "noise": noise, "percents": percents})
    return pd.DataFrame(rows, columns=[*by, "batch_size", "percent", "runs", "noise", "percents"])


def differences(pairs: pd.DataFrame) -> pd.DataFrame:
    """Second minus first of each row. pairs: percent, runs, noise and percents, each with _first and _second.

    Returns first_percent, second_percent, difference_points, low_points, high_points (95 %), error_points, degrees,
    p, seeds (of the pairs, or of the side that has fewer) and noise_source; NaN where the noise is unknown.
    """
    shared = [
        [seed for seed in row.percents_first if seed in row.percents_second] if _by_seed(row) else []
        for row in pairs.itertuples()
    ]
    spreads = [
        np.array([row.percents_second[seed] - row.percents_first[seed] for seed in seeds])
        for row, seeds in zip(pairs.itertuples(), shared, strict=True)
    ]
    degrees = sum(max(0, len(each) - 1) for each in spreads)
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in spreads if len(each))
    paired = Noise(float(np.sqrt(squares / degrees)), degrees, PAIRED) if degrees else None
    rows = [_difference(row, seeds, paired) for row, seeds in zip(pairs.itertuples(), shared, strict=True)]
    columns = [
        "first_percent",
        "second_percent",
        "difference_points",
        "error_points",
        "degrees",
        "seeds",
        "noise_source",
    ]
    found = pd.DataFrame(rows, columns=columns, index=pairs.index)
    width = half_width(found["error_points"].to_numpy(float), found["degrees"].to_numpy(float))
    points = found["difference_points"].to_numpy(float)
    p = p_difference(points, found["error_points"].to_numpy(float), found["degrees"].to_numpy(float))
    return found.assign(low_points=points - width, high_points=points + width, p=p)


def sides_of(pairs: pd.DataFrame) -> list[tuple[Noise, int]]:
    """The noise and the runs of every mean in the pairs."""
    return [
        side
        for letter in ("first", "second")
        for side in zip(pairs[f"noise_{letter}"], pairs[f"runs_{letter}"], strict=True)
    ]


def _by_seed(row: object) -> bool:
    """Whether the seeds are all that is behind both means: of published means only the number of seeds is known."""
    return row.runs_first == len(row.percents_first) and row.runs_second == len(row.percents_second)


def _difference(row: object, seeds: Sequence[object], paired: Noise | None) -> tuple:
    first, second, n = row.percent_first, row.percent_second, min(row.runs_first, row.runs_second)
    error, degrees, source = _welch(row)
    if seeds and paired and (paired.degrees >= ENOUGH_DEGREES or not paired.degrees < degrees):
        first, second = _mean(row.percents_first, seeds), _mean(row.percents_second, seeds)
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


def _mean(percents: Mapping[object, float], seeds: Sequence[object]) -> float:
    return float(np.mean([percents[seed] for seed in seeds]))
