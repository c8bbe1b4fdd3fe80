"""Where growing the batch stops paying: peak, saturation point and what lies beyond, for each series of a table.

The saturation point is the smallest batch size whose accuracy is within a margin of the peak's. docs/saturation.md
holds the formulas, the reasons, and how often the intervals hold in simulations (`python -m benchmarks coverage`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from repro.config.units import format_batch_size
from repro.results.stats.crossing import crossings, intervals, may_be_best
from repro.results.stats.differences import (
    LEAST_MARGIN,
    LEVEL,
    POOLED,
    UNKNOWN,
    Cells,
    Noise,
    default_by,
    half_width,
    holm,
    measured_series,
    noises_of,
    p_difference,
    p_equal,
    published_noise,
    verdicts,
)
from repro.results.tables import batch_sizes, missing, part_of, placed, signed

REFERENCE = 32_768
"""The batch size that the paper recommends."""


@dataclass(frozen=True)
class Difference:
    """One batch size against the reference. half_width: of the 95 % interval; NaN, as p, where noise is unknown."""

    batch_size: int
    difference_points: float
    half_width: float
    p: float
    p_holm: float
    p_equal: float
    verdict: str

    def __str__(self) -> str:
        """+0.1 ± 0.2; the number alone where the noise is unknown."""
        known = self.half_width == self.half_width
        return signed(self.difference_points) + (f" ± {self.half_width:.1f}" if known else "")


@dataclass(frozen=True)
class Saturation:
    """One series and metric. Batch sizes point, low and high are measured ones; crossings lie between them.

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
    conclusion: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON: what is not known is null."""
        return _plain(asdict(self))


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
    every, found = placed(table), []
    for series, _, cells, noise in measured_series(table, metric, by):
        without_result = _without_result(part_of(every, series), metric)
        result = _analyse(cells, series, metric, noise, margin_points, reference, without_result)
        found.append(replace(result, conclusion=_conclusion(result)))
    return found


def _analyse(
    cells: Cells,
    series: dict[str, object],
    metric: str,
    noise: Noise,
    margin_points: float | None,
    reference: int | None,
    without_result: dict[int, str],
) -> Saturation:
    floor, noises = (LEAST_MARGIN, noises_of(cells.runs)) if margin_points is None else (margin_points, 0)
    margin = max(floor, noises * (noise.points or 0))
    best, alone, known = int(cells.means.argmax()), len(cells) == 1, noise.points is not None
    means, spread = cells.means[None], np.array([noise.points])
    # Sizes not told from the best at 5 %: all of them where the noise is unknown.
    alike = may_be_best(means, cells.runs, spread, noise.degrees, 0.95)[0] if known else slice(None)
    peak_set = tuple(cells.sizes[alike].tolist())
    # Whether the largest size, which is the best, is told from all others: what is beyond may be better yet.
    told = len(peak_set) == 1 if known else not alone and cells.means[-1] - cells.means[-2] > margin
    open_ended = not alone and best == len(cells) - 1 and bool(told)
    crossing = low = high = None
    if not alone:
        crossing = float(crossings(means, margin, cells.octaves)[0])
    if not alone and known:
        limits = intervals(means, cells.runs, spread, noise.degrees, cells.octaves, floor, noises)
        low, high = map(float, limits[0])
    crossing, high = (None, None) if open_ended else (crossing, high)
    point = _measured(cells, crossing)
    base = int(reference) if reference in cells.sizes else int(cells.sizes[best]) if point is None else point
    return Saturation(
        series=series,
        metric=metric,
        peak=int(cells.sizes[best]),
        peak_percent=float(cells.means[best]),
        peak_set=peak_set,
        at_edge=not alone and (best == 0 or open_ended),
        point=point,
        low=_measured(cells, low),
        high=_measured(cells, high),
        crossing=None if crossing is None else 2**crossing,
        crossing_low=None if low is None else 2**low,
        crossing_high=None if high is None else 2**high,
        margin_points=float(margin),
        noise_points=noise.points,
        noise_degrees=noise.degrees,
        noise_source=noise.source,
        reference=base,
        beyond=differences_beyond(cells, noise, base, margin),
        sizes=tuple(cells.sizes.tolist()),
        without_result=without_result,
    )


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


def _measured(cells: Cells, octave: float | None) -> int | None:
    """The smallest measured batch size at or above a place between batch sizes."""
    if octave is None:
        return None
    return int(cells.sizes[min(len(cells) - 1, int((cells.octaves < octave - 1e-6).sum()))])


def _without_result(runs: pd.DataFrame, metric: str) -> dict[int, str]:
    """Batch sizes of which no run has the metric, and what became of their runs."""
    if "status" not in runs:
        return {}
    lacking = {int(size): (missing(group, metric), len(group)) for size, group in runs.groupby("batch_size")}
    return {size: ", ".join(why) for size, (why, count) in lacking.items() if sum(why.values()) == count}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _conclusion(found: Saturation) -> str:
    """'saturates at 16k (16k to 32k); beyond 32k nothing is gained, +0.1 ± 0.4'."""
    if len(found.sizes) == 1:
        return f"only {format_batch_size(found.sizes[0])} has a result: where growing stops paying cannot be said"
    parts = [_point_in_words(found), *_beyond_in_words(found)]
    if found.without_result:
        failed = [f"{format_batch_size(size)} ({why})" for size, why in found.without_result.items()]
        parts.append(f"no result at {', '.join(failed)}")
    text = "; ".join(parts)
    if found.noise_source == UNKNOWN:
        return f"cannot tell: one run each, and no noise to borrow. Taken as they stand: {text}"
    if found.noise_source == published_noise().source:
        lent = "" if found.metric.startswith("imagenet1k/") else ", of ImageNet accuracy, lent to this metric"
        return f"{text}. Single runs, with the noise published in table 7{lent}"
    return f"{text}. Noise {found.noise_source}" if found.noise_source.startswith(POOLED) else text


def _point_in_words(found: Saturation) -> str:
    smallest, largest = found.sizes[0], found.sizes[-1]
    if found.point is None:
        return f"still rising at {format_batch_size(largest)}, the largest: saturates there or beyond"
    text = f"saturates at {'or below ' if found.point == smallest else ''}{format_batch_size(found.point)}"
    if found.low is not None and found.low != found.high:
        from_low = f"{format_batch_size(found.low)} {'or less ' if found.low == smallest else ''}to"
        text += f" ({'at most' if found.point == smallest else from_low} {format_batch_size(found.high)})"
    if found.peak == smallest:
        text += ", the smallest, which is the peak"
    elif found.peak == largest and found.high in (None, largest):
        text += f"; the peak is the largest, {format_batch_size(largest)}: more may be gained beyond it"
    return text


def _beyond_in_words(found: Saturation) -> list[str]:
    """Say how the batch sizes above the reference change the accuracy."""
    beyond, reference = found.beyond, format_batch_size(found.reference)
    if not beyond:
        return []
    if found.noise_source == UNKNOWN:
        return [f"against {reference}: {', '.join(f'{format_batch_size(d.batch_size)} {d}' for d in beyond)}"]
    rest = [d for d in beyond if d.verdict in ("equal", "cannot tell")]
    doubtful = [d for d in rest if not _gain_is_excluded(d, found)]
    parts = []
    if rest:
        largest = max(rest, key=lambda d: d.difference_points)
        if doubtful:
            verb = "gains" if len(doubtful) == 1 else "gain"
            what = f"whether {_sizes(doubtful)} {verb} over {reference} cannot be told"
        else:
            what = f"{f'beyond {reference}' if len(rest) == len(beyond) else f'at {_sizes(rest)}'} nothing is gained"
        parts.append(f"{what}, {largest}")
    for verdict, verb in (("higher", "gains"), ("lower", "loses")):
        sure = [d for d in beyond if d.verdict == verdict]
        amounts = [f"{abs(d.difference_points):.1f} ± {d.half_width:.1f}" for d in sure]
        parts += [f"{format_batch_size(d.batch_size)} {verb} {a}" for d, a in zip(sure, amounts, strict=True)]
    if fallen := [d for d in rest if d.batch_size > found.peak and d.batch_size not in found.peak_set]:
        parts.append(f"{_sizes(fallen)} below the peak of {format_batch_size(found.peak)}")
    return parts


def _sizes(found: Sequence[Difference]) -> str:
    return batch_sizes([each.batch_size for each in found])


def _gain_is_excluded(difference: Difference, found: Saturation) -> bool:
    """Whether a gain of the margin or more is excluded, at 5 %."""
    degrees = max(1, found.noise_degrees)
    error = difference.half_width / stdtrit(degrees, 1 - LEVEL / 2)
    return difference.difference_points + stdtrit(degrees, 1 - LEVEL) * error < found.margin_points
