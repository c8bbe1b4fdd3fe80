"""What srun says of its tasks becomes a status and a reason. The lines are SLURM 22.05's own."""

import os
import signal
from pathlib import Path

import pytest

from repro.launch import scheduler
from repro.launch.job import first_cause
from repro.launch.slurm import TASK_ENDED, exits_of, no_use_starting
from repro.runs.ownership import Attempt


@pytest.mark.parametrize(
    ("line", "ranks", "code", "text"),
    [
        ("srun: error: n2: task 1: Killed", [1], -signal.SIGKILL, "rank 1 of 4 on n2 was killed by SIGKILL"),
        ("srun: error: n2: task 3: Segmentation fault (core dumped)", [3], -signal.SIGSEGV, "killed by SIGSEGV"),
        ("srun: error: n2: tasks 2-3: Terminated", [2, 3], -signal.SIGTERM, "killed by SIGTERM"),
        ("srun: error: n1: tasks 0,2-3: Exited with exit code 75", [0, 2, 3], 75, "ended with exit code 75"),
        ("srun: error: n1: task 0: Out Of Memory", [0], -signal.SIGKILL, "over the job's memory limit"),
        ("srun: error: n1: task 0: Something new", [0], 1, "rank 0 of 4 on n1: Something new"),
        (
            "slurmstepd-n2: error: StepId=6.0 exceeded memory limit (323436544 > 209715200), being killed",
            [0],
            -signal.SIGKILL,
            "the ranks on n2 were over the job's memory limit: 308 MiB of 200 MiB",
        ),
        (
            "slurmstepd: error: StepId=6_1.0 exceeded memory limit (323436544 > 209715200), being killed",
            [0],
            -signal.SIGKILL,
            "the ranks on one node were over the job's memory limit: 308 MiB of 200 MiB",
        ),
    ],
)
def test_a_line_of_srun_names_ranks_their_node_and_why(line, ranks, code, text):
    found = exits_of(line, 4)
    assert [one.rank for one in found] == ranks
    assert {one.code for one in found} == {code}
    assert text in found[0].text
    assert found[0].out_of_memory == ("memory" in line.lower())


@pytest.mark.parametrize(
    "line",
    [
        "srun: launch/slurm: _step_signal: Terminating StepId=2.0",
        "srun: error: Node failure on n2",
        "slurmstepd-n1: error: *** STEP 2.0 ON n1 CANCELLED AT 2026-11-24T06:15:15 ***",
        "slurmstepd-n1: error: Exceeded job memory limit",
    ],
)
def test_other_lines_name_none(line):
    assert TASK_ENDED.match(line) is None and exits_of(line, 2) == []


def test_the_one_that_was_killed_counts_and_not_those_that_srun_then_ended():
    lines = [
        "srun: error: n1: task 0: Terminated",
        "srun: error: n2: task 1: Killed",
        "srun: error: n1: task 2: Killed",
    ]
    failed = [one for line in lines for one in exits_of(line, 3)]
    assert first_cause(failed)[1].startswith("rank 1 of 3 on n2 was killed by SIGKILL")


def test_slurm_is_asked_without_the_options_of_an_environment_but_where_the_cluster_is_asked_for(monkeypatch):
    around = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURMD_NODENAME", "SBATCH_QOS", "SQUEUE_USERS", "SALLOC_ACCOUNT")
    kept = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "MASTER_ADDR", "SLURMISH")
    for name in (*around, *kept):
        monkeypatch.setenv(name, "x")
    before = dict(os.environ)
    assert scheduler.environment() == {name: value for name, value in before.items() if name not in around}
    with scheduler.own_environment():
        assert dict(os.environ) == scheduler.environment()
        assert not set(around) & set(os.environ) and set(kept) <= set(os.environ)
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("said", "code"), [("0", 0), ("32512", 127), ("9", -9), ("127:0", 127), ("0:15", -15), ("N/A", 0)]
)
def test_the_exit_code_of_a_job_is_read_as_older_and_newer_versions_write_it(said, code):
    values = {"JobArrayID": "12_3", "Name": "repro-a-0", "ArrayTaskID": "3", "State": "FAILED", "Reason": "None"}
    line = "".join(f"{(values | {'exit_code': said})[name]:<{width}}" for name, width in scheduler.COLUMNS.items())
    job = scheduler.scheduled_job(line)
    assert (job.id, job.name, job.task, job.state, job.exit_code) == ("12_3", "repro-a-0", 3, "FAILED", code)


def attempt(outcome: str, examples_seen: int = 0) -> Attempt:
    return Attempt(Path("0001.json"), "n1", 1, "", "7_1", 2, "", outcome, examples_seen)


def test_a_job_that_dies_each_time_or_never_gets_further_is_given_up():
    assert no_use_starting([attempt(""), attempt("died: rank 1")], restarts=2) == ""
    assert (
        no_use_starting([attempt(""), attempt("died: rank 1")], restarts=1)
        == "2 starts did not end in order; the last: died: rank 1"
    )
    further = [attempt("interrupted", seen) for seen in (0, 64, 128, 192, 256)]
    assert no_use_starting(further, restarts=0) == ""
    assert no_use_starting([attempt("interrupted", 64)] * 4, restarts=0) == ""
    assert no_use_starting([attempt("interrupted", 64)] * 5, restarts=0).startswith(
        "5 starts in a row were told to stop"
    )
