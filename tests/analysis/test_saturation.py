"""Where a made-up series saturates, and what is said where that cannot be placed."""

import json
import math

import pandas as pd
import pytest

from repro.config.errors import InputError
from repro.results.stats.saturation import analyse
from tests.analysis.conftest import ACCURACY, RISE_AND_PLATEAU, series
from tests.report.conftest import run_row


def only(table, **options):
    (found,) = analyse(table, ACCURACY, **options)
    return found


def test_a_rise_to_a_plateau_saturates_where_the_plateau_begins():
    found = only(series(RISE_AND_PLATEAU))

    assert (found.point, found.low, found.high) == (256, 256, 256)
    assert 128 < found.crossing_low < found.crossing < found.crossing_high <= 256
    assert set(found.peak_set) == {256, 512, 1024}
    assert found.noise_source == "its seeds"
    assert found.conclusion.startswith("saturates at 256; ")


def test_the_reference_is_the_saturation_point_where_the_series_has_no_32k():
    found = only(series(RISE_AND_PLATEAU))

    assert found.reference == 256
    assert [(each.batch_size, each.verdict) for each in found.beyond] == [(512, "equal"), (1024, "equal")]


def test_a_larger_margin_is_reached_sooner():
    table = series(RISE_AND_PLATEAU)

    assert only(table, margin_points=0.5).crossing > only(table, margin_points=5).crossing
    assert only(table, margin_points=5).point == 128


def test_the_margin_is_half_a_point_or_twice_the_noise_of_a_mean():
    quiet, loud = only(series(RISE_AND_PLATEAU, noise=0.1)), only(series(RISE_AND_PLATEAU, noise=1.0))

    assert quiet.margin_points == 0.5
    assert loud.margin_points == pytest.approx(2 * loud.noise_points / math.sqrt(3))


def test_more_seeds_leave_less_doubt():
    def width(seeds, seed):
        found = only(series(RISE_AND_PLATEAU, seeds=seeds, noise=1.0, seed=seed), margin_points=1)
        return math.log2((found.crossing_high or 1024) / found.crossing_low)

    assert sum(width(20, seed) for seed in range(5)) < sum(width(2, seed) for seed in range(5))


def test_a_curve_that_still_rises_saturates_there_or_beyond():
    found = only(series({32: 30.0, 64: 34.0, 128: 38.0, 256: 42.0}))

    assert found.at_edge and found.peak == 256
    assert (found.point, found.high) == (None, None)
    assert found.low == 256
    assert "saturates there or beyond" in found.conclusion


def test_a_curve_that_only_falls_saturates_at_or_below_the_smallest():
    found = only(series({32: 42.0, 64: 38.0, 128: 30.0}))

    assert found.at_edge
    assert (found.point, found.low, found.high) == (32, 32, 32)
    assert found.conclusion.startswith("saturates at or below 32, the smallest, which is the peak; ")
    assert "128 loses 1" in found.conclusion


def test_a_plateau_whose_highest_point_is_the_last_is_not_at_the_edge():
    found = only(series({32: 30.0, 64: 40.0, 128: 50.0, 256: 50.05}, seed=1))

    assert not found.at_edge
    assert found.point == 128


def test_single_runs_without_noise_to_borrow_cannot_tell():
    found = only(series(RISE_AND_PLATEAU, seeds=1))

    assert (found.noise_points, found.noise_source) == (None, "unknown")
    assert (found.point, found.low, found.high) == (256, None, None)
    assert {each.verdict for each in found.beyond} == {"cannot tell"}
    assert found.conclusion.startswith("cannot tell: one run each, and no noise to borrow")


@pytest.mark.parametrize("sizes", [[64], [64, 128], [98304, 307200, 1048576], [20480, 32768]])
def test_few_and_odd_batch_sizes_are_no_trouble(sizes):
    found = only(series({size: 40.0 + position for position, size in enumerate(sizes)}))

    assert found.sizes == tuple(sizes)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["peak"] == found.peak
    assert found.conclusion


def test_failed_runs_and_missing_numbers_are_passed_over_and_named():
    failed = [run_row(batch_size=2048, status="oom"), run_row(batch_size=4096, accuracy=math.nan)]
    table = pd.concat([series(RISE_AND_PLATEAU), pd.DataFrame(failed)], ignore_index=True)
    table.loc[0, ACCURACY] = math.inf

    found = only(table)

    assert found.sizes == tuple(RISE_AND_PLATEAU)
    assert found.without_result == {2048: "oom", 4096: "no value"}
    assert "no result at 2k (oom), 4k (no value)" in found.conclusion


def test_seeds_that_agree_to_the_bit_are_no_division_by_zero():
    found = only(series(RISE_AND_PLATEAU, noise=0.0))

    assert found.noise_points == 0
    assert (found.point, found.low, found.high) == (256, 256, 256)


def test_a_table_in_which_nothing_finished_has_no_series():
    assert analyse(pd.DataFrame([run_row(status="oom")]), ACCURACY) == []


def test_unlike_runs_are_series_of_their_own_and_rows_of_others_too():
    imported = series(RISE_AND_PLATEAU).assign(origin="other-lab")
    table = pd.concat([series(RISE_AND_PLATEAU), series(RISE_AND_PLATEAU, learning_rate=3e-3), imported])

    found = analyse(table.reset_index(drop=True), ACCURACY)

    assert len(found) == 3
    assert {each.peak for each in found} == {found[0].peak}


def test_the_same_seed_twice_is_one_draw():
    table = series(RISE_AND_PLATEAU)
    doubled = pd.concat([table, table], ignore_index=True)

    assert only(doubled).noise_points == pytest.approx(only(table).noise_points)
    assert only(doubled).noise_degrees == only(table).noise_degrees == 12


def test_the_same_table_gives_the_same_answer():
    table = series(RISE_AND_PLATEAU, noise=1.0)

    assert only(table).as_dict() == only(table).as_dict()


def test_losses_are_never_averaged_whatever_the_columns_named():
    table = pd.concat([series(RISE_AND_PLATEAU), series(RISE_AND_PLATEAU, loss="softmax")], ignore_index=True)

    assert [each.series["loss"] for each in analyse(table, ACCURACY, by=["setup"])] == ["sigmoid", "softmax"]


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(InputError, match="nearest is 'wds_shapes_objects/acc1'"):
        analyse(series(RISE_AND_PLATEAU), "shapes_objects/acc1")
