"""Shapes of accuracy against log₂ batch size, fitted by least squares and averaged by how well each explains the cells.

Each shape is linear but for one or two numbers (where it bends, how fast it rises), which are searched over a grid, and
over a finer one about the best of it, so that a bootstrap's hundreds of curves are fitted in a few matrix products.
What the shapes know of the subject: accuracy rises to a plateau; it falls where batches are so large that steps run
out, in proportion to a power of the batch size.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from repro.analysis.crossing import crossings

PLACES = 257
"""Places along the batch sizes at which a fitted curve is looked at: an octave is 23 of them on the paper's grid."""
RATES = np.geomspace(0.15, 3, 24)
"""Of the rise, per octave: the gap to the plateau shrinks by e^−rate."""
POWERS = np.array([0.35, 0.7, 1.05, 1.4, 2.1, 2.8])
"""Of the fall, per octave: 0.7 is in proportion to the batch size, as 1/steps is; 1.4 to its square."""
BENDS = 25
"""Of a line that bends once; every second of them where it bends twice."""
FINER = 11
"""Values between the neighbours of the best, in the second search."""
FEWEST_CELLS = 4
WORSE = 1e6

Term = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Shape:
    """A plateau less terms, each with one number from its axis; parameters: all that are fitted."""

    name: str
    parameters: int
    terms: tuple[Term, ...]
    axes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Members:
    """A shape with numbers [members, terms]. bases: orthonormal [members, cells, 1 + terms] of the weighted problem;
    curves: the same along the places; back: from a basis' shares to the terms' [members, 1 + terms, 1 + terms].
    """

    numbers: np.ndarray
    bases: np.ndarray
    curves: np.ndarray
    back: np.ndarray


def average_crossings(
    means: np.ndarray, runs: np.ndarray, noise: np.ndarray | None, margins: np.ndarray | float, octaves: np.ndarray
) -> np.ndarray:
    """Where the averaged curve of each row first comes within its margin of its best batch size, in octaves. [curves]

    means: [curves, cells] in percent, of one series or drawn about it; noise: [curves] of one run, or None where
    unknown, when a shape's own residuals stand in for it. Weights are exp(−½ ΔAIC), with χ² over the excess that even
    the best shape leaves; without noise AICc.
    """
    shapes = _shapes(octaves)
    fits = [_fit(shape, means, runs, octaves) for shape in shapes]
    weights = _weights(shapes, np.stack([left for left, _ in fits]), noise, len(octaves))
    average = np.einsum("sr,srp->rp", weights, np.stack([heights for _, heights in fits]))
    places = np.linspace(octaves[0], octaves[-1], PLACES)
    # Between two sizes a shape may rise above both, where nothing was measured: the peak is one of the sizes.
    peaks = np.stack([np.interp(octaves, places, row).max() for row in average])
    return crossings(average, margins, places, peaks)


def shape_weights(means: np.ndarray, runs: np.ndarray, noise: float | None, octaves: np.ndarray) -> dict[str, float]:
    """Each shape's weight for one series, by name. means: [cells]."""
    shapes = _shapes(octaves)
    left = np.stack([_fit(shape, means[None], runs, octaves)[0] for shape in shapes])
    weights = _weights(shapes, left, None if noise is None else np.array([noise]), len(octaves))
    return {shape.name: float(weight) for shape, weight in zip(shapes, weights[:, 0], strict=True)}


def misfit(means: np.ndarray, runs: np.ndarray, noise: float, octaves: np.ndarray) -> float:
    """By how much the best shape misses the cells beyond their noise: √(χ² / degrees of freedom), 1 at least."""
    excess = [
        float(_fit(shape, means[None], runs, octaves)[0][0]) / noise**2 / max(1, len(octaves) - shape.parameters)
        for shape in _shapes(octaves)
    ]
    return float(np.sqrt(max(1.0, min(excess))))


def _weights(shapes: Sequence[Shape], left: np.ndarray, noise: np.ndarray | None, cells: int) -> np.ndarray:
    """[shapes, curves], from residual squares of the same form."""
    parameters = np.array([shape.parameters for shape in shapes])[:, None]
    if noise is None:
        parameters = parameters + 1
        room = cells - parameters - 1
        correction = np.where(room > 0, 2 * parameters * (parameters + 1) / np.maximum(1, room), WORSE)
        criterion = cells * np.log(np.maximum(left, 1e-12) / cells) + 2 * parameters + correction
    else:
        chi = left / np.maximum(noise, 1e-9) ** 2
        criterion = chi / np.maximum(1, (chi / np.maximum(1, cells - parameters)).min(0)) + 2 * parameters
    weights = np.exp(-0.5 * (criterion - criterion.min(0)))
    return weights / weights.sum(0)


