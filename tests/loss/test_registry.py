"""A loss is one file and one entry: named in LOSSES it trains, sweeps, is planned, reported and compared."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.loss import LOSSES, SigmoidLoss, SoftmaxLoss, make_loss
from repro.report import figures
from tests.loss.pairwise import PAIRWISE


def test_every_kind_makes_its_module_and_its_formula():
    assert isinstance(make_loss("sigmoid"), SigmoidLoss) and isinstance(make_loss("softmax"), SoftmaxLoss)
    assert [type(kind.make_plain()).__name__ for kind in LOSSES.values()] == ["PlainSigmoidLoss", "PlainSoftmaxLoss"]


def test_an_unknown_loss_is_answered_with_the_nearest(make_spec):
    with pytest.raises(InputError, match=r"loss 'softmx' is unknown; the nearest is 'softmax' \(expected one of"):
        RunSpec.parse(make_spec().model_dump() | {"loss": "softmx"}, "mine.yaml")


def test_a_third_loss_trains_sweeps_is_reported_and_compared(world, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, PAIRWISE.name, PAIRWISE)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    monkeypatch.chdir(tmp_path)

    def repro(*words: str) -> str:
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        return done.output

    grid = ["--loss", "sigmoid", "pairwise", "--batch-size", "32", "64", "--examples", "256"]
    grid += ["--set", "data=shapes:2048", "--eval", world.evals[0]]
    assert "pairwise" in repro("plan", "batch-size", *grid[:-2])
    repro("sweep", "batch-size", *grid, "--executor", "inline")
    repro("collect", "batch-size")
    table = pd.read_csv("results/batch-size.csv")
    assert table["status"].tolist() == ["finished"] * 4
    assert table["init_logit_bias"].isna().tolist() == (table["loss"] == "pairwise").tolist()
    compared = json.loads(repro("saturation", "results/batch-size.csv", "--json"))["losses"]
    assert {(row["loss_a"], row["loss_b"]) for row in compared} == {("sigmoid", "pairwise")}
    repro("report", "batch-size", "--out", "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "pairwise" in page and PAIRWISE.colour in page
