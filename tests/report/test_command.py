"""`repro report` on run directories written as runs write them, and on tables."""

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.report import figures
from repro.rundir import RunDirectory, write_json
from repro.sweep import Overrides, expand, load_sweep
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
