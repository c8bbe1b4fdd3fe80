"""Somebody's CSV: columns by their names, percent or from 0 to 1, what it does not say."""

from pathlib import Path

import pandas as pd
import pytest

from repro.config.errors import InputError
from repro.results import importers as imported
from repro.results import tables

MAP = {"loss": "objective", "batch_size": "bs", "examples_seen": "samples", "imagenet1k/acc1": "top1"}
THEIRS = """\
model,objective,bs,samples,top1,note
B/16,siglip,32k,3B,73.1,ok
B/16,clip,32k,3B,72.4,
B/16,siglip,98304,9B,73.4%,
"""


@pytest.fixture
def made(tmp_path):
    """made('a.csv', text) writes a file."""

    def make(name: str, text: str) -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return make


def row_of(file, **options):
    (row,) = imported.read([file], **options).table.to_dict("records")
    return row


def test_their_columns_become_ours_and_others_are_kept(made):
    read = imported.read([made("theirs.csv", THEIRS)], mapping=MAP)

    assert read.table["loss"].tolist() == ["sigmoid", "softmax", "sigmoid"]
    assert read.table["batch_size"].tolist() == [32768, 32768, 98304]
    assert read.table["examples_seen"].tolist() == [3e9, 3e9, 9e9]
    assert read.table["imagenet1k/acc1"].tolist() == [0.731, 0.724, 0.734]
    assert read.table["note"].tolist()[0] == "ok"
    assert set(read.table["origin"]) == set(read.table["sweep"]) == {"theirs"}
    assert set(read.table["scale"]) == {"imported"}
    assert set(read.table["source_file"]) == {"theirs.csv"}
    assert read.table["run_id"].is_unique


def test_what_was_imported_is_a_table_like_any_other_and_draws_curves(made, tmp_path):
    from repro.report import draw

    imported.write(imported.read([made("theirs.csv", THEIRS)], mapping=MAP), tmp_path / "out" / "theirs.csv")
    table = tables.load(str(tmp_path / "out" / "theirs.csv"))
    axes = draw.accuracy_by_batch_size(table, "imagenet1k/acc1")

    assert {line.get_label() for line in axes.lines} == {"sigmoid, 3B", "sigmoid, 9B", "softmax, 3B"}


def test_importing_twice_changes_nothing_and_a_mended_number_replaces_its_row(made, tmp_path):
    file, out = made("theirs.csv", THEIRS), tmp_path / "theirs.out.csv"
    imported.write(imported.read([file], mapping=MAP, name="t"), out)
    once = out.read_bytes()
    again = imported.write(imported.read([file], mapping=MAP, name="t"), out)
    assert again == {"added": 0, "replaced": 0, "unchanged": 3, "from before": 0}
    assert out.read_bytes() == once

    made("theirs.csv", THEIRS.replace("72.4", "72.6"))
    mended = imported.write(imported.read([file], mapping=MAP, name="t"), out)
    assert mended == {"added": 0, "replaced": 1, "unchanged": 2, "from before": 0}
    assert 0.726 in pd.read_csv(out)["imagenet1k/acc1"].tolist()


def test_files_that_are_told_apart_by_what_is_given_do_not_replace_each_other(made, tmp_path):
    out = tmp_path / "out.csv"
    for loss in ("sigmoid", "softmax"):
        file = made(f"{loss}.csv", "model,batch_size,a/acc1\nB/16,1k,0.5\n")
        imported.write(imported.read([file], name="t", values={"loss": loss}), out)
    assert pd.read_csv(out)["loss"].tolist() == ["sigmoid", "softmax"]


def test_rows_of_another_import_are_not_written_over(made, tmp_path):
    out = tmp_path / "out.csv"
    imported.write(imported.read([made("theirs.csv", THEIRS)], mapping=MAP), out)

    with pytest.raises(InputError, match="rows that are not of the import 'mine'"):
        imported.write(imported.read([made("theirs.csv", THEIRS)], mapping=MAP, name="mine"), out)


@pytest.mark.parametrize(
    ("cells", "shares", "noted"),
    [
        (["0.731", "0.724"], [0.731, 0.724], False),
        (["73.1", "72.4"], [0.731, 0.724], True),
        (["73.1%", "0.5%"], [0.731, 0.005], False),
        (["0", "72.4"], [0, 0.724], True),
        (["1", "0.9"], [1, 0.9], False),
    ],
)
def test_percent_is_told_from_the_values_of_a_column(made, cells, shares, noted):
    text = "loss,batch_size,a/acc1\n" + "".join(f"sigmoid,{64 * (n + 1)},{cell}\n" for n, cell in enumerate(cells))
    read = imported.read([made("a.csv", text)])

    assert read.table["a/acc1"].tolist() == shares
    assert any("divided by 100" in note for note in read.notes) == noted


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("a/acc1", ["73.1", "0.724"], "row 2: a/acc1 is 0.724, but a.csv, row 1 has 73.1"),
        ("top1_percent", ["0.731", "0.724"], r"row 1: a/acc1 \(column 'top1_percent'\) is 0.731, but its name says"),
        ("a/acc1", ["50", "731%"], "row 2: a/acc1 is '731%'; expected a number from 0 to 1"),
        ("a/acc1", ['"73,1"', ""], "row 1: a/acc1 is '73,1'"),
    ],
)
def test_what_cannot_be_one_accuracy_is_refused_with_file_row_and_column(made, column, cells, message):
    text = f"loss,batch_size,{column}\n" + "".join(f"sigmoid,64,{cell}\n" for cell in cells)

    with pytest.raises(InputError, match=message):
        imported.read([made("a.csv", text)], mapping={} if "/" in column else {"a/acc1": column})


