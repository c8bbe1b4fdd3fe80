"""SLURM's own commands, called as they are: one squeue however many jobs, scancel, scontrol."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from repro.errors import InputError

ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "REVOKED"),
)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
PATIENCE_SECONDS = 60
IDS_A_CALL = 1000
"""Job ids named in one scancel: a command line has its limits."""


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
    nodes: str


def queue(names: Iterable[str]) -> list[ScheduledJob]:
    """All jobs of these names that the controller remembers, ended ones for some minutes too. Raises SchedulerError."""
    names = sorted(set(names))
    if not names:
        return []
    columns = "%i|%j|%K|%T|%r|%N"
    lines = call(
        ["squeue", "--noheader", "--array", "--states=all", f"--name={','.join(names)}", f"--format={columns}"]
    )
    jobs = []
    for line in lines.splitlines():
        job_id, name, task, state, reason, nodes = line.strip().split("|")
        jobs.append(ScheduledJob(job_id, name, int(task) if task.isdigit() else 0, state, reason, nodes))
    return jobs


def preempted(job_id: str) -> bool:
    """Whether a running job is in the grace time before it must make room for another. Raises SchedulerError."""
    found = re.search(r"PreemptTime=(\S+)", call(["scontrol", "show", "job", job_id]))
    return found is not None and found[1] != "None"


def cancel(job_ids: Sequence[str]) -> None:
    """Raises SchedulerError."""
    for first in range(0, len(job_ids), IDS_A_CALL):
        call(["scancel", *job_ids[first : first + IDS_A_CALL]])


def largest_array() -> int:
    """The most tasks that one array may have here: MaxArraySize counts from 0. Raises SchedulerError."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call(["scontrol", "show", "config"]), re.MULTILINE)
    return int(found[1]) - 1 if found else 1000


def missing(command: str) -> SchedulerError:
    return SchedulerError(
        f"{command} is not on this machine: SLURM's commands are needed; without SLURM use --executor local"
    )


def call(command: list[str]) -> str:
    """What one of SLURM's commands prints. Raises SchedulerError with what it complained of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)  # noqa: S603
    except FileNotFoundError:
        raise missing(command[0]) from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{command[0]} did not answer within {PATIENCE_SECONDS} s; try again") from None
    if done.returncode:
        raise SchedulerError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
