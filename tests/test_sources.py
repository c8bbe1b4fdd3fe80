"""Tables of results from anywhere, in one shape."""

import pandas as pd
import pytest

from repro.config.errors import InputError
from repro.results import tables


def test_the_paper_is_a_table_of_runs():
    table = tables.load("paper")

    assert table["run_id"].is_unique
    assert set(table["origin"]) == {"paper"}
    metrics = table[[column for column in table.columns if "/" in column]]
    assert metrics.min(axis=None) > 0 and metrics.max(axis=None) < 1


def test_one_of_its_tables_holds_its_numbers():
    table = tables.load("paper:table-5").set_index(["loss", "batch_size", "examples_seen"])

    assert table.loc[("softmax", 98304, 9e9), "imagenet1k/acc1"] == pytest.approx(0.732)


def test_languages_are_columns_and_their_mean_is_the_papers():
    table = tables.load("paper:table-9").set_index(["batch_size", "examples_seen"])

    row = table.loc[(32768, 3e10)]
    assert row["crossmodal3600_mean/text_retrieval_recall@1"] == pytest.approx(0.474)
    assert row["crossmodal3600_ar/image_retrieval_recall@1"] == pytest.approx(0.374)


def test_a_csv_is_ours_or_the_papers_form(tmp_path):
    ours = tmp_path / "ours.csv"
    pd.DataFrame({"loss": ["sigmoid"], "batch_size": [64], "set/acc1": [0.5]}).to_csv(ours, index=False)
    long = tmp_path / "long.csv"
    pd.DataFrame(
        {
            "source": ["x"],
            "loss": ["sigmoid"],
            "batch_size": [64],
            "dataset": ["set"],
            "metric": ["zeroshot_top1_percent"],
        }
        | {"value": [50.0]}
    ).to_csv(long, index=False)

    for file in (ours, long):
        (row,) = tables.load(str(file)).to_dict("records")
        assert (row["loss"], row["batch_size"], row["set/acc1"], row["status"]) == ("sigmoid", 64, 0.5, "finished")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("resutls.csv", None, "no such file; the nearest is"),
        ("results.csv", "loss,batchsize,a/acc1\nsigmoid,3,0.1\n", "no column 'batch_size'; the nearest is 'batchsize'"),
        ("results.csv", "loss,batch_size\nsigmoid,3\n", "no metric; expected a table of repro collect"),
        ("results.csv", "", "cannot be read as a CSV table"),
    ],
)
def test_what_is_no_table_of_results_says_what_was_expected(tmp_path, name, text, message):
    (tmp_path / "results.csv").write_text(text or "")

    with pytest.raises(InputError, match=message):
        tables.load(str(tmp_path / name))


def test_a_table_that_the_paper_has_not_is_named_with_the_nearest():
    with pytest.raises(InputError, match="the paper has no 'table-55'; the nearest is 'table-5'"):
        tables.load("paper:table-55")


LONG = "source,loss,batch_size,seed,dataset,metric,value\n"


def test_numbers_in_the_papers_form_are_the_papers_only_if_they_are_its_own(tmp_path):
    for name in ("theirs.csv", "paper.csv"):
        (tmp_path / name).write_text(f"{LONG}x,sigmoid,64,0,set,acc1_percent,50\nx,sigmoid,64,1,set,acc1_percent,52\n")

    theirs, paper = (tables.load(str(tmp_path / name)) for name in ("theirs.csv", "paper.csv"))

    assert set(theirs["origin"]) == {"theirs"} and set(paper["origin"]) == {"paper.csv"}
    assert list(theirs["seed"]) == [0, 1]
    assert list(theirs["run_id"]) == ["theirs-x-sigmoid-64-0", "theirs-x-sigmoid-64-1"]


def test_text_where_the_papers_form_has_a_number_is_named_with_its_row(tmp_path):
    file = tmp_path / "long.csv"
    file.write_text(f"{LONG}x,sigmoid,64,0,set,acc1_percent,50\nx,sigmoid,64,1,set,acc1_percent,about 52\n")

    with pytest.raises(InputError, match=r"long.csv, row 2: value is 'about 52'; expected a number in percent"):
        tables.load(str(file))
