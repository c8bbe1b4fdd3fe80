"""Without SLURM the same words do the same: a launch that outlives its terminal, looked at, cancelled, taken up."""

import os
import signal
import subprocess
import sys
import time

import pytest

from repro.runs.directory import run_directories

ARGUMENTS = ["sweep", "batch-size", "--set", "data=shapes:2048", "--loss", "sigmoid", "softmax", "--batch-size", "64"]


@pytest.fixture
def types(tmp_path, world):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "repro", *arguments]
        environment = os.environ | {"COLUMNS": "160"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run


def wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_detached_sweep_is_looked_at_and_cancelled(types, tmp_path, world):
    rest = ["--examples", "60k", "--eval", world.evals[0], "--jobs", "1"]
    started = types(*ARGUMENTS, *rest, "--detach")
    assert "Detached as process" in started.stdout
    wait_until(lambda: list(tmp_path.glob("runs/*/*/log.jsonl")))
    status = types("status").stdout
    assert "1 running, 1 queued" in status or "1 queued, 1 running" in status
    assert "step 1  64 examples  loss" in types("logs", "sigmoid-bs64", "-n", "300").stdout
    assert "2 of 2 runs cancelled" in types("cancel").stdout
    wait_until(lambda: "2 cancelled" in types("status").stdout)


def test_a_cancelled_run_leaves_a_checkpoint_and_the_rest_goes_on(types, typed, tmp_path):
    rest = ["--examples", "6k", "--set", "evals=[]", "--jobs", "1"]
    types(*ARGUMENTS, *rest, "--detach")
    wait_until(lambda: list(tmp_path.glob("runs/*/*/log.jsonl")))
    (running,) = [file.parent.name for file in tmp_path.glob("runs/*/*/log.jsonl")]
    assert "1 of 1 runs cancelled" in types("cancel", running).stdout
    runs = {run.path.name: run for run in run_directories(tmp_path / "runs")}
    wait_until(lambda: runs[running].status() == "cancelled")
    assert list(runs[running].checkpoints.glob("step-*.pt"))
    (other,) = [run for name, run in runs.items() if name != running]
    wait_until(lambda: other.status() == "finished")
    assert typed(*ARGUMENTS, *rest).exit_code == 0
    assert runs[running].status() == "finished"


def test_a_launch_whose_terminal_closes_leaves_checkpoints(types, tmp_path, world):
    command = [sys.executable, "-m", "repro", *ARGUMENTS, "--examples", "60k", "--eval", world.evals[0]]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: list(tmp_path.glob("runs/*/*/log.jsonl")))
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=60) == 130
    assert "running" not in [run.status() for run in run_directories(tmp_path / "runs")]
    assert list(tmp_path.glob("runs/*/*/checkpoints/step-*.pt"))
