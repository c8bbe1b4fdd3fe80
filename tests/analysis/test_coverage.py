"""The intervals hold as often as they say: a small version of `python -m benchmarks coverage`."""

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.coverage import INVERSION, compare
from repro.results.stats.crossing import crossings, intervals
from repro.results.stats.differences import Cells, Noise
from repro.results.stats.saturation import differences_beyond


@pytest.fixture(scope="module")
def simulated():
    return compare(60, 8, shapes=["fast rise", "plateau and fall", "parabola"], seeds=(3,), laws=["normal"])


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.5])
def test_the_interval_holds_the_true_crossing_in_90_to_97_percent(simulated, noise):
    rows = simulated[(simulated["method"] == INVERSION) & (simulated["noise_points"] == noise)]
    total = int(rows["simulations"].sum())
    held = round((rows["coverage_percent"] / 100 * rows["simulations"]).sum())

    assert total == 540
    assert binom.ppf(0.001, total, 0.90) <= held <= binom.ppf(0.999, total, 0.97)


def test_the_seed_bootstrap_would_not(simulated):
    rows = simulated[simulated["method"] == "seed bootstrap"]

    assert rows["coverage_percent"].mean() < 90


def test_the_crossing_lies_on_the_line_between_two_batch_sizes():
    # From 40 to 50 over one octave, with the peak 50: within 2.5 points three quarters of the way.
    (place,) = crossings(np.array([[40.0, 50.0, 49.0]]), 2.5, np.array([5.0, 6.0, 7.0]))

    assert place == pytest.approx(5.75)


def test_a_wider_confidence_is_a_wider_interval():
    curve = np.array([[40.0, 47.0, 50.0, 50.0]]), np.full(4, 3), np.array([0.5]), 8, np.arange(4.0), 0.5, 0

    (low, high), (lower, higher) = (intervals(*curve, confidence=level)[0] for level in (0.8, 0.99))

    assert lower < low < high < higher


def verdicts_of(truth, simulations=2000, seeds=3, noise=0.5):
    """Words for each larger batch size against the first, in series whose true means are known. [simulations, sizes]"""
    draws = np.random.default_rng(0)
    sizes, degrees = 64 * 2 ** np.arange(len(truth)), len(truth) * (seeds - 1)
    words = []
    for _ in range(simulations):
        runs = truth + noise * draws.standard_normal((seeds, len(truth)))
        spread = np.sqrt(runs.var(0, ddof=1).mean())
        every = np.full(len(truth), seeds)
        cells = Cells(sizes, runs.mean(0), every, np.zeros(len(truth)), every - 1)
        beyond = differences_beyond(cells, Noise(float(spread), degrees, ""), 64, margin=1.0)
        words.append([each.verdict for each in beyond])
    return np.array(words)


def test_on_a_plateau_a_difference_is_claimed_of_any_batch_size_in_at_most_5_percent():
    false = np.isin(verdicts_of(np.full(6, 50.0)), ["higher", "lower"]).any(1)

    assert false.sum() <= binom.ppf(0.999, len(false), 0.05)


def test_equality_is_claimed_of_a_batch_size_a_margin_away_in_at_most_5_percent():
    false = verdicts_of(np.array([50.0, 51.0]), seeds=5, noise=0.3) == "equal"

    assert 0 < false.sum() <= binom.ppf(0.999, len(false), 0.05)
