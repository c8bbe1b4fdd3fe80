"""Tables of a report, on made-up runs whose numbers are known."""

import math

import pandas as pd
import pytest

from repro.config.errors import InputError
from repro.report import markup
from repro.results import tables
from tests.report.conftest import run_row, sweep_table

ACCURACY = "wds_shapes_objects/acc1"


def test_one_sweep_has_one_series():
    # micro_batch differs with the batch size and init_logit_bias with the loss: neither splits a line.
    assert tables.series_columns(sweep_table()) == []


@pytest.mark.parametrize("changed", [{"examples_seen": 131072}, {"setup": "siglit"}, {"learning_rate": 3e-3}])
def test_runs_that_differ_in_a_field_are_never_averaged(changed):
    table = pd.concat([sweep_table(), sweep_table(**changed)], ignore_index=True)

    (column,) = changed
    assert tables.series_columns(table) == [column]
    assert set(tables.summarise(table, ACCURACY, [column])["seeds"]) == {1}


def test_seeds_are_averaged_with_students_interval():
    rows = [run_row(seed=seed, accuracy=value) for seed, value in enumerate((0.50, 0.52, 0.54))]

    (row,) = tables.summarise(pd.DataFrame(rows), ACCURACY).to_dict("records")

    assert row["seeds"] == 3
    assert row["mean"] == pytest.approx(0.52)
    assert row["std"] == pytest.approx(0.02)
    assert row["high"] - row["mean"] == pytest.approx(4.3027 * 0.02 / math.sqrt(3), rel=1e-4)


def test_rows_of_one_seed_are_one_draw_and_those_that_do_not_say_theirs_are_several():
    rows = pd.DataFrame([run_row(seed=seed, accuracy=value) for seed, value in ((0, 0.50), (0, 0.52), (1, 0.55))])

    (told,), (untold,) = (tables.summarise(t, ACCURACY).to_dict("records") for t in (rows, rows.assign(seed=math.nan)))

    assert (told["seeds"], untold["seeds"]) == (2, 3)
    assert told["mean"] == pytest.approx(0.53)


def test_the_name_of_a_series_leaves_out_what_is_not_known():
    unknown = {"setup": "siglip", "model": math.nan, "examples_seen": math.nan, "data_fingerprint": ""}

    assert tables.series_label(unknown) == "siglip"


def test_one_seed_has_no_interval(table):
    assert tables.summarise(table, ACCURACY)[["std", "low", "high"]].isna().all(axis=None)


def test_each_data_set_has_one_main_metric(table):
    wide = tables.with_mean_recall(table)
    at_five = wide.drop(columns=[column for column in wide.columns if column.endswith("recall@1")])

    assert tables.main_metrics(wide) == [ACCURACY, "wds_shapes_retrieval/mean_recall@1"]
    assert tables.main_metrics(at_five)[1] == "wds_shapes_retrieval/mean_recall@5"
    assert wide["wds_shapes_retrieval/mean_recall@1"][0] == pytest.approx(0.5 * wide[ACCURACY][0])


def test_an_unknown_metric_names_the_nearest(table):
    with pytest.raises(InputError, match="nearest is 'wds_shapes_objects/acc1'"):
        tables.check_metrics(table, ["shapes_objects/acc1"])


def test_markdown_escapes_what_would_break_the_table():
    text = markup.markdown_table(pd.DataFrame({"reason": ["a|b\nc", None], "value": [0.25, math.nan]}))

    assert text.splitlines() == ["| reason | value |", "| --- | --- |", "| a\\|b c | 0.25 |", "|  |  |"]


def test_a_set_in_several_languages_is_summed_up_by_its_mean_and_only_runs_that_were_evaluated_on_it_are_shown():
    of_one, of_many = (
        sweep_table(),
        sweep_table(setup="msiglip").rename(columns=lambda c: c.replace("objects", "xm_de")),
    )
    of_many["wds_shapes_xm_mean/acc1"] = of_many["wds_shapes_xm_de/acc1"]
    both = pd.concat([of_one, of_many], ignore_index=True)
    metrics = tables.main_metrics(both)
    assert "wds_shapes_xm_mean/acc1" in metrics and "wds_shapes_xm_de/acc1" not in metrics
    assert tables.is_evaluated_on(of_one, "wds_shapes_objects/acc1", ["wds_shapes_objects/acc1"])


def test_runs_that_all_failed_keep_their_place():
    failed = sweep_table().assign(status="oom", **{"wds_shapes_objects/acc1": math.nan})
    assert tables.is_evaluated_on(failed, "wds_shapes_objects/acc1", ["wds_shapes_objects/acc1"])


def test_published_tables_and_evaluations_on_the_way_are_told_apart_by_columns_of_their_own():
    from repro.results import tables

    on_the_way = pd.concat([sweep_table(examples_seen_at=at) for at in (8192, 65536)], ignore_index=True)

    assert tables.series_columns(on_the_way) == ["examples_seen_at"]
    assert tables.series_columns(tables.load("paper:table-6")) == ["learning_rate", "note"]
    assert tables.series_columns(pd.concat([sweep_table(), sweep_table(origin="other-lab")])) == ["origin"]
