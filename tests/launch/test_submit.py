"""Submitting grids: few calls of SLURM's commands, and no run twice, whatever is typed again, killed or silent.

The commands of SLURM are fakes (fakes.py), so that they can fail at a chosen moment; the launches are real.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.config.errors import InputError
from repro.launch import records
from repro.launch.records import launches
from repro.runs import ownership
from repro.runs.directory import RunDirectory, run_directories
from tests.launch.fakes import FakeSlurm

GRID = ["batch-size", "--loss", "sigmoid", "softmax", "--batch-size", "63", "64", "256", "--set", "data=shapes:2048"]
SLURM = ["--examples", "512", "--executor", "slurm", "--cluster", "nodes.yaml", "--local-batch", "64"]
RUNS = Path("runs/batch-size")
LAYOUTS = 3
"""Of 63, 64 and 256 examples at 64 a rank, on nodes of two ranks: one rank, one node, two nodes."""


@pytest.fixture
def slurm(tmp_path, monkeypatch, world):
    """Fakes on the path, in a folder of one's own that has a cluster's profile."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "nodes.yaml").write_text("ranks_per_node: 2\ntime: 10m\ngrace: 1m\n")
    slurm = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", slurm.environment["PATH"])
    return slurm


def sweep(seeds: int) -> list[str]:
    return ["sweep", *GRID, "--seed", *map(str, range(seeds)), *SLURM]


def repro(*arguments: str):
    return CliRunner().invoke(main, list(arguments))


def start_repro(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "repro", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_300_runs_of_three_layouts_are_three_calls_of_sbatch(slurm):
    done = repro(*sweep(seeds=50))
    assert done.exit_code == 0, done.output
    assert slurm.calls("sbatch") == LAYOUTS
    assert slurm.queued_tasks() == 300
    assert slurm.calls("squeue") == 0  # nothing was launched before, so there is nothing to ask for


def test_arrays_are_no_larger_than_the_profile_says_nor_than_the_cluster_takes(slurm):
    for profile, cluster in ((3, 9), (9, 3)):
        slurm.takes_arrays_of(cluster)
        planned = repro(*sweep(seeds=2), "--job", f"max_array_size={profile}", "--dry-run")
        assert f"12 jobs in {2 * LAYOUTS} arrays" in planned.output  # of 3 and 1 runs
    assert repro(*sweep(seeds=2)).exit_code == 0
    assert slurm.calls("sbatch") == 2 * LAYOUTS
    assert slurm.calls("scontrol") == 3, "once a command"


def test_without_slurm_a_plan_has_arrays_as_the_profile_says(slurm):
    slurm.fail("scontrol", "scontrol: error: Unable to contact slurm controller")
    assert f"12 jobs in {LAYOUTS} arrays" in repro(*sweep(seeds=2), "--dry-run").output


def test_what_is_typed_next_names_the_folder_of_runs(slurm):
    done = repro(*sweep(seeds=1), "--runs", "their runs")
    assert "Next: repro status batch-size --runs 'their runs' --watch" in done.output


def test_a_time_limit_that_leaves_a_start_no_time_is_warned_of_before_and_when_it_is_launched(slurm):
    short = (*sweep(seeds=1), "--job", "time=2m")
    for done in (repro(*short, "--dry-run"), repro(*short)):
        assert done.exit_code == 0
        assert "time 2 min less grace 1 min leaves a start 1 min" in done.output


def test_status_asks_the_scheduler_once_however_many_runs_and_launches(slurm):
    for seeds in (1, 2, 3):
        assert repro(*sweep(seeds)).exit_code == 0
    before = slurm.calls("squeue")
    shown = repro("status", "batch-size")
    assert "batch-size: 18 queued" in shown.output
    assert len(launches(RUNS)) == 3
    assert slurm.calls("squeue") == before + 1


def test_the_same_command_again_submits_nothing_while_the_jobs_are_queued(slurm):
    repro(*sweep(seeds=4))
    again = repro(*sweep(seeds=4))
    assert again.exit_code == 0
    assert "24 of 24 runs are done or under way and not run again" in again.output
    assert slurm.calls("sbatch") == LAYOUTS


def test_a_grown_sweep_submits_only_what_is_missing(slurm):
    repro(*sweep(seeds=1))
    repro(*sweep(seeds=3))
    assert slurm.queued_tasks() == 18


def test_nothing_is_submitted_while_it_is_not_known_what_is_queued(slurm):
    repro(*sweep(seeds=2))
    slurm.fail("squeue", "squeue: error: Unable to contact slurm controller")
    again = repro(*sweep(seeds=4))
    assert again.exit_code == 2
    assert "squeue failed: squeue: error: Unable to contact slurm controller" in again.output
    assert slurm.calls("sbatch") == LAYOUTS
    shown = repro("status", "batch-size")
    assert shown.exit_code == 0
    assert "what is queued is not known: squeue failed" in shown.output.replace("\n", " ")


def test_jobs_that_sbatch_refuses_are_told_and_typed_again_they_are_submitted(slurm):
    slurm.fail("sbatch", "sbatch: error: Batch job submission failed: Invalid account")
    refused = repro(*sweep(seeds=2))
    assert refused.exit_code == 2
    assert "Invalid account\nnothing was submitted; 12 runs are missing" in refused.output
    (slurm.folder / "sbatch-fails").unlink()
    assert repro(*sweep(seeds=2)).exit_code == 0
    assert slurm.queued_tasks() == 12


def test_jobs_of_a_launch_that_was_killed_before_it_knew_their_number_are_found_by_name(slurm):
    slurm.kill_whoever_calls_sbatch()
    killed = start_repro(*sweep(seeds=4))
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(slurm.queued()) == 1  # of three arrays
    (launch,) = launches(RUNS)
    assert [group.job_id for group in launch.groups] == [""] * LAYOUTS
    slurm.kill_whoever_calls_sbatch(False)
    age(RUNS / ".lock")
    again = repro(*sweep(seeds=4))
    assert again.exit_code == 0, again.output
    assert "8 of 24 runs are done or under way" in again.output
    assert slurm.queued_tasks() == 24


def test_two_commands_at_once_submit_each_run_once(slurm):
    slurm.slow_down_sbatch(0.5)
    both = [start_repro(*sweep(seeds=4)) for _ in range(2)]
    printed = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], printed
    assert slurm.calls("sbatch") == LAYOUTS
    assert slurm.queued_tasks() == 24


