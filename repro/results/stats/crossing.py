"""Where a curve of accuracy against log₂ batch size first comes within a margin of its peak, with an interval.

The curve is the cells' means joined by straight lines in log₂ batch size, so "first within the margin" has a place
between two batch sizes: the crossing, in octaves. Its interval inverts a test (docs/saturation.md): a place t is left
out on the right when some place before it is surely within the margin of every cell, or when it lies beyond every cell
that may be the peak; and on the left when every place up to it is surely further than the margin below one cell.
"""

import functools

import numpy as np
from scipy.special import stdtrit

STEPS = 96
"""Places between two neighbouring batch sizes at which the tests are made; between places limits are interpolated."""
DRAWS = 40_000
TINY = 1e-9
"""Points; published numbers have one decimal, and 84.7 − 84.2 shall be no more than 0.5."""


def crossings(
    means: np.ndarray, margins: np.ndarray | float, octaves: np.ndarray, peaks: np.ndarray | None = None
) -> np.ndarray:
    """The exact crossing of each curve, in octaves. means: [curves, cells]; margins: [curves] or one, in points.

    peaks: [curves], what the margin is taken from; None for each curve's highest cell.
    """
    peaks = means.max(1) if peaks is None else peaks
    level = peaks - np.broadcast_to(margins, len(means)) - TINY
    first = (means >= level[:, None]).argmax(1)
    before = np.maximum(first - 1, 0)
    rows = np.arange(len(means))
    low, high = means[rows, before], means[rows, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(first > 0, (level - low) / (high - low), 1.0)
    return octaves[before] + np.clip(share, 0, 1) * (octaves[first] - octaves[before])


def intervals(
    means: np.ndarray,
    runs: np.ndarray,
    noise: np.ndarray,
    degrees: int,
    octaves: np.ndarray,
    floor: float,
    noises: float,
    confidence: float = 0.95,
) -> np.ndarray:
    """Confidence limits [curves, 2] of each curve's crossing, in octaves.

    means: [curves, cells] in percent; runs: [cells] behind each mean; noise: [curves], standard deviation of one run,
    estimated with `degrees`; the margin is max(floor, noises · noise), and its own error is counted.
    """
    weights = _places(octaves)
    places = weights @ octaves
    margins = np.maximum(floor, noises * noise)
    of_noise = noises * noise > floor  # the margin is an estimate as well, with variance margin² / (2 · degrees)
    contrast = weights[:, None, :] - np.eye(len(octaves))  # [p, cells compared with, cells]
    variance = (contrast**2 / runs).sum(-1)
    variance = variance[None] + np.where(of_noise, noises**2 / (2 * degrees), 0.0)[:, None, None]
    error = np.maximum(noise[:, None, None] * np.sqrt(variance), TINY)
    within = (means @ weights.T)[:, :, None] - means[:, None, :] + margins[:, None, None]
    statistic = within / error  # [curves, p, cells compared with]
    upper = np.maximum.accumulate(statistic.min(2), 1)
    lower = np.maximum.accumulate(statistic, 1).min(2)  # the least, over cells, of the best place so far
    contenders = (means.max(1, keepdims=True) - means <= 2 * noise[:, None] * np.sqrt(2 / runs)).sum(1)
    tail = (1 - confidence) / 2
    beyond = np.array([_largest_of(int(count), degrees, 1 - tail) for count in contenders])
    low = _reached(lower, -beyond, places)
    high = _reached(upper, np.full(len(means), stdtrit(degrees, 1 - tail)), places)
    last = octaves[len(octaves) - 1 - may_be_best(means, runs, noise, degrees, 1 - tail)[:, ::-1].argmax(1)]
    return np.stack([low, np.maximum(low, np.minimum(high, last))], axis=1)


def _places(octaves: np.ndarray) -> np.ndarray:
    """Weights [p, cells] of every place from the smallest batch size to the largest, measured ones among them."""
    cells = len(octaves)
    before = np.repeat(np.arange(cells - 1), STEPS)
    share = np.tile(np.arange(STEPS) / STEPS, cells - 1)
    weights = np.zeros((len(before) + 1, cells))
    rows = np.arange(len(before))
    weights[rows, before] = 1 - share
    weights[rows, before + 1] = share
    weights[-1, -1] = 1
    return weights


def may_be_best(means: np.ndarray, runs: np.ndarray, noise: np.ndarray, degrees: int, probability: float) -> np.ndarray:
    """Which cells [curves, cells] are not told from the best (Hsu). The true peak is one, and none saturates later."""
    best = means.argmax(1)
    error = noise[:, None] * np.sqrt(1 / runs + 1 / runs[best][:, None])
    critical = _largest_of(means.shape[1] - 1, degrees, probability)
    return means.max(1, keepdims=True) - means <= critical * error


def _reached(statistic: np.ndarray, level: np.ndarray, octaves: np.ndarray) -> np.ndarray:
    """Where each row of a growing statistic [curves, p] first reaches its level [curves]; the last place if never."""
    reached = statistic >= level[:, None]
    first = np.where(reached.any(1), reached.argmax(1), statistic.shape[1] - 1)
    before = np.maximum(first - 1, 0)
    rows = np.arange(len(statistic))
    below, above = statistic[rows, before], statistic[rows, first]
    rise = np.where(above > below, above - below, 1.0)
    share = np.clip((level - below) / rise, 0, 1)
    return octaves[before] + share * (octaves[first] - octaves[before])


@functools.lru_cache(maxsize=4096)
def _largest_of(count: int, degrees: int, probability: float) -> float:
    """Quantile of max over `count` of (z_v − z₀)/√2 s: Dunnett's, for so many cells that may be the peak.

    With one it is Student's t. Drawn with a fixed seed, so that the same table gives the same limits.
    """
    if count <= 1:
        return float(stdtrit(degrees, probability))
    draws = np.random.default_rng(count)
    normal = draws.standard_normal((DRAWS, count + 1))
    spread = np.sqrt(draws.chisquare(degrees, DRAWS) / degrees)
    return float(np.quantile((normal[:, 1:].max(1) - normal[:, 0]) / (np.sqrt(2) * spread), probability))
