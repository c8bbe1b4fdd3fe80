"""Ten kills at random moments, of a random rank or of all, and the run ends with the bits of an undisturbed one."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import torch

from repro import results
from repro.launch import JobSettings, launch
from repro.runs import ownership
from repro.runs.directory import RunDirectory, run_directories
from tests.launch.conftest import kill, processes_of

KILLS = 10
STEPS = 400
SETTINGS = JobSettings(ranks=2, checkpoint_seconds=0.2)


class Killer:
    """Kills one rank, or both, at a moment of its own after the run's attempt began; called to show progress.

    On a fast machine the moment comes earlier, so that the run is not done before its last kill.
    """

    def __init__(self, directory: RunDirectory, chance: random.Random):
        self.directory, self.number = directory, len(ownership.all_attempts(directory.attempts)) + 1
        self.victims = chance.choice([[0], [1], [0, 1]])
        self.patience = chance.uniform(0.3, 1.3)  # from before the first step till after a few checkpoints
        self.most_steps = STEPS * self.number // (KILLS + 2)
        self.began_at: float | None = None

    def __call__(self) -> None:
        attempt = ownership.latest(self.directory.attempts)
        if attempt is None or attempt.number != self.number:
            return
        if self.began_at is None:
            self.began_at = time.monotonic()
        late = (self.directory.last_logged() or {}).get("step", 0) >= self.most_steps
        if late or time.monotonic() - self.began_at > self.patience:
            ranks = processes_of(self.directory)
            for victim in self.victims:
                if victim in ranks:
                    kill(ranks[victim])


def assert_same(run: RunDirectory, undisturbed: RunDirectory) -> None:
    """The same bits of weights, and the same log: no line is lost or doubled."""
    weights, wanted = (torch.load(each.final, weights_only=True) for each in (run, undisturbed))
    assert all(torch.equal(value, weights[name]) for name, value in wanted.items())
    timed = ("time", "examples_per_second", "data_wait_share", "peak_memory_bytes")
    logs = [
        [{k: v for k, v in line.items() if k not in timed} for line in each.read_log()] for each in (run, undisturbed)
    ]
    assert logs[0] == logs[1]


def test_killed_ten_times_a_run_on_two_ranks_ends_with_the_bits_of_an_undisturbed_one(cell, tmp_path):
    chance = random.Random(4)
    killed = cell(examples_seen=STEPS * 64)
    undisturbed = type(killed)(killed.spec, RunDirectory(tmp_path / "undisturbed" / "mine" / killed.spec.run_id))
    launch([undisturbed], SETTINGS)
    for _ in range(KILLS):
        launch([killed], SETTINGS, retry=True, watch=Killer(killed.directory, chance))
    deaths = [attempt for attempt in ownership.all_attempts(killed.directory.attempts) if attempt.outcome != "finished"]
    assert len(deaths) == KILLS
    launch([killed], SETTINGS, retry=True)
    assert killed.state() == "finished"
    assert_same(killed.directory, undisturbed.directory)
    assert results.load(tmp_path / "runs")["status"].tolist() == ["finished"]


def test_killed_with_its_launch_a_run_is_taken_up_by_the_command_typed_again(tmp_path, world, typed):
    arguments = ["sweep", "batch-size", "--set", "data=shapes:2048", "--loss", "sigmoid", "--batch-size", "64"]
    arguments += ["--examples", "12k", "--set", "evals=[]", "--ranks", "2", "--checkpoint-seconds", "0.2"]
    command = [sys.executable, "-m", "repro", *arguments]
    done = typed(*arguments, "--runs", "undisturbed")
    assert done.exit_code == 0, done.output
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/checkpoints/step-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)  # some way beyond the checkpoint
    for member in session_of(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    process.wait()
    (run,) = run_directories(tmp_path / "runs")
    while run.status() == "running" and time.monotonic() < deadline:
        time.sleep(0.1)  # the kernel ends killed processes in its own time
    assert run.status() == "interrupted"
    assert "its process exited without recording a result" in typed("status").output
    done = typed(*arguments)
    assert done.exit_code == 0, done.output
    assert_same(run, run_directories(tmp_path / "undisturbed")[0])


def session_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(pid)], capture_output=True, text=True, check=True)
    return [int(member) for member in listed.stdout.split()]
