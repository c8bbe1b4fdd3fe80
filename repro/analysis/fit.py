"""Shapes of accuracy against log₂ batch size, fitted by least squares and averaged by how well each explains the cells.

Each shape is linear but for one or two numbers (where it bends, how fast it rises), which are searched over a grid, so
that a bootstrap's hundreds of curves are fitted in a few matrix products. What the shapes know of the subject: accuracy
rises to a plateau; it falls where batches are so large that steps run out, in proportion to a power of the batch size.
"""

import functools
from dataclasses import dataclass

import numpy as np

from repro.analysis.crossing import crossings

PLACES = 257
"""Places along the batch sizes at which a fitted curve is looked at: an octave is 23 of them on the paper's grid."""
RATES = tuple(np.geomspace(0.15, 3, 24).tolist())
"""Of the rise, per octave: the gap to the plateau shrinks by e^−rate."""
POWERS = (0.35, 0.7, 1.05, 1.4, 2.1, 2.8)
"""Of the fall, per octave: 0.7 is in proportion to the batch size, as 1/steps is; 1.4 to its square."""
BENDS = 97
"""Of a line that bends once; one in four of them where it bends twice."""
FEWEST_CELLS = 4
WORSE = 1e6


@dataclass(frozen=True)
class Candidates:
    """All members of a shape. bases: orthonormal [members, cells, terms] of the weighted problem; curves:
    [members, places, terms], the same terms along the places; signs: what each term's share must be, for `back`.
    """

    name: str
    parameters: int
    bases: np.ndarray
    curves: np.ndarray
    back: np.ndarray


def average_crossings(
    means: np.ndarray, runs: np.ndarray, noise: np.ndarray | None, margins: np.ndarray | float, octaves: np.ndarray
) -> np.ndarray:
    """Where the averaged curve of each row first comes within its margin of its own peak, in octaves. [curves]

    means: [curves, cells] in percent; noise: [curves] of one run, or None where unknown, when a shape's own
    residuals stand in for it. Weights are exp(−½ ΔAICc), with χ² over the excess that even the best shape leaves.
    """
    heights, weights = _fitted(means, runs, noise, octaves)
    average = np.einsum("rs,srp->rp", weights, heights)
    return crossings(average, margins, np.linspace(octaves[0], octaves[-1], PLACES))


def shape_weights(means: np.ndarray, runs: np.ndarray, noise: float | None, octaves: np.ndarray) -> dict[str, float]:
    """Each shape's weight for one series, by name. means: [cells]."""
    _, weights = _fitted(means[None], runs, None if noise is None else np.array([noise]), octaves)
    return {shape.name: float(weight) for shape, weight in zip(_shapes_for(runs, octaves), weights[0], strict=True)}


def misfit(means: np.ndarray, runs: np.ndarray, noise: float, octaves: np.ndarray) -> float:
    """By how much the best shape misses the cells beyond their noise: √(χ² / degrees of freedom), 1 at least."""
    left, parameters = _residuals(means[None], runs, octaves)
    spare = np.maximum(1, len(octaves) - parameters)
    return float(np.sqrt(max(1.0, (left[:, 0] / noise**2 / spare).min())))


def _fitted(
    means: np.ndarray, runs: np.ndarray, noise: np.ndarray | None, octaves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """heights [shapes, curves, places] and weights [curves, shapes]."""
    shapes = _shapes_for(runs, octaves)
    fits = [_fit(shape, means, runs) for shape in shapes]
    left = np.stack([residual for residual, _ in fits])
    parameters = np.array([shape.parameters for shape in shapes])[:, None]
    cells = len(octaves)
    spare = np.maximum(1, cells - parameters)
    if noise is None:
        criterion = cells * np.log(np.maximum(left, 1e-12) / cells)
        parameters = parameters + 1
    else:
        chi = left / np.maximum(noise, 1e-9) ** 2
        criterion = chi / np.maximum(1, (chi / spare).min(0))
    room = cells - parameters - 1
    correction = np.where(room > 0, 2 * parameters * (parameters + 1) / np.maximum(1, room), WORSE)
    criterion = criterion + 2 * parameters + (correction if noise is None else 0)
    weights = np.exp(-0.5 * (criterion - criterion.min(0)))
    return np.stack([height for _, height in fits]), (weights / weights.sum(0)).T


def _residuals(means: np.ndarray, runs: np.ndarray, octaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shapes = _shapes_for(runs, octaves)
    return np.stack([_fit(s, means, runs)[0] for s in shapes]), np.array([s.parameters for s in shapes])


def _fit(shape: Candidates, means: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted residual squares [curves] and heights [curves, places] of each curve's best member of a shape."""
    weighted = means * np.sqrt(runs)
    shares = np.einsum("mct,rc->rmt", shape.bases, weighted)
    left = (weighted**2).sum(1)[:, None] - (shares**2).sum(2)
    terms = np.einsum("mts,rms->rmt", shape.back, shares)
    # Rise and fall have signs: a member whose plateau is approached from above is another shape's.
    left = left + WORSE * (terms[:, :, 1:] > 1e-9).any(2)
    best = left.argmin(1)
    rows = np.arange(len(means))
    heights = np.einsum("rpt,rt->rp", shape.curves[best], terms[rows, best])
    return np.maximum(left[rows, best], 0), heights


def _shapes_for(runs: np.ndarray, octaves: np.ndarray) -> list[Candidates]:
    return _shapes(tuple(octaves.tolist()), tuple(runs.tolist()))


@functools.lru_cache(maxsize=64)
def _shapes(octaves: tuple[float, ...], runs: tuple[float, ...]) -> list[Candidates]:
    """Candidates whose parameters the cells can bear, the flat one always among them."""
    measured = np.array(octaves)
    places = np.linspace(measured[0], measured[-1], PLACES)
    bends = np.linspace(measured[0], measured[-1], BENDS)[1:]
    few = bends[3::4]
    first, last = measured[0], measured[-1]

    def rise(u: np.ndarray, rate: float) -> np.ndarray:
        return np.exp(-rate * (u - first))

    def fall(u: np.ndarray, power: float) -> np.ndarray:
        return np.exp(power * (u - last))

    def below(u: np.ndarray, bend: float) -> np.ndarray:
        return np.maximum(0, bend - u)

    def beyond(u: np.ndarray, bend: float) -> np.ndarray:
        return np.maximum(0, u - bend)

    # Each term but the first is subtracted: its share must not be positive.
    members = {
        ("flat", 1): [()],
        ("plateau", 3): [((rise, rate),) for rate in RATES],
        ("broken line", 3): [((below, bend),) for bend in bends],
        ("fall alone", 3): [((fall, power),) for power in POWERS],
        ("plateau and fall", 5): [((rise, rate), (fall, power)) for rate in RATES for power in POWERS],
        ("rise and fall by lines", 5): [((below, b), (beyond, c)) for b in few for c in few[:-1] if c >= b],
    }
    return [
        _candidates(name, parameters, terms, measured, places, np.array(runs))
        for (name, parameters), terms in members.items()
        if parameters < len(octaves) or parameters == 1
    ]


def _candidates(
    name: str, parameters: int, members: list, measured: np.ndarray, places: np.ndarray, runs: np.ndarray
) -> Candidates:
    def columns(u: np.ndarray) -> np.ndarray:
        return np.stack([np.stack([np.ones_like(u), *(f(u, x) for f, x in terms)], axis=1) for terms in members])

    bases, triangles = np.linalg.qr(columns(measured) * np.sqrt(runs)[:, None])
    return Candidates(name, parameters, bases, columns(places), np.linalg.pinv(triangles))
