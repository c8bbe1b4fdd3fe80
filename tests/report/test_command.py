"""`repro report` on run directories written as runs write them."""

import os

import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.rundir import RunDirectory, write_json
from repro.sweep import Overrides, expand, load_sweep


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two sweeps with two runs each, batch-size the newer; commands start in the folder that holds runs/."""
    monkeypatch.chdir(tmp_path)
    for age, sweep in enumerate(("batch-size", "older")):
        for spec in expand(load_sweep("batch-size"), "laptop", Overrides({"batch_size": [64]}, {})):
            directory = RunDirectory(tmp_path / "runs" / sweep / spec.run_id)
            directory.write_spec(spec)
            write_json(directory.provenance_file, {"git_commit": "0123456789abcdef", "torch_version": "2.9.0"})
            metrics = {"wds_shapes_objects/acc1": 0.5}
            speed = {"examples_per_second": 1000.0, "peak_memory_bytes": 2**29}
            directory.write_result({"status": "finished", "reason": "", "metrics": metrics, **speed})
            for file in (directory.spec_file, directory.result_file):
                os.utime(file, (10**9 - age, 10**9 - age))
    return tmp_path / "runs"


def repro(*arguments):
    return CliRunner().invoke(main, arguments)


def test_the_most_recent_sweep_is_reported(runs):
    result = repro("report")

    assert result.exit_code == 0, result.output
    assert "2 of 2 runs finished" in result.output
    assert "Open reports/batch-size/index.html" in result.output
    assert (runs.parent / "reports/batch-size/index.html").exists()


def test_a_sweep_a_folder_and_a_metric_can_be_named(runs, tmp_path):
    result = repro("report", "older", "--out", "page", "--metric", "wds_shapes_objects/acc1")

    assert result.exit_code == 0, result.output
    text = (tmp_path / "page/index.html").read_text()
    assert "repro report older --out page --metric wds_shapes_objects/acc1" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch-sise"], "the nearest is 'batch-size'"),
        (["--runs", "nowhere"], "make some with: repro sweep batch-size"),
        (["--metric", "shapes_objects/acc1"], "the nearest is 'wds_shapes_objects/acc1'"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(runs, arguments, message):
    result = repro("report", *arguments)

    assert result.exit_code == 2
    assert message in result.output
