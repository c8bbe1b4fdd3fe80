"""Records of launches: one folder each, runs/<sweep>/.launches/<token>/, written before the jobs are submitted.

launch.json names the runs of each array in order, and the arrays' names. The scheduler knows the jobs by these names,
so a run's job is found even where the launch was killed between submitting and writing down the job's number.
"""

import contextlib
import datetime
import getpass
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config.errors import InputError
from repro.config.files import CorruptRun, read_object, write_json
from repro.runs import ownership

if TYPE_CHECKING:
    from flufl.lock import Lock

FOLDER = ".launches"
LOCK_LIFETIME_SECONDS = 30
"""A lock that its holder has not renewed for so long is broken, ten seconds later: its holder was killed."""
LOCK_PATIENCE_SECONDS = 10 * 60


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