HOLDER = """
import sys, time
from pathlib import Path
from repro.launch import records
records.LOCK_LIFETIME_SECONDS = 1
with records.submission_lock(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_renewed_while_its_holder_lives_and_broken_after_its_lifetime(tmp_path, monkeypatch):
    lock = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    ends, until = lock.stat().st_mtime, time.monotonic() + 60
    while lock.stat().st_mtime < ends + 3:  # the time of its end, three of its lifetimes later
        assert time.monotonic() < until
        time.sleep(0.1)
    holder.kill()
    holder.wait()
    monkeypatch.setattr(records, "LOCK_PATIENCE_SECONDS", 1)
    said: list[str] = []
    with pytest.raises(InputError, match="remove it if that is wrong"), records.submission_lock(tmp_path, said.append):
        pass
    assert said == [f"another launch of this sweep is being submitted; waiting ({lock})"]
    age(lock)
    with records.submission_lock(tmp_path, print):
        assert lock.exists()
    assert not list(tmp_path.iterdir())


def test_a_launch_that_has_lost_its_lock_submits_nothing_more(tmp_path):
    with records.submission_lock(tmp_path, print) as make_sure:
        make_sure()
        age(tmp_path / ".lock")  # as if this process had been suspended
        with (
            records.submission_lock(tmp_path, print),
            pytest.raises(InputError, match="another one has taken its lock"),
        ):
            make_sure()


def age(lock: Path) -> None:
    """As if the lock had not been renewed for a minute."""
    os.utime(lock, (time.time() - 60, time.time() - 60))


def orphaned(directory: RunDirectory, job_id: str) -> None:
    """As a job leaves it that ended without recording a result: an attempt that still seems to live, and a log."""
    attempt = ownership.claim(directory.attempts, job_id)
    file = json.loads(attempt.file.read_text())
    attempt.file.write_text(json.dumps(file | {"host": "elsewhere"}))
    directory.log({"step": 1, "examples_seen": 64, "loss": 5.0})


def test_a_run_whose_job_is_gone_is_said_to_be_and_taken_up_again(slurm):
    repro(*sweep(seeds=1))
    run = run_directories(Path("runs"))[0]
    orphaned(run, "14_0")
    for job in (slurm.folder / "queue").iterdir():
        job.unlink()
    said = " ".join(repro("status").output.split())
    assert f"its job 14_0 ended without recording a result; see repro logs {run.path.name}" in said
    assert "softmax 64 s0: interrupted: its job 13_1 ended before it started the run" in said
    assert "6 interrupted" in said
    assert repro(*sweep(seeds=1)).exit_code == 0
    assert slurm.queued_tasks() == 6


def test_retry_submits_the_failed_ones_where_and_how_they_were_launched(slurm):
    repro(*sweep(seeds=1), "--job", "requeue=7")
    for job in (slurm.folder / "queue").iterdir():
        job.unlink()
    for run in run_directories(Path("runs")):
        run.write_result({"status": "diverged", "reason": "the loss is nan"})
    assert "6 of 6 runs are done" in repro(*sweep(seeds=1)).output
    done = repro("retry", run.path.name)
    assert done.exit_code == 0, done.output
    assert slurm.queued_tasks() == 1
    assert launches(RUNS)[-1].settings["job"] == ["requeue=7"]
    assert "5 diverged, 1 queued" in repro("status").output
    assert repro("retry").exit_code == 0
    assert slurm.queued_tasks() == 6
