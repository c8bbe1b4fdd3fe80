"""Two tables row by row."""

import pandas as pd
import pytest
from scipy import stats

from repro.config.errors import InputError
from repro.results import tables
from repro.results.stats.comparison import compare, matching
from tests.analysis.conftest import ACCURACY, IMAGENET, series


def compared(a, b, metric=ACCURACY, other=None, by=None):
    return compare(a, b, metric, other or metric, matching(a, b, by))


def test_rows_match_on_what_tells_them_apart_and_the_rest_has_no_partner():
    a = pd.concat([series({64: 40.0, 128: 44.0}), series({64: 36.0}, loss="softmax")], ignore_index=True)
    b = series({64: 42.0, 256: 48.0})

    found = compared(a, b)

    assert found.rows[["loss", "batch_size", "verdict"]].to_numpy().tolist() == [["sigmoid", 64, "B"]]
    assert found.only_a[["loss", "batch_size"]].to_numpy().tolist() == [["sigmoid", 128], ["softmax", 64]]
    assert found.only_b["batch_size"].tolist() == [256]


def test_what_differs_throughout_is_what_is_compared_and_is_named():
    found = matching(series({64: 40.0}), series({64: 42.0}, learning_rate=3e-3))

    assert "learning_rate" not in found.columns
    assert found.apart == {"learning_rate": ((1e-3,), (3e-3,))}


def test_the_same_seeds_are_paired_and_others_are_welchs():
    a, b = series({64: 40.0}, 5, 1.0, seed=1), series({64: 41.0}, 5, 1.0, seed=2)
    numbers = [100 * table[ACCURACY].to_numpy() for table in (b, a)]

    (paired,) = compared(a, b).rows.to_dict("records")
    (welch,) = compared(a, b.assign(seed=b["seed"] + 10)).rows.to_dict("records")

    assert paired["p"] == pytest.approx(stats.ttest_rel(*numbers).pvalue)
    assert welch["p"] == pytest.approx(stats.ttest_ind(*numbers, equal_var=False).pvalue)
    assert paired["difference_points"] == pytest.approx(welch["difference_points"])


def test_a_single_run_of_ours_beside_the_papers_has_a_difference_and_no_interval():
    ours = series({512: 40.0, 1024: 44.0}, seeds=1)
    found = compared(ours, tables.load("paper:table-5"), ACCURACY, IMAGENET)

    assert found.rows["b_percent"].tolist() == pytest.approx([51.5, 57.3])
    assert found.rows["low_points"].isna().all()
    assert set(found.rows["verdict"]) == {"cannot tell"}
    assert "examples_seen" not in matching(ours, tables.load("paper:table-5")).columns


def test_a_column_that_varies_on_one_side_keeps_its_rows_apart():
    found = compared(tables.load("paper:table-5"), tables.load("paper:table-7"), IMAGENET)

    rows = found.rows.set_index(["loss", "optimizer_b"])["difference_points"]
    assert rows.to_dict() == pytest.approx(
        {("sigmoid", "adamw"): 0.4, ("sigmoid", "vit-adafactor"): 0.2, ("softmax", "vit-adafactor"): 0.0}, abs=1e-9
    )


def test_tables_that_share_no_batch_size_say_which_they_have():
    with pytest.raises(InputError, match="A has batch sizes 64; B 256"):
        matching(series({64: 40.0}), series({256: 40.0}))