def test_units_decide_where_the_values_cannot(made):
    file = made("a.csv", "loss,batch_size,a/acc1\nsigmoid,64,73.1\nsigmoid,128,0.9\n")

    assert imported.read([file], units="percent").table["a/acc1"].tolist() == [0.731, 0.009]
    with pytest.raises(InputError, match="--units percent"):
        imported.read([file], units="share")


def test_what_a_file_does_not_say_is_given_or_asked_for(made):
    file = made("a.csv", "batch_size,a/acc1\n64,0.5\n")

    with pytest.raises(InputError, match=r"a.csv, row 1: loss not said; give it with --set loss=sigmoid"):
        imported.read([file])
    row = row_of(file, values={"loss": "siglip", "batch_size": "32k", "setup": "siglip"})
    assert (row["loss"], row["batch_size"], row["setup"]) == ("sigmoid", 32768, "siglip")


def test_what_is_given_overrules_the_file_and_says_so(made):
    file = made("a.csv", "loss,batch_size,a/acc1\nsigmoid,64,0.5\n")

    read = imported.read([file], values={"batch_size": "128"})
    assert "a.csv, row 1: batch_size 64 → 128 (--set)" in read.notes


def test_columns_with_our_names_for_other_things_do_not_take_their_place(made):
    row = row_of(made("a.csv", "loss,batch_size,sweep,origin,train/loss,a/acc1\nsigmoid,64,s1,web,2.5,0.5\n"))

    assert (row["sweep"], row["origin"]) == ("a", "a")
    assert (row["imported_sweep"], row["imported_origin"], row["train_loss"]) == ("s1", "web", 2.5)


def test_rows_that_are_alike_are_seeds_in_their_order(made):
    read = imported.read([made("a.csv", "loss,batch_size,a/acc1\nsigmoid,64,0.5\nsigmoid,64,0.6\n")])

    assert read.table["seed"].tolist() == [0, 1]
    assert read.table["run_id"].is_unique
    assert any("no seed is said" in note for note in read.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": {"imagenet1k/acc1": "tpo1"}}, "no column 'tpo1'; the nearest is 'top1'"),
        ({"mapping": {"imagenet1k/loss": "top1"}}, "--map imagenet1k/loss: no metric from 0 to 1"),
        ({"mapping": {"batchsize": "bs"}}, "the nearest is 'batch_size'"),
        ({"values": {"batch_sise": "1k"}}, "the nearest is 'batch_size'"),
        ({"values": {"batch_size": "many"}}, "--set: batch_size: 'many' is not a batch size"),
        ({"values": {"loss": "sigmod"}}, "the nearest is 'sigmoid'"),
        ({"units": "percents"}, "--units percents: unknown; the nearest is 'percent'"),
        ({"name": "paper"}, "--name paper: expected letters"),
    ],
)
def test_a_mistake_names_the_nearest_that_works(made, options, message):
    with pytest.raises(InputError, match=message):
        imported.read([made("theirs.csv", THEIRS)], **({"mapping": MAP} | options))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv: an empty file"),
        ("a.csv", "loss,batch_size,a/acc1\n", "no rows under its header"),
        ("a.csv", "loss,loss,a/acc1\n1,2,3\n", "two columns are called 'loss'"),
        ("a.csv", "loss,batch_size,a/acc1\nsigmoid,64\n", "a.csv, row 1: 2 cells under 3 columns"),
        ("a.csv", "loss,batch_size,top1\nsigmoid,64,0.5\n", "no column is a metric"),
        ("a.csv", "loss,batch_size,a/acc1\n2.31,64,0.5\n", "loss '2.31' is a number, not which loss it is"),
        ("a.csv", "loss,source,dataset,metric,value\nsigmoid,x,a,b,5\n", "is in the paper's form"),
        ("a.txt", "hello", "a format that is not known; expected clip-benchmark's"),
    ],
)
def test_a_file_that_is_no_table_says_why(made, name, text, message):
    with pytest.raises(InputError, match=message):
        imported.read([made(name, text)])
