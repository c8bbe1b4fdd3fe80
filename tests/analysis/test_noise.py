"""Whose noise a series is judged with."""

import numpy as np
import pandas as pd
import pytest

from repro.results.stats.saturation import analyse
from tests.analysis.conftest import ACCURACY, RISE_AND_PLATEAU, series


def noise(table, **wanted):
    (found,) = [each for each in analyse(table, ACCURACY) if wanted.items() <= each.series.items()]
    return found.noise_points, found.noise_degrees, found.noise_source


def test_a_series_own_seeds_are_pooled_over_its_batch_sizes():
    table = series(RISE_AND_PLATEAU)

    spread = (100 * table[ACCURACY]).groupby(table["batch_size"]).var().mean() ** 0.5

    assert noise(table) == (pytest.approx(spread), 12, "its seeds")


def test_single_runs_borrow_from_cells_of_the_same_setup_in_the_table():
    lender = series({128: 40.0, 256: 45.0}, loss="softmax")
    table = pd.concat([series(RISE_AND_PLATEAU, seeds=1), lender], ignore_index=True)

    spread = (100 * lender[ACCURACY]).groupby(lender["batch_size"]).var().mean() ** 0.5

    assert noise(table, loss="sigmoid") == (pytest.approx(spread), 4, "pooled over 2 cells of siglip")


@pytest.mark.parametrize(("column", "other"), [("setup", "siglit"), ("scale", "gpu")])
def test_noise_is_not_borrowed_from_another_setup_or_scale(column, other):
    lender = series({128: 40.0, 256: 45.0}, **{column: other})
    table = pd.concat([series(RISE_AND_PLATEAU, seeds=1), lender], ignore_index=True)

    found = {each.series[column]: each.noise_source for each in analyse(table, ACCURACY)}

    assert found == {table[column].iloc[0]: "unknown", other: "its seeds"}


def test_the_papers_noise_is_never_used_for_our_runs():
    from repro.results import tables

    published = tables.load("paper:table-5").rename(columns={"imagenet1k/acc1": ACCURACY})
    table = pd.concat([series(RISE_AND_PLATEAU, seeds=1), published], ignore_index=True)

    sources_of = {each.noise_source for each in analyse(table, ACCURACY) if each.series["scale"] == "laptop"}

    assert sources_of == {"unknown"}


def test_few_seeds_of_its_own_are_joined_by_those_of_the_setup():
    two_seeds_once = pd.concat([series(RISE_AND_PLATEAU, seeds=1), series({256: 50.0}, seeds=2)])
    table = pd.concat([two_seeds_once, series({128: 40.0, 256: 45.0}, seeds=4, loss="softmax")], ignore_index=True)

    points, degrees, source = noise(table, loss="sigmoid")

    assert (degrees, source) == (7, "pooled over 3 cells of siglip")
    assert np.isfinite(points)
