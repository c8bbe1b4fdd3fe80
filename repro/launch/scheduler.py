"""SLURM's own commands, called as they are: one squeue however many jobs, scancel, scontrol.

They read options from their environment too: a person's SBATCH_PARTITION, or all that describes the job in which a
launch is typed. What a launch asks for is in the cluster's profile alone, so they are called without these variables.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from repro.config.errors import InputError

ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "REVOKED"),
)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
PATIENCE_SECONDS = 60
IDS_A_CALL = 1000
"""Job ids named in one scancel: a command line has its limits."""
OPTIONS_OF_SLURM = re.compile(r"(_?SLURMD?|SBATCH|SRUN|SALLOC|SQUEUE|SCANCEL|SCONTROL|SACCT)_")
"""Variables that the commands take for options, and those that describe the job around this process."""
WAY_TO_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_SOCKET")
"""Variables by which all commands alike find the cluster, and are let in."""
COLUMNS = {"JobArrayID": 40, "Name": 80, "ArrayTaskID": 20, "State": 20, "Reason": 80, "exit_code": 20}
"""Columns of squeue, and how many characters of each."""


class SchedulerError(InputError):
    """SLURM did not answer, or said no. What is queued is then not known, so nothing may be submitted."""


@dataclass(frozen=True)
class ScheduledJob:
    """One job, or one task of an array: id is '123' or '123_4', task 0 where there is no array."""

    id: str
    name: str
    task: int
    state: str
    reason: str
    exit_code: int


def queue(names: Iterable[str]) -> list[ScheduledJob]:
    """All jobs of these names that the controller remembers, ended ones for some minutes too. Raises SchedulerError."""
    names = sorted(set(names))
    if not names:
        return []
    columns = ",".join(f"{name}:{width}" for name, width in COLUMNS.items())
    lines = call(
        ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", f"--Format={columns}"]
    )
    return [scheduled_job(line) for line in lines.splitlines()]


def scheduled_job(line: str) -> ScheduledJob:
    """One line of squeue's, of COLUMNS."""
    values = []
    for width in COLUMNS.values():
        values.append(line[:width].strip())
        line = line[width:]
    job_id, name, task, state, reason, exit_code = values
    return ScheduledJob(job_id, name, int(task) if task.isdigit() else 0, state, reason, _exit_code(exit_code))


def _exit_code(text: str) -> int:
    """Exit code of a job: '32512', a status as wait returns it, or '127:0'; less than 0 where a signal ended it."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if found is None:
        return 0
    code, number = (int(found[1]), int(found[2])) if found[2] else (int(found[1]) >> 8, int(found[1]) & 0x7F)
    return code or -number


def preempted(job_id: str) -> bool:
    """Whether a running job is in the grace time before it must make room for another. Raises SchedulerError."""
    found = re.search(r"PreemptTime=(\S+)", call(["scontrol", "show", "job", job_id]))
    return found is not None and found[1] != "None"


def cancel(job_ids: Sequence[str]) -> None:
    """Raises SchedulerError."""
    for first in range(0, len(job_ids), IDS_A_CALL):
        call(["scancel", *job_ids[first : first + IDS_A_CALL]])


def largest_array() -> int:
    """The most jobs that one array may have here: MaxArraySize, whose indices count from 0. Raises SchedulerError."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]), re.MULTILINE)
    if found is None:
        raise SchedulerError("scontrol show config names no MaxArraySize")
    return int(found[1])


def environment() -> dict[str, str]:
    """This process's environment but for what SLURM's commands would take for options."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in WAY_TO_THE_CLUSTER or not OPTIONS_OF_SLURM.match(name)
    }


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Within it this process has no other environment than SLURM's commands get: for those that submitit calls."""
    before, wanted = dict(os.environ), environment()
    for name in before.keys() - wanted.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ |= before


def options_left_out() -> list[str]:
    """Variables that sbatch would have taken for options, and a person may have meant."""
    return sorted(name for name in os.environ if name.startswith("SBATCH_"))


def missing(command: str) -> SchedulerError:
    return SchedulerError(
        f"{command} is not on this machine: SLURM's commands are needed; without SLURM use --executor local"
    )


def call(command: list[str]) -> str:
    """Return what one of SLURM's commands prints. Raises SchedulerError with what it complained of."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, env=environment()
        )
    except FileNotFoundError:
        raise missing(command[0]) from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]} did not answer within {PATIENCE_SECONDS} s; try again") from None
    if done.returncode:
        raise SchedulerError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
