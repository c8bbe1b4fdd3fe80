"""Where the runs that have not ended are: one question to the scheduler however many there are, and the local launches.

A run that is on nobody's list is nowhere: it never began, or its job is gone (an orphan), and launching takes it up.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from repro.launch import scheduler
from repro.launch.records import Group, launches


@dataclass(frozen=True)
class Place:
    """state: queued, running, or gone (its job has ended). job_id: SLURM's, '' where a local launch sees to it."""

    state: str
    where: str
    reason: str = ""
    job_id: str = ""


def survey(sweep_folder: Path, unfinished: Collection[str]) -> dict[str, Place]:
    """Run id → where it is. unfinished: the runs that are asked for.

    Raises SchedulerError where SLURM does not answer: what is queued is then not known.
    """
    unfinished = set(unfinished)
    places: dict[str, Place] = {}
    groups: dict[str, Group] = {}
    for launch in launches(sweep_folder):
        asked_for = launch.runs() & unfinished
        if launch.executor == "local" and launch.is_alive() and not launch.is_mine():
            places |= dict.fromkeys(asked_for, Place("queued", launch.where))
        elif launch.executor == "slurm" and asked_for:
            groups |= {group.name: group for group in launch.groups}
    for job in scheduler.queue(groups):
        runs = groups[job.name].runs
        if job.task < len(runs) and (run := runs[job.task]) in unfinished:
            place = _scheduled_place(job)
            if place.state != "gone" or run not in places:  # of two jobs of a run, the one that is still there
                places[run] = place
    return places


def _scheduled_place(job: scheduler.ScheduledJob) -> Place:
    if job.state in scheduler.ENDED:
        return Place("gone", job.id, f"its job {job.id} ended: {job.state}", job.id)
    if job.state in scheduler.WAITING:
        return Place("queued", job.id, job.reason if job.reason != "None" else "", job.id)
    return Place("running", job.id, "", job.id)
