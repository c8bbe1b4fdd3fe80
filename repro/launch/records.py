"""Records of launches: one folder each, runs/<sweep>/.launches/<token>/, written before the jobs are submitted.

launch.json names the runs of each array in order, and the arrays' names. The scheduler knows the jobs by these names,
so a run's job is found even where the launch was killed between submitting and writing down the job's number.

`survey` tells by them where the runs that have not ended are, with one question to the scheduler however many there
are. A run that is on nobody's list is nowhere: it never began, or its job is gone (an orphan), and launching takes it
up. Of a run's jobs that are gone the newest alone says why.
"""

import contextlib
import datetime
import getpass
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config.errors import InputError
from repro.config.files import CorruptRun, read_object, write_json
from repro.launch import scheduler
from repro.runs import ownership
from repro.runs.directory import RunDirectory

if TYPE_CHECKING:
    from flufl.lock import Lock

FOLDER = ".launches"
LOCK_LIFETIME_SECONDS = 30
"""A lock that its holder has not renewed for so long is broken, ten seconds later: its holder was killed."""
LOCK_PATIENCE_SECONDS = 10 * 60
TAIL_BYTES = 4096


@dataclass(frozen=True)
class Group:
    """Runs in the order of one array. name: the jobs' name in the scheduler, '' for local processes."""

    name: str
    runs: tuple[str, ...]
    job_id: str = ""

    def job_of(self, run: str) -> str:
        """A run's own job: '12_3', or '12' where it is the only one; '' where the scheduler's answer is not known."""
        place = f"_{self.runs.index(run)}" if len(self.runs) > 1 else ""
        return f"{self.job_id}{place}" if self.job_id else ""


@dataclass(frozen=True)
class LaunchRecord:
    """One launch: who, where, what, and the settings that `repro retry` takes up again."""

    folder: Path
    executor: str
    groups: tuple[Group, ...]
    settings: dict[str, Any]
    host: str
    pid: int
    process_started: str
    user: str
    at: str

    @property
    def file(self) -> Path:
        return self.folder / "launch.json"

    def runs(self) -> set[str]:
        return {run for group in self.groups for run in group.runs}

    def logs(self, job_id: str) -> list[Path]:
        """Files of a job's own output, before and beside its ranks: submitit's two, which may not be there."""
        return [self.folder / f"{job_id}_0_log.{kind}" for kind in ("out", "err")]

    @property
    def where(self) -> str:
        return f"pid {self.pid}" + (f" on {self.host}" if self.host != socket.gethostname() else "")

    def is_alive(self) -> bool:
        """Whether the launching process still sees to its local runs."""
        if self.host == socket.gethostname():
            return ownership.still_runs(self.pid, self.process_started)
        return ownership.seconds_since_beat(self.file) < ownership.STALE_SECONDS

    def is_mine(self) -> bool:
        """Whether this very process made it."""
        return self.host == socket.gethostname() and self.pid == os.getpid() and self.is_alive()

    def write(self) -> None:
        values = asdict(self)
        del values["folder"]
        write_json(self.file, values)


def new_token() -> str:
    """Names a launch, and sorts by time: 20261124-061500-a1b2c3."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def new_launch(sweep_folder: Path, token: str, executor: str, groups: Sequence[Group], settings: dict) -> LaunchRecord:
    """Written down already: this process's."""
    pid = os.getpid()
    launch = LaunchRecord(
        sweep_folder / FOLDER / token,
        executor,
        tuple(groups),
        settings,
        socket.gethostname(),
        pid,
        ownership.process_started(pid),
        getpass.getuser(),
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    launch.write()
    return launch


def launches(sweep_folder: Path) -> list[LaunchRecord]:
    """All launches of a sweep that can be read, the newest last."""
    found = []
    for file in _files(sweep_folder):
        with contextlib.suppress(CorruptRun):
            found.append(_read(file))
    return found


def unreadable_launches(sweep_folder: Path) -> list[str]:
    """A sentence on each launch that cannot be read: jobs that it queued are then not known."""
    problems = []
    for file in _files(sweep_folder):
        try:
            _read(file)
        except CorruptRun as error:
            jobs = f"repro-{file.parent.name}-0"
            problems.append(f"{error}; its jobs, if any, are not known (squeue --name {jobs}): move {file.parent} away")
    return problems


def _files(sweep_folder: Path) -> list[Path]:
    return sorted((sweep_folder / FOLDER).glob("*/launch.json"))


def _read(file: Path) -> LaunchRecord:
    values = read_object(file)
    try:
        groups = tuple(Group(**group | {"runs": tuple(group["runs"])}) for group in values.pop("groups"))
        return LaunchRecord(file.parent, groups=groups, **values)
    except (TypeError, KeyError, AttributeError):
        raise CorruptRun(f"{file}: not a launch of this version of repro") from None


@contextlib.contextmanager
def submission_lock(sweep_folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Held while one person finds out what is missing and submits it; gives a function that makes sure that it is.

    Works on shared file systems. A thread renews it, however long squeue and sbatch take; once its holder has died it
    is broken. Raises InputError after ten minutes, and the function where another process has broken the lock.
    """
    from flufl.lock import Lock, NotLockedError

    sweep_folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(str(sweep_folder / ".lock"), lifetime=LOCK_LIFETIME_SECONDS, default_timeout=1)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LOCK_LIFETIME_SECONDS / 4):
            with contextlib.suppress(NotLockedError, OSError):  # told by make_sure, before anything is submitted
                lock.refresh()

    def make_sure() -> None:
        try:
            lock.refresh()
        except NotLockedError:
            lost = "this launch stood still, and another one has taken its lock"
            raise InputError(f"{lock.lockfile}: {lost}; type the command again to submit what is missing") from None

    _wait_for(lock, say)
    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield make_sure
    finally:
        over.set()
        thread.join()
        if lock.is_locked:
            lock.unlock()


def _wait_for(lock: "Lock", say: Callable[[str], None]) -> None:
    from flufl.lock import TimeOutError

    logging.getLogger("flufl.lock").addHandler(logging.NullHandler())  # it reports each try as an error
    _remove_what_is_no_lock(lock)
    try:
        return lock.lock()
    except TimeOutError:
        say(f"another launch of this sweep is being submitted; waiting ({lock.lockfile})")
    try:
        lock.lock(LOCK_PATIENCE_SECONDS)
    except TimeOutError:
        minutes = f"{LOCK_PATIENCE_SECONDS / 60:.0f} minutes"
        reason = f"another launch has held this lock for {minutes}; remove it if that is wrong"
        raise InputError(f"{lock.lockfile}: {reason}") from None


def _remove_what_is_no_lock(lock: "Lock") -> None:
    """A lock that a power failure left empty or garbled names no holder, and flufl breaks none such."""
    from flufl.lock import NotLockedError

    file = Path(lock.lockfile)
    try:
        _ = lock.details
    except (NotLockedError, UnicodeDecodeError):
        if LOCK_LIFETIME_SECONDS < ownership.seconds_since_beat(file) < float("inf"):
            file.unlink(missing_ok=True)


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
