"""Where growing the batch stops paying: peak, saturation point and what lies beyond, for each series of a table.

The saturation point is the smallest batch size whose accuracy is within a margin of the peak's. docs/saturation.md
holds the formulas, the reasons, and how often the intervals hold in simulations (`python -m benchmarks coverage`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from repro.results.series import missing, part_of, placed, split
from repro.results.stats.cells import Cells, cells_of, default_by, runs_in_percent
from repro.results.stats.crossing import crossings, intervals, may_be_best
from repro.results.stats.differences import Difference, half_width, holm, p_difference, p_equal, verdicts
from repro.results.stats.noise import Lenders, Noise
from repro.results.stats.words import conclude

LEAST_MARGIN = 0.5
"""Points: about what the paper's text treats as no difference."""
NOISES = 2
"""The default margin is no less than so many standard errors of a cell's mean: no finer than the table can resolve."""
REFERENCE = 32_768
"""The batch size that the paper recommends."""


@dataclass(frozen=True)
class Saturation:
    """Of one series and metric. Batch sizes point, low and high are measured ones; crossings lie between them.

    at_edge: the peak is the smallest batch size, or the largest and told from all others: point and high are then
    None, since the plateau may lie beyond the grid. low and high: 95 % interval, as are those of the crossing.
    """

    series: dict[str, object]
    metric: str
    peak: int
    peak_percent: float
    peak_set: tuple[int, ...]
    at_edge: bool
    point: int | None
    low: int | None
    high: int | None
    crossing: float | None
    crossing_low: float | None
    crossing_high: float | None
    margin_points: float
    noise_points: float | None
    noise_degrees: int
    noise_source: str
    reference: int
    beyond: tuple[Difference, ...]
    sizes: tuple[int, ...]
    without_result: dict[int, str]
    conclusion: str

    def as_dict(self) -> dict[str, object]:
        """For JSON: what is not known is null."""
        plain = asdict(self) | {"without_result": {str(k): v for k, v in self.without_result.items()}}
        return _plain(plain)


def analyse(
    table: pd.DataFrame,
    metric: str,
    by: Sequence[str] | None = None,
    margin_points: float | None = None,
    reference: int | None = REFERENCE,
) -> list[Saturation]:
    """One Saturation for each series of the table that has the metric; an empty list where none has.

    by: the columns that tell series apart; None for loss, setup, examples seen and all that differs.
    margin_points: None for the greater of 0.5 and twice the noise of a cell's mean. reference: the batch size that
    larger ones are compared with, where the series has it; otherwise its saturation point.
    """
    by = default_by(table) if by is None else [*(column for column in by if column != "loss"), "loss"]
    every, lenders = placed(table), Lenders(table, metric)
    found = []
    measured = runs_in_percent(table, metric, by)
    for series, runs in split(measured, by) if len(measured) else []:
        failed = _without_result(part_of(every, series), metric)
        cells = cells_of(runs)
        noise = lenders.noise_of(cells, series)
        found.append(_analyse(cells, series, metric, noise, margin_points, reference, failed))
    return found


def _analyse(
    cells: Cells,
    series: dict[str, object],
    metric: str,
    noise: Noise,
    margin_points: float | None,
    reference: int | None,
    failed: dict[int, str],
) -> Saturation:
    floor, noises = (LEAST_MARGIN, noises_of(cells.runs)) if margin_points is None else (margin_points, 0)
    margin = max(floor, noises * (noise.points or 0))
    best = int(cells.means.argmax())
    peak_set = _peak_set(cells, noise)
    alone = len(cells) == 1
    open_ended = not alone and best == len(cells) - 1 and _still_rises(cells, peak_set, noise, margin)
    crossing, low, high = (None, None, None) if alone else _crossing(cells, noise, margin, floor, noises)
    point = None if alone or open_ended else _measured(cells, crossing)
    high = None if open_ended else high
    base = _reference(cells, reference, point)
    values = {
        "series": series,
        "metric": metric,
        "peak": int(cells.sizes[best]),
        "peak_percent": float(cells.means[best]),
        "peak_set": peak_set,
        "at_edge": not alone and (best == 0 or open_ended),
        "point": point,
        "low": None if low is None else _measured(cells, low),
        "high": None if high is None else _measured(cells, high),
        "crossing": None if crossing is None or open_ended else 2**crossing,
        "crossing_low": None if low is None else 2**low,
        "crossing_high": None if high is None else 2**high,
        "margin_points": float(margin),
        "noise_points": noise.points,
        "noise_degrees": noise.degrees,
        "noise_source": noise.source,
        "reference": base,
        "beyond": differences_beyond(cells, noise, base, margin),
        "sizes": tuple(cells.sizes.tolist()),
        "without_result": failed,
    }
    return Saturation(**values, conclusion=conclude(values))


