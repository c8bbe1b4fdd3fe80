"""Launching twice is launching once; what breaks is a result; Ctrl-C loses nothing. Real processes throughout."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from repro import results
from repro.launch import JobSettings, launch
from repro.runs import ownership
from repro.runs.directory import RunDirectory

REPRO = [sys.executable, "-m", "repro"]


def small_sweep(*more):
    fixed = ["--set", "data=shapes:2048", "--examples", "512", "--batch-size", "64,128"]
    return ["sweep", "batch-size", "--loss", "sigmoid", "softmax", *fixed, *more]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, world):
    """A folder in which the small sweep was run once, and what it printed."""
    folder = tmp_path_factory.mktemp("swept")
    return folder, subprocess.run([*REPRO, *small_sweep()], cwd=folder, capture_output=True, text=True)


def test_a_sweep_runs_every_cell_and_says_what_to_type_next(swept):
    folder, done = swept
    assert done.returncode == 0, done.stderr
    assert "[4/4]" in done.stdout
    assert done.stdout.strip().endswith("Next: repro report batch-size")
    table = results.load(folder / "runs", "batch-size")
    assert table["status"].tolist() == ["finished"] * 4
    assert table["wds_shapes_objects/acc1"].notna().all()
    assert table["wds_shapes_retrieval/image_retrieval_recall@1"].notna().all()


def test_every_run_carries_where_it_came_from(swept):
    row = results.load(swept[0] / "runs", "batch-size").iloc[0]
    for column in ("git_commit", "torch_version", "clip_benchmark_version", "machine", "spec_hash", "data_fingerprint"):
        assert isinstance(row[column], str), column
    assert row["command"].startswith("repro sweep batch-size")


def test_typed_again_nothing_is_run_twice(swept, typed):
    folder, _ = swept
    before = {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*/*") if file.is_file()}
    again = typed(*small_sweep(), folder=folder)
    assert again.exit_code == 0
    assert "4 of 4 runs are done or under way and not run again." in again.output
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_grown_sweep_runs_only_what_is_missing(swept, typed):
    folder, _ = swept
    grown = typed(*small_sweep("--batch-size", "256"), folder=folder)
    assert grown.exit_code == 0, grown.output
    assert "4 of 6 runs are done" in grown.output
    assert "2 runs to do" in grown.output


def test_a_new_evaluation_is_added_without_training_again(swept, world, typed):
    folder, _ = swept
    one = ["sweep", "batch-size", "--loss", "sigmoid", "--batch-size", "64", "--set", "data=shapes:2048"]
    weights = next(folder.glob("runs/batch-size/*sigmoid-bs64-*/checkpoints/final.pt"))
    trained_at = weights.stat().st_mtime_ns
    shutil.copytree(world.evals[0], folder / "wds_more")
    more = typed(*one, "--examples", "512", "--eval", "shapes", "wds_more", folder=folder)
    assert more.exit_code == 0, more.output
    assert weights.stat().st_mtime_ns == trained_at
    row = results.row(RunDirectory(weights.parents[1]))
    assert row["wds_more/acc1"] == row["wds_shapes_objects/acc1"]


def test_status_collect_and_eval_read_the_same_runs(swept, typed):
    folder, _ = swept
    assert "finished" in typed("status", folder=folder).output
    assert typed("collect", folder=folder).exit_code == 0
    assert (folder / "results" / "batch-size.csv").exists()
    run = next(folder.glob("runs/batch-size/*softmax-bs64-*"))
    before = (run / "evals" / "wds_shapes_objects.json").read_text()
    evaluated = typed("eval", run.name, folder=folder)
    assert evaluated.exit_code == 0, evaluated.output
    assert "wds_shapes_objects/acc1" in evaluated.output
    assert (run / "evals" / "wds_shapes_objects.json").read_text() == before


def test_run_takes_a_spec_and_goes_on_under_torchrun(swept, tmp_path, typed):
    folder, _ = swept
    spec = next(folder.glob("runs/batch-size/*softmax-bs64-*/spec.json"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", *REPRO]
    assert "is finished; nothing to do" in typed("run", spec, folder=folder).output
    (tmp_path / "mine.json").write_text(spec.read_text())
    done = subprocess.run([*torchrun, "run", "mine.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = results.load(tmp_path / "runs", "single").iloc[0]
    assert (row["status"], row["ranks"]) == ("finished", 2)
    one = results.load(folder / "runs", "batch-size").query("loss == 'softmax' and batch_size == 64").iloc[0]
    assert row["final_loss"] == pytest.approx(one["final_loss"], rel=1e-2)


def test_ctrl_c_leaves_a_checkpoint_and_typed_again_it_goes_on(tmp_path, world, typed):
    arguments = ["sweep", "batch-size", "--set", "data=shapes:2048", "--loss", "sigmoid"]
    arguments += ["--batch-size", "64,128", "--examples", "8k", "--set", "evals=[]"]
    process = subprocess.Popen(
        [*REPRO, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Typed again, the command goes on." in output
    stopped = results.load(tmp_path / "runs", "batch-size")
    assert "interrupted" in stopped["status"].tolist()
    assert "running" not in stopped["status"].tolist()
    assert list(tmp_path.glob("runs/*/*/checkpoints/step-*.pt"))
    again = typed(*arguments)
    assert again.exit_code == 0, again.output
    assert results.load(tmp_path / "runs", "batch-size")["status"].tolist() == ["finished"] * 2


def test_a_run_that_fails_is_a_result_and_the_others_go_on(cell):
    broken, sound = cell(init_logit_scale=2000.0, init_logit_bias=0.0), cell(examples_seen=128)
    launch([broken, sound], JobSettings(), jobs=2)
    assert broken.state() == "diverged"
    assert "logit_scale holds NaN or infinite values at step 1" in broken.directory.read_result()["reason"]
    assert sound.state() == "finished"


def test_a_failed_run_is_run_again_only_with_retry(cell):
    failed = cell(examples_seen=128)
    failed.directory.write_spec(failed.spec)
    failed.directory.write_result({"status": "failed", "reason": "disk full"})
    launch([failed], JobSettings())
    assert failed.state() == "failed"
    launch([failed], JobSettings(), retry=True)
    assert failed.state() == "finished"


def test_a_killed_job_is_recorded_as_killed(cell):
    victim = cell(examples_seen=60_000)

    def kill_when_it_trains():
        if victim.directory.log_file.exists():
            with contextlib.suppress(ProcessLookupError):  # asked again before the launcher has seen it die
                os.kill(ownership.latest(victim.directory.attempts).pid, signal.SIGKILL)

    launch([victim], JobSettings(), watch=kill_when_it_trains)
    assert victim.state() == "killed"
    assert "by SIGKILL" in victim.directory.read_result()["reason"]


def test_a_corrupt_run_is_left_alone_and_named(cell):
    corrupt = cell()
    corrupt.directory.write_spec(corrupt.spec)
    corrupt.directory.result_file.write_text("{")
    launch([corrupt], JobSettings())
    assert corrupt.state() == "corrupt"
    assert RunDirectory(corrupt.directory.path).result_file.read_text() == "{"
