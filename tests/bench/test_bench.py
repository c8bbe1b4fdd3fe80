"""The project's own benchmarks (python -m benchmarks) run what a run runs, in turn and in fresh processes."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from benchmarks import grid_runs
from benchmarks.__main__ import main
from benchmarks.fresh import interleave, summary
from benchmarks.trainers import logged_rate, open_clip_rate
from repro import results
from repro.config.errors import InputError
from repro.models import build


def test_every_implementation_is_measured_once_a_round():
    calls = []
    measures = {name: lambda name=name: calls.append(name) or {"seconds": 1.0} for name in ("a", "b")}
    table = interleave(measures, repeats=2)
    assert calls == ["a", "b", "a", "b"]
    assert table["repeat"].tolist() == [0, 0, 1, 1]


def test_a_summary_is_the_median_its_spread_and_the_ratio_to_the_reference():
    table = pd.DataFrame({"implementation": ["a", "b"] * 3, "rate": [1.0, 4.0, 2.0, 8.0, 3.0, 6.0]})
    shown = summary(table, "rate", "a").set_index("implementation")
    assert shown.loc["b"].tolist() == [6.0, 4.0, 8.0, 3.0]


def test_bench_train_names_a_peer_that_cannot_be_run(world, tmp_path):
    options = ["--data", world.train_pattern, "--examples", "128", "--batch-size", "64", "--workers", "0"]
    options += ["--repeats", "1", "--peer-python", "/no/such/python", "--out", str(tmp_path / "x.csv")]
    done = CliRunner().invoke(main, ["train", *options])
    assert done.exit_code == 2
    assert "--peer-python /no/such/python" in done.output


def test_bench_train_refuses_more_examples_than_the_shards_hold(world):
    done = CliRunner().invoke(main, ["train", "--data", world.train_pattern, "--examples", "1M"])
    assert done.exit_code == 2
    assert "the shards hold 2k only" in done.output


def test_bench_memory_measures_a_run(tmp_path):
    out = tmp_path / "memory.csv"
    done = CliRunner().invoke(main, ["memory", "--batch-size", "2k", "--data", "shapes:2048", "--out", str(out)])
    assert done.exit_code == 0, done.output
    row = pd.read_csv(out).iloc[0]
    assert row["peak_memory_bytes"] > 2e8
    assert row["ratio"] == 1


def test_bench_checkpoint_says_when_a_run_is_too_short_for_a_checkpoint(tmp_path):
    options = ["--examples", "128", "--batch-size", "64", "--every", "60", "--data", "shapes:2048", "--repeats", "1"]
    done = CliRunner().invoke(main, ["checkpoint", *options, "--out", str(tmp_path / "checkpoint.csv")])
    assert done.exit_code == 2
    assert "use more --examples, or fewer --every seconds" in done.output


def test_open_clips_rate_is_the_mean_over_all_steps_after_its_first_line():
    log = """
2026-11-23,13:00:00 | INFO | Train Epoch: 0 [  256/16384 (2%)] Data (t): 1.203 Batch (t): 1.501, 170.5/s, 170.5/s/gpu LR: 0.0001
2026-11-23,13:00:03 | INFO | Train Epoch: 0 [ 2304/16384 (14%)] Data (t): 0.003 Batch (t): 0.321, 797.1/s, 797.1/s/gpu LR: 0.0009
"""  # noqa: E501
    assert logged_rate(log, batch_size=256) == pytest.approx(256 / 0.321)
    assert logged_rate("", batch_size=256) is None


def test_a_peer_that_is_no_open_clip_trainer_is_named(world, tmp_path):
    with pytest.raises(InputError, match="open_clip's trainer failed"):
        open_clip_rate(Path("/bin/false"), tmp_path, world.train_pattern, 64, 128, 1, 0, tmp_path)


def test_bench_grid_times_whole_commands_over_made_runs(world, tmp_path):
    out = tmp_path / "grid.csv"
    options = ["--runs", "20", "--collected", "20", "--repeats", "1", "--out", str(out)]
    done = CliRunner().invoke(main, ["grid", *options])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert {"dry run", "status", "collect", "typed again, all done"} <= set(table["what"])
    assert (table["seconds"] > 0).all()
    refused = CliRunner().invoke(main, ["grid", "--runs", "15", "--out", str(out)])
    assert refused.exit_code == 2
    assert "15 runs: expected a multiple of 10" in refused.output


def test_a_made_grid_is_read_as_real_runs_are(world, tmp_path):
    grid_runs.make(tmp_path, 100)
    counts = results.load(tmp_path, "batch-size")["status"].value_counts()
    assert counts["finished"] == 80 and counts["corrupt"] == 1
    assert counts.sum() == 100


def test_bench_text_step_sets_a_siglit_step_beside_its_text_tower(world, tmp_path):
    """A folder as a run leaves it is the tower; both losses, one row a repeat."""
    build.export("laptop", tmp_path / "tower")
    torch.save(build.load(tmp_path / "tower").model.state_dict(), tmp_path / "tower" / "final.pt")
    options = [
        "--pretrained",
        tmp_path / "tower",
        "--data",
        "shapes:2048",
        "--threads",
        1,
        "--repeats",
        2,
        "--steps",
        2,
    ]
    out = tmp_path / "step.csv"
    command = ["text-step", *options, "--batch-size", 64, "--micro-batch", 32, "--out", out]
    done = CliRunner().invoke(main, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert table["loss"].tolist() == ["sigmoid"] * 2 + ["softmax"] * 2
    assert (table["ratio"] > 0).all()
    assert (table["ratio"] == table["tower_seconds"] / table["step_seconds"]).all()
