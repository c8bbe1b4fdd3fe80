"""Tables of a report, on made-up runs whose numbers are known."""

import math

import pandas as pd
import pytest

from repro.errors import InputError
from repro.report import tables
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


def test_a_cell_says_the_number_or_what_became_of_the_run():
    rows = [run_row("sigmoid", 1024, 0, 0.50), run_row("sigmoid", 1024, 1, 0.52), run_row("sigmoid", 32768, 0, 0.6)]
    rows += [run_row("softmax", 1024, 0, 0.45), run_row("softmax", 1024, 1, status="diverged")]
    rows += [run_row("softmax", 32768, 0, status="oom")]

    layout = tables.results_by_batch_size(pd.DataFrame(rows), [ACCURACY])["shapes_objects, top-1 accuracy"]

    assert list(layout.index) == ["1k", "32k"]
    assert list(layout["sigmoid"]) == ["51.0 ± 1.4", "60.0"]
    assert list(layout["softmax"]) == ["45.0; 1 diverged", "oom"]
    assert list(layout["difference"]) == ["+5.0", ""]


def test_differences_are_paired_by_seed():
    rows = [run_row("sigmoid", 64, seed, 0.5 + 0.1 * seed) for seed in (0, 1, 2)]
    rows += [run_row("softmax", 64, seed, 0.48 + 0.1 * seed) for seed in (1, 2, 3)]

    (row,) = tables.differences(pd.DataFrame(rows), [ACCURACY]).to_dict("records")

    assert row["seeds"] == 2
    assert row["difference_points"] == pytest.approx(2)
    assert row["low_points"] == pytest.approx(row["high_points"])  # both pairs differ by the same


def test_the_best_batch_size_says_whether_the_grid_ends_there():
    rows = [run_row("sigmoid", size, accuracy=value) for size, value in ((64, 0.4), (128, 0.5), (256, 0.45))]
    rows += [run_row("softmax", size, accuracy=value) for size, value in ((64, 0.4), (128, 0.5), (256, 0.55))]

    best = tables.best(pd.DataFrame(rows), ACCURACY).set_index("loss")

    assert best.loc["sigmoid", ["batch_size", "at_edge"]].tolist() == [128, False]
    assert best.loc["softmax", ["batch_size", "at_edge"]].tolist() == [256, True]


def test_the_papers_table_goes_through_the_same_code(published):
    rows = published[published["source"] == "table-5"]

    best = tables.best(rows[rows["examples_seen"] == 9e9], "value").set_index("loss")["batch_size"]

    assert best.to_dict() == {"sigmoid": 32768, "softmax": 98304}


def test_provenance_names_commit_versions_machine_and_data(table):
    table.loc[0, "git_dirty"] = True

    sigmoid, softmax = tables.provenance(table).to_dict("records")

    assert sigmoid["series"] == "ours, siglip, laptop, sigmoid"
    assert sigmoid["source"] == "7 runs, 7 finished"
    assert sigmoid["commit"] == "0123456789ab (with uncommitted changes)"
    assert softmax["commit"] == "0123456789ab"
    assert "torch 2.9.0" in sigmoid["versions"]
    assert sigmoid["data fingerprint"] == "5f3a9c0d1e2b4a67"


def test_markdown_escapes_what_would_break_the_table():
    text = tables.markdown(pd.DataFrame({"reason": ["a|b\nc", None], "value": [0.25, math.nan]}))

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
    shown = tables.results_by_batch_size(both, ["wds_shapes_objects/acc1", "wds_shapes_xm_mean/acc1"])
    heads = {head for head, _ in shown.columns}
    assert heads == {"shapes_objects, top-1 accuracy, siglip", "shapes_xm_mean, top-1 accuracy, msiglip"}


def test_runs_that_all_failed_keep_their_place():
    failed = sweep_table().assign(status="oom", **{"wds_shapes_objects/acc1": math.nan})
    assert tables.is_evaluated_on(failed, "wds_shapes_objects/acc1", ["wds_shapes_objects/acc1"])


def test_published_tables_and_evaluations_on_the_way_are_told_apart_by_columns_of_their_own():
    from repro import sources

    on_the_way = pd.concat([sweep_table(examples_seen_at=at) for at in (8192, 65536)], ignore_index=True)

    assert tables.series_columns(on_the_way) == ["examples_seen_at"]
    assert tables.series_columns(sources.load("paper:table-6")) == ["learning_rate", "note"]
    assert tables.series_columns(pd.concat([sweep_table(), sweep_table(origin="other-lab")])) == ["origin"]
