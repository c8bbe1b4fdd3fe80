"""`repro report` on run directories written as runs write them, and on tables."""

import html

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.config.files import read_json, write_json
from repro.config.sweep import Overrides, expand, load_sweep
from repro.report import figures
from repro.runs.directory import RunDirectory
from tests.report.conftest import sweep_table


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two sweeps with two runs each; commands start in the folder that holds runs/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    for sweep in ("batch-size", "other"):
        for spec in expand(load_sweep("batch-size"), "laptop", Overrides({"batch_size": [64]}, {})):
            directory = RunDirectory(tmp_path / "runs" / sweep / spec.run_id)
            directory.write_spec(spec)
            write_json(directory.provenance_file, {"git_commit": "0123456789abcdef", "torch_version": "2.9.0"})
            metrics = {"wds_shapes_objects/acc1": 0.5}
            speed = {"examples_per_second": 1000.0, "peak_memory_bytes": 2**29}
            directory.log({"step": 1, "examples_seen": 64, "loss": 3.5, "gradient_norm": 1.0})
            directory.write_result({"status": "finished", "reason": "", "metrics": metrics, **speed})
    return tmp_path / "runs"


def repro(*arguments):
    return CliRunner().invoke(main, arguments)


def test_every_sweep_is_reported_by_scale(runs):
    result = repro("report")

    assert result.exit_code == 0, result.output
    assert "4 of 4 runs finished" in result.output
    assert "Open reports/laptop/index.html" in result.output
    assert '"training_loss":[3.5]' in (runs.parent / "reports/laptop/index.html").read_text()


def test_a_sweep_a_folder_and_a_metric_can_be_named(runs, tmp_path):
    result = repro("report", "other", "--out", "page", "--metric", "wds_shapes_objects/acc1")

    assert result.exit_code == 0, result.output
    text = (tmp_path / "page/index.html").read_text()
    assert "repro report other --out page --metric wds_shapes_objects/acc1" in text
    assert "2 runs of 1 sweep (other), all finished." in text


def test_a_table_needs_no_runs_and_imported_ones_join(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    (tmp_path / "results/imported").mkdir(parents=True)
    sweep_table().to_csv("mine.csv", index=False)
    sweep_table(sweep="theirs", origin="theirs").to_csv("results/imported/theirs.csv", index=False)

    result = repro("report", "mine.csv")

    assert result.exit_code == 0, result.output
    assert "Open reports/mine/index.html" in result.output
    assert pd.read_csv("reports/mine/runs.csv")["origin"].value_counts(dropna=False).tolist() == [14, 14]


def test_a_run_that_is_given_twice_counts_once(runs):
    (runs.parent / "results").mkdir()
    assert repro("collect", "other").exit_code == 0
    pd.read_csv("results/other.csv").to_csv("results/all.csv", index=False)

    result = repro("report", "other", "results/all.csv", "results/other.csv")

    assert "2 of 2 runs finished" in result.output


def test_a_list_in_a_result_is_words(runs):
    for file in (runs / "other").glob("*/result.json"):
        write_json(file, read_json(file) | {"hosts": ["one", "two"], "steps": [1, 2]})

    assert repro("report", "other").exit_code == 0
    assert set(pd.read_csv("reports/other/runs.csv")["hosts"]) == {"one two"}


def test_an_imported_table_that_is_named_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    (tmp_path / "results/imported").mkdir(parents=True)
    sweep_table().drop(columns="run_id").to_csv("results/imported/lr-0.1.csv", index=False)

    result = repro("report", "results/imported/lr-0.1.csv")

    assert "14 of 14 runs finished" in result.output
    assert "Open reports/lr-0.1/index.html" in result.output


def test_what_stands_beside_a_table_and_measurements_may_be_named_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    (tmp_path / "results").mkdir()
    sweep_table().to_csv("results/mine.csv", index=False)
    sweep_table(examples_seen_at=64).to_csv("results/mine-evaluations.csv", index=False)
    (tmp_path / "results/capacity.csv").write_text("loss,batch_size\nsigmoid,64\n")

    result = repro("report", "results/capacity.csv", "results/mine-evaluations.csv", "results/mine.csv")

    assert "14 of 14 runs finished" in result.output


def test_the_least_that_a_table_may_hold_makes_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    sweep_table()[["loss", "batch_size", "wds_shapes_objects/acc1"]].to_csv("mine.csv", index=False)

    result = repro("report", "mine.csv", "--metric", "wds_shapes_objects/acc1", "--out", str(tmp_path / "a page"))

    assert result.exit_code == 0, result.output
    text = html.unescape((tmp_path / "a page/index.html").read_text())
    assert "14 runs, all finished. Sigmoid and softmax loss; batch sizes 32 to 2k." in text
    assert "repro report mine.csv --out 'a page' --metric wds_shapes_objects/acc1" in text
    assert str(tmp_path) not in text + (tmp_path / "a page/report.md").read_text()


def test_a_broken_imported_table_is_left_out_with_a_warning(runs, caplog):
    (runs.parent / "results/imported").mkdir(parents=True)
    (runs.parent / "results/imported/theirs.csv").write_text("loss,batchsize\nsigmoid,64\n")

    assert repro("report", "other").exit_code == 0
    assert "theirs.csv: left out of the report: no column 'batch_size'" in caplog.text


def test_a_scale_that_is_no_name_leads_to_no_other_folder(runs):
    sweep_table((64,), scale="../x").to_csv("one.csv", index=False)
    sweep_table((128,), scale="../x").to_csv("two.csv", index=False)

    assert "Open reports/---x/index.html" in repro("report", "one.csv", "two.csv").output


def test_a_broken_benchmark_is_left_out_with_a_warning(runs, caplog):
    (runs.parent / "results/bench").mkdir(parents=True)
    (runs.parent / "results/bench/loss.csv").write_bytes(b"\xff\xfe\x00")

    assert repro("report", "other").exit_code == 0
    assert "loss.csv: left out of the report" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch-sise"], "the nearest is 'batch-size'"),
        (["--runs", "nowhere"], "make some with: repro sweep batch-size"),
        (["--metric", "shapes_objects/acc1"], "the nearest is 'wds_shapes_objects/acc1'"),
        (["nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(runs, arguments, message):
    result = repro("report", *arguments)

    assert result.exit_code == 2
    assert message in result.output
