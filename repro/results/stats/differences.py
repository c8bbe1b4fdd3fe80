"""Tests of differences in points: is there one (Student's t), is it within a margin (two one-sided tests), Holm.

A difference is claimed after Holm's correction over all comparisons of a series. Equality needs none where it is
claimed of all of them together: each of the tests has to pass (an intersection-union test).
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """Of one batch size to the reference. half_width: of the 95 % interval; NaN, as p, where noise is unknown."""

    batch_size: int
    difference_points: float
    half_width: float
    p: float
    p_holm: float
    p_equal: float
    verdict: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


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
    """Of the 95 % interval, in points."""
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