def _crossing(
    cells: Cells, noise: Noise, margin: float, floor: float, noises: float
) -> tuple[float, float | None, float | None]:
    """In octaves, with its limits where the noise is known."""
    octaves, means = cells.octaves, cells.means[None]
    place = float(crossings(means, margin, octaves)[0])
    if noise.points is None:
        return place, None, None
    low, high = intervals(means, cells.runs, np.array([noise.points]), noise.degrees, octaves, floor, noises)[0]
    return place, float(low), float(high)


def noises_of(runs: Sequence[int]) -> float:
    """How many standard deviations of one run the default margin is; runs: of each cell."""
    return NOISES / float(np.sqrt(np.median(runs)))


def widest_margin(sides: Iterable[tuple[Noise, int]]) -> float:
    """Default margin in points between means of several noises; sides: each with the runs behind its mean."""
    return max([LEAST_MARGIN, *(noises_of([runs]) * noise.points for noise, runs in sides if noise.points)])


def differences_beyond(cells: Cells, noise: Noise, reference: int, margin: float) -> tuple[Difference, ...]:
    """Every larger batch size against the reference: difference, interval, and the word for it."""
    base = int(np.flatnonzero(cells.sizes == reference)[0])
    larger = np.arange(base + 1, len(cells))
    points = cells.means[larger] - cells.means[base]
    error = np.broadcast_to(noise.of_contrast(1 / cells.runs[larger] + 1 / cells.runs[base]), points.shape)
    degrees = max(1, noise.degrees)
    p = p_difference(points, error, degrees)
    corrected, equal = holm(p), p_equal(points, error, degrees, margin)
    words = verdicts(points, corrected, equal, "higher", "lower", equal_first=True)
    columns = (cells.sizes[larger], points, half_width(error, degrees), p, corrected, equal)
    rows = zip(*(column.tolist() for column in columns), words, strict=True)
    return tuple(Difference(*row) for row in rows)


def _peak_set(cells: Cells, noise: Noise) -> tuple[int, ...]:
    """Batch sizes not told from the best at 5 %; all of them where noise is unknown."""
    if noise.points is None:
        return tuple(cells.sizes.tolist())
    (alike,) = may_be_best(cells.means[None], cells.runs, np.array([noise.points]), noise.degrees, 0.95)
    return tuple(cells.sizes[alike].tolist())


def _still_rises(cells: Cells, peak_set: tuple[int, ...], noise: Noise, margin: float) -> bool:
    """Whether the largest batch size, which is the best, is told from all others: what is beyond may be better yet."""
    if noise.points is None:
        return bool(cells.means[-1] - cells.means[-2] > margin)
    return len(peak_set) == 1


def _reference(cells: Cells, reference: int | None, point: int | None) -> int:
    if reference in cells.sizes:
        return int(reference)
    return int(cells.sizes[cells.means.argmax()]) if point is None else point


def _measured(cells: Cells, octave: float) -> int:
    """The smallest measured batch size at or above a place between batch sizes."""
    return int(cells.sizes[min(len(cells) - 1, int((cells.octaves < octave - 1e-6).sum()))])


def _without_result(runs: pd.DataFrame, metric: str) -> dict[int, str]:
    """Batch sizes of which no run has the metric, and what became of their runs."""
    if "status" not in runs:
        return {}
    found = {}
    for size, group in runs.groupby("batch_size"):
        lacking = missing(group, metric)
        if sum(lacking.values()) == len(group):
            found[int(size)] = ", ".join(lacking)
    return found


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