def _fit(shape: Shape, means: np.ndarray, runs: np.ndarray, octaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted residual squares [curves] and heights [curves, places] of each curve's best member of a shape."""
    coarse = _coarse(shape, tuple(runs.tolist()), tuple(octaves.tolist()))
    best = int(_residuals(coarse, means.mean(0, keepdims=True), runs)[0].argmin())
    about = [_about(axis, value) for axis, value in zip(shape.axes, coarse.numbers[best], strict=True)]
    finer = _members(shape, _combinations(about), runs, octaves)
    (left, heights), (left_finer, heights_finer) = (_best(members, means, runs) for members in (coarse, finer))
    better = left_finer < left
    return np.where(better, left_finer, left), np.where(better[:, None], heights_finer, heights)


def _best(members: Members, means: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, terms = _residuals(members, means, runs)
    chosen, rows = left.argmin(1), np.arange(len(means))
    return np.maximum(left[rows, chosen], 0), np.einsum("rpt,rt->rp", members.curves[chosen], terms[rows, chosen])


def _residuals(members: Members, means: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted residual squares [curves, members] and the terms' shares [curves, members, 1 + terms]."""
    weighted = means * np.sqrt(runs)
    shares = np.einsum("mct,rc->rmt", members.bases, weighted)
    left = (weighted**2).sum(1)[:, None] - (shares**2).sum(2)
    terms = np.einsum("mts,rms->rmt", members.back, shares)
    # Rise and fall have signs: a member whose plateau is approached from above is another shape's.
    return left + WORSE * (terms[:, :, 1:] > 1e-9).any(2), terms


@functools.lru_cache(maxsize=64)
def _coarse(shape: Shape, runs: tuple[int, ...], octaves: tuple[float, ...]) -> Members:
    return _members(shape, _combinations(shape.axes), np.array(runs), np.array(octaves))


def _members(shape: Shape, numbers: np.ndarray, runs: np.ndarray, octaves: np.ndarray) -> Members:
    def columns(u: np.ndarray) -> np.ndarray:
        terms = [term(u, numbers[:, [i]]) for i, term in enumerate(shape.terms)]
        return np.stack([np.ones((len(numbers), len(u))), *terms], axis=2)

    bases, triangles = np.linalg.qr(columns(octaves) * np.sqrt(runs)[:, None])
    curves = columns(np.linspace(octaves[0], octaves[-1], PLACES))
    return Members(numbers, bases, curves, np.linalg.pinv(triangles))


def _combinations(axes: Sequence[np.ndarray]) -> np.ndarray:
    """[members, terms]; one member without terms for a shape without numbers."""
    found = list(itertools.product(*axes))
    return np.array(found).reshape(len(found), len(axes))


def _about(axis: np.ndarray, value: float) -> np.ndarray:
    """Values between the neighbours of one on an axis."""
    place = int(np.abs(axis - value).argmin())
    return np.linspace(axis[max(0, place - 1)], axis[min(len(axis) - 1, place + 1)], FINER)


def _shapes(octaves: np.ndarray) -> list[Shape]:
    return _shapes_on(tuple(octaves.tolist()))


@functools.lru_cache(maxsize=64)
def _shapes_on(octaves: tuple[float, ...]) -> list[Shape]:
    """Those with no more parameters than there are cells. Terms count from the plateau down."""
    first, last = octaves[0], octaves[-1]
    bends = np.linspace(first, last, BENDS)

    def rise(u: np.ndarray, rate: np.ndarray) -> np.ndarray:
        return np.exp(-rate * (u - first))

    def fall(u: np.ndarray, power: np.ndarray) -> np.ndarray:
        return np.exp(power * (u - last))

    def below(u: np.ndarray, bend: np.ndarray) -> np.ndarray:
        return np.maximum(0, bend - u)

    def beyond(u: np.ndarray, bend: np.ndarray) -> np.ndarray:
        return np.maximum(0, u - bend)

    shapes = [
        Shape("flat", 1, (), ()),
        Shape("plateau", 3, (rise,), (RATES,)),
        Shape("broken line", 3, (below,), (bends[1:],)),
        Shape("fall alone", 3, (fall,), (POWERS,)),
        Shape("plateau and fall", 5, (rise, fall), (RATES, POWERS)),
        Shape("rise and fall by lines", 5, (below, beyond), (bends[2::2], bends[:-2:2])),
    ]
    return [shape for shape in shapes if shape.parameters <= len(octaves)]
