"""Where the runs that have not ended are: one question to the scheduler however many there are, and the local launches.

A run that is on nobody's list is nowhere: it never began, or its job is gone (an orphan), and launching takes it up. Of
a run's jobs that are gone the newest alone says why.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from repro.launch import scheduler
from repro.launch.records import Group, LaunchRecord, launches
from repro.runs import ownership
from repro.runs.directory import RunDirectory

TAIL_BYTES = 4096


@dataclass(frozen=True)
class JobPlace:
    """state: queued, running, or gone (its job has ended). job_id: SLURM's, '' where a local launch sees to it.

    began: whether the job came to start the run.
    """

    state: str
    where: str
    reason: str = ""
    job_id: str = ""
    began: bool = True


def survey(sweep_folder: Path, unfinished: Collection[str]) -> dict[str, JobPlace]:
    """Run id → where it is. unfinished: the runs that are asked for.

    Raises SchedulerError where SLURM does not answer: what is queued is then not known.
    """
    unfinished = set(unfinished)
    places: dict[str, JobPlace] = {}
    groups: dict[str, Group] = {}
    history: dict[str, list[tuple[LaunchRecord, Group]]] = {}
    for launch in launches(sweep_folder):
        asked_for = launch.runs() & unfinished
        if launch.executor == "local" and launch.is_alive() and not launch.is_mine():
            places |= dict.fromkeys(asked_for, JobPlace("queued", launch.where))
        elif launch.executor == "slurm" and asked_for:
            groups |= {group.name: group for group in launch.groups}
        for group in launch.groups:
            for run in unfinished.intersection(group.runs):
                history.setdefault(run, []).append((launch, group))
    ended: dict[tuple[str, str], scheduler.ScheduledJob] = {}
    for job in scheduler.queue(groups):
        runs = groups[job.name].runs
        run = runs[job.task] if job.task < len(runs) else ""
        if job.state in scheduler.ENDED:
            ended[job.name, run] = job
        elif run in unfinished:
            places[run] = _scheduled_place(job)
    for run in history.keys() - places.keys():
        if place := _where_it_was(run, history[run], ended):
            places[run] = place
    return places


def _scheduled_place(job: scheduler.ScheduledJob) -> JobPlace:
    if job.state in scheduler.WAITING:
        return JobPlace("queued", job.id, job.reason if job.reason != "None" else "", job.id)
    return JobPlace("running", job.id, "", job.id)


def _where_it_was(
    run: str, history: list[tuple[LaunchRecord, Group]], ended: dict[tuple[str, str], scheduler.ScheduledJob]
) -> JobPlace | None:
    """The place of a run whose jobs are gone, by the newest of them; None where its last launch was a local one.

    history: the run's launches, the newest last; one that was refused has no job. ended: by name and run, the jobs
    that the scheduler remembers.
    """
    for launch, group in reversed(history):
        if launch.executor != "slurm":
            return None
        job = ended.get((group.name, run))
        if job_id := job.id if job is not None else group.job_of(run):
            return _gone(RunDirectory(launch.folder.parents[1] / run), launch, job_id, job)
    return None


def _gone(directory: RunDirectory, launch: LaunchRecord, job_id: str, job: scheduler.ScheduledJob | None) -> JobPlace:
    """job: None where the scheduler has forgotten it."""
    how = _how_it_ended(job) if job is not None else ""
    if any(attempt.job_id == job_id for attempt in ownership.all_attempts(directory.attempts)):
        return JobPlace("gone", job_id, f"its job {job_id} ended: {how}" if how else "", job_id)
    reason = f"its job {job_id} ended before it started the run" + (f" ({how})" if how else "")
    return JobPlace("gone", job_id, reason + _last_words(launch, job_id), job_id, began=False)


def _how_it_ended(job: scheduler.ScheduledJob) -> str:
    if job.exit_code < 0:
        return f"{job.state}, killed by signal {-job.exit_code}"
    return f"{job.state}, exit code {job.exit_code}" if job.exit_code else job.state


def _last_words(launch: LaunchRecord, job_id: str) -> str:
    """'; see …_log.err: exec: python: not found'; '' where the job left no log, as one that never ran."""
    for file in reversed(launch.logs(job_id)):
        try:
            with file.open("rb") as stream:
                stream.seek(-min(file.stat().st_size, TAIL_BYTES), 2)
                lines = stream.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            continue
        if words := [line.strip() for line in lines if line.strip()]:
            return f"; see {file}: {words[-1]}"
    return ""
