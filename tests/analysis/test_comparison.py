"""Sigmoid against softmax, and the corrections that many comparisons need."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from repro.results.stats.comparison import compare_losses
from repro.results.stats.differences import holm, p_equal, verdicts
from tests.analysis.conftest import ACCURACY, series


def both(sigmoid, softmax, seeds=3, noise=0.3):
    tables = [series(sigmoid, seeds, noise, "sigmoid", 0), series(softmax, seeds, noise, "softmax", 1)]
    return pd.concat(tables, ignore_index=True)


def test_the_loss_that_is_ahead_is_named_at_each_batch_size():
    table = both({64: 40.0, 128: 45.0, 256: 47.0}, {64: 36.0, 128: 45.0, 256: 50.0})

    found = compare_losses(table, ACCURACY).set_index("batch_size")

    assert found["verdict"].to_dict() == {64: "sigmoid", 128: "equal", 256: "softmax"}
    assert (found["noise_source"] == "paired by seed").all()
    assert (found["p_holm"] >= found["p"]).all()


def test_one_batch_size_paired_by_seed_is_the_paired_t_test():
    table = both({64: 40.0}, {64: 39.0}, seeds=6, noise=1.0)
    sigmoid, softmax = (100 * table.loc[table["loss"] == loss, ACCURACY].to_numpy() for loss in ("sigmoid", "softmax"))

    (row,) = compare_losses(table, ACCURACY).to_dict("records")

    expected = stats.ttest_rel(sigmoid, softmax)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert [row["low_points"], row["high_points"]] == pytest.approx(list(expected.confidence_interval(0.95)))


def test_one_run_each_cannot_tell():
    (row,) = compare_losses(both({64: 40.0}, {64: 36.0}, seeds=1), ACCURACY).to_dict("records")

    assert row["difference_points"] == pytest.approx(4, abs=1.5)
    assert row["verdict"] == "cannot tell"
    assert np.isnan(row["p_holm"])


def test_a_table_of_one_loss_has_nothing_to_compare():
    assert compare_losses(series({64: 40.0}), ACCURACY).empty


def test_holm_multiplies_the_smallest_most_and_passes_over_what_is_unknown():
    assert holm(np.array([0.03, 0.01, np.nan, 0.02])) == pytest.approx([0.04, 0.03, np.nan, 0.04], nan_ok=True)


def test_equality_is_two_one_sided_tests():
    # 0.1 ± 0.2 (standard error) within ± 0.5: the nearer side decides, (0.5 − 0.1) / 0.2 = 2.
    (p,) = p_equal(np.array([0.1]), np.array([0.2]), 12, 0.5)

    assert p == pytest.approx(stats.t.sf(2, 12))


def test_a_sure_difference_within_the_margin_is_a_difference_of_losses_but_no_gain_of_growing():
    numbers = np.array([0.3]), np.array([0.001]), np.array([0.01])

    assert verdicts(*numbers, "sigmoid", "softmax", equal_first=False) == ["sigmoid"]
    assert verdicts(*numbers, "higher", "lower", equal_first=True) == ["equal"]
