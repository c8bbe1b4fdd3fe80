"""How often the intervals of `repro saturation` hold: simulated curves whose true crossing is known.

The truth of a simulation is the crossing of the true mean accuracies on the same batch sizes, joined as the analysis
joins them, with the margin that the true noise makes. Each row of the table is one method on one kind of curve.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from repro.results.stats.crossing import crossings, intervals
from repro.results.stats.differences import LEAST_MARGIN, noises_of

GRIDS = {
    "siglit (table 8)": (*(512 * 2**power for power in range(10)), 1_048_576),
    "siglip (table 5)": (4096, 8192, 16_384, 32_768, 98_304, 307_200),
    "laptop": tuple(32 * 2**power for power in range(7)),
}
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "slow rise": lambda z: 70 - 12 * np.exp(-3 * z),
    "fast rise": lambda z: 70 - 20 * np.exp(-6 * z),
    "broken line": lambda z: 70 - 15 * np.maximum(0, 0.55 - z) / 0.55,
    "plateau and fall": lambda z: 70 - 20 * np.exp(-7 * z) - 4 * 2.0 ** (8 * (z - 1)),
    "plateau and cliff": lambda z: 70 - 15 * np.exp(-6 * z) - 9 * 2.0 ** (20 * (z - 1)),
    "parabola": lambda z: 70 - 20 * (z - 0.6) ** 2,
}
"""True accuracy in percent; z runs from 0 at the smallest batch size to 1 at the largest, in log₂."""
NOISE_POINTS = (0.1, 0.5, 1.5)
SEEDS = (1, 3, 5)
BORROWED_DEGREES = 12
"""Of the noise that single runs borrow, as from the paper's table 7."""
LAWS = ("normal", "heavy tails", "growing with the batch")
"""Heavy tails: Student's t with 4 degrees. Growing: from half the noise at the smallest batch to 3/2 at the largest."""
INVERSION, MEASURED, PERCENTILE = "inversion", "measured sizes", "seed bootstrap"
RESAMPLES = 200


def compare(
    simulations: int = 500,
    bootstraps: int = 100,
    seed: int = 0,
    grids: Sequence[str] = tuple(GRIDS),
    shapes: Sequence[str] = tuple(SHAPES),
    noises: Sequence[float] = NOISE_POINTS,
    seeds: Sequence[int] = SEEDS,
    laws: Sequence[str] = LAWS,
) -> pd.DataFrame:
    """Share of simulations whose interval holds the truth, by grid, shape, noise, seeds, law and method.

    simulations: of each kind; bootstraps: of them, how many have the seed bootstrap's interval taken too (it resamples
    every curve). Laws but the normal are tried on the last grid.
    """
    draws, rows = np.random.default_rng(seed), []
    for law in laws:
        for grid in grids if law == LAWS[0] else grids[-1:]:
            for shape in shapes:
                for noise in noises:
                    for count in seeds if law == LAWS[0] else [n for n in seeds if n > 1]:
                        kind = {"grid": grid, "shape": shape, "noise_points": noise, "seeds": count, "law": law}
                        rows += _rows(kind, simulations, bootstraps, draws)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By law, method and noise: mean coverage in percent over the kinds of curves, the least and most of any kind."""
    groups = table.groupby(["law", "method", "noise_points"], sort=False)
    found = groups.agg(
        coverage_percent=("coverage_percent", "mean"),
        least=("coverage_percent", "min"),
        most=("coverage_percent", "max"),
        octaves=("width_octaves", "median"),
        simulations=("simulations", "sum"),
    )
    return found.reset_index()


def _rows(kind: Mapping[str, object], simulations: int, bootstraps: int, draws: np.random.Generator) -> list[dict]:
    sizes = np.array(GRIDS[kind["grid"]])
    octaves = np.log2(sizes)
    truth = SHAPES[kind["shape"]]((octaves - octaves[0]) / (octaves[-1] - octaves[0]))
    means, noise, degrees = _simulate(truth, kind, simulations, draws)
    runs = np.full(len(sizes), kind["seeds"])
    noises = noises_of(runs)
    margin = max(LEAST_MARGIN, noises * kind["noise_points"])
    crossing = crossings(truth[None], margin, octaves)[0]
    limits = intervals(means, runs, noise, degrees, octaves, LEAST_MARGIN, noises)
    bootstrapped = _seed_bootstrap(means[:bootstraps], noise[:bootstraps], runs, octaves, draws)
    of_sizes = octaves[np.minimum(np.searchsorted(octaves, limits - 1e-6), len(octaves) - 1)]
    measured = octaves[np.searchsorted(octaves, crossing - 1e-6)]
    methods = {INVERSION: (limits, crossing), MEASURED: (of_sizes, measured)}
    methods |= {PERCENTILE: (bootstrapped, crossing)}
    return [
        {**kind, "method": name, "true_crossing": 2**place, "margin_points": margin, **_coverage(found, place)}
        for name, (found, place) in methods.items()
        if len(found)
    ]


def _simulate(
    truth: np.ndarray, kind: Mapping[str, object], simulations: int, draws: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """means [simulations, cells], estimated noise of a run [simulations] and its degrees of freedom."""
    count, cells, noise = kind["seeds"], len(truth), kind["noise_points"]
    shape = (simulations, count, cells)
    normal = draws.standard_normal(shape)
    if kind["law"] == LAWS[1]:
        normal = draws.standard_t(4, shape) / np.sqrt(2)
    if kind["law"] == LAWS[2]:
        growing = np.linspace(0.5, 1.5, cells)
        normal = normal * growing / np.sqrt((growing**2).mean())
    values = truth + noise * normal
    if count == 1:
        degrees = BORROWED_DEGREES
        return values[:, 0], noise * np.sqrt(draws.chisquare(degrees, simulations) / degrees), degrees
    return values.mean(1), np.sqrt(values.var(1, ddof=1).mean(1)), cells * (count - 1)


def _seed_bootstrap(
    means: np.ndarray, noise: np.ndarray, runs: np.ndarray, octaves: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """What does not work: percentiles of the crossing over curves drawn about the measured means."""
    limits = []
    for mean, spread in zip(means, noise, strict=True):
        drawn = mean + spread * draws.standard_normal((RESAMPLES, len(mean))) / np.sqrt(runs)
        margin = max(LEAST_MARGIN, noises_of(runs) * spread)
        limits.append(np.quantile(crossings(drawn, margin, octaves), [0.025, 0.975]))
    return np.array(limits).reshape(-1, 2)


def _coverage(limits: np.ndarray, place: float) -> dict[str, float]:
    """place: the truth in octaves; limits: [simulations, 2]."""
    above, below = limits[:, 0] > place + 1e-6, limits[:, 1] < place - 1e-6
    return {
        "simulations": len(limits),
        "coverage_percent": 100 * float(1 - (above | below).mean()),
        "too_large_percent": 100 * float(above.mean()),
        "too_small_percent": 100 * float(below.mean()),
        "width_octaves": float(np.median(limits[:, 1] - limits[:, 0])),
    }
