"""Who has a run: numbered attempts, of which the highest is in force.

Each time that a process takes a run up it creates the next of job/attempts/0001.json, 0002.json … exclusively, which
is atomic on shared file systems too (flock is not, everywhere). One that is no longer the highest has lost the run:
it looks before it puts anything in place, so a process on a node that everybody took for dead writes nothing more.

An attempt lives while its process does: on its own machine that is looked up; from elsewhere it shows by the time of
the file, which the process renews every few seconds.
"""

import contextlib
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from repro.config.errors import InputError

BEAT_SECONDS = 5.0
"""Between two signs of life."""
STALE_SECONDS = 60.0
"""Without a sign for so long, a process on another machine is taken for dead."""


class Busy(InputError):
    """Another living process has the run."""


class Superseded(RuntimeError):
    """The run was taken over while this process was taken for dead: it must write nothing more."""


@dataclass(frozen=True)
class Attempt:
    """One process (rank 0) at one run. job_id: SLURM's, or '' for a local process. outcome: '' while it lives.

    examples_seen: as last logged when it ended.
    """

    file: Path
    host: str
    pid: int
    process_started: str
    job_id: str
    ranks: int
    started_at: str
    outcome: str = ""
    examples_seen: int = 0

    @property
    def number(self) -> int:
        return int(self.file.stem)

    def is_alive(self) -> bool:
        if self.outcome:
            return False
        if self.host == socket.gethostname():
            return still_runs(self.pid, self.process_started)
        return 0 <= seconds_since_beat(self.file) < STALE_SECONDS

    def check_in_force(self) -> None:
        """Raises Superseded where a later attempt has the run."""
        if (self.file.parent / f"{self.number + 1:04}.json").exists():
            raise Superseded(f"{self.file}: attempt {self.number + 1} has taken this run over")

    def end(self, outcome: str, examples_seen: int = 0) -> None:
        """Leave word of how it ended; the attempt is over."""
        ended = {"outcome": outcome, "examples_seen": examples_seen, "ended_at": _now()}
        _write(self.file, self._values() | ended)

    def _values(self) -> dict:
        values = asdict(self)
        del values["file"]
        return values


def claim(folder: Path, job_id: str = "", ranks: int = 1, patience_seconds: float = STALE_SECONDS + 15) -> Attempt:
    """Take the run up: the next attempt, this process's. folder: job/attempts of a run directory.

    An attempt of the same SLURM job is an earlier start of it, and over. One on another machine is given
    patience_seconds to show that it lives. Raises Busy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_seconds
    while (before := latest(folder)) is not None and before.is_alive() and not (job_id and before.job_id == job_id):
        if before.host == socket.gethostname() or time.monotonic() > deadline:
            raise Busy(f"{folder.parents[1]}: another process is running this run ({before.host}, pid {before.pid})")
        time.sleep(1)
    file = folder / f"{(before.number if before else 0) + 1:04}.json"
    pid = os.getpid()
    attempt = Attempt(file, socket.gethostname(), pid, process_started(pid), job_id, ranks, _now())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise Busy(f"{folder.parents[1]}: another process has just taken this run up") from None
    with os.fdopen(descriptor, "w") as stream:
        json.dump(attempt._values(), stream)
    return attempt


def latest(folder: Path) -> Attempt | None:
    """The attempt in force, or None where there was none."""
    files = _files(folder)
    return _read(files[-1]) if files else None


def all_attempts(folder: Path) -> list[Attempt]:
    return [_read(file) for file in _files(folder)]


@contextlib.contextmanager
def beating(file: Path, renew: Callable[[], None] | None = None) -> Iterator[None]:
    """Show every BEAT_SECONDS, by the file's time, that this process lives.

    renew: writes the file; by default its time alone is renewed, and one that somebody removed stays away.
    """
    over = threading.Event()
    if renew is None:
        file.touch()
        renew = partial(os.utime, file)
    else:
        renew()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a sign that fails is a sign missed, and no reason to stop training
                renew()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def beat_time(file: Path) -> float | None:
    """When the last sign came, by the file system's clock. Opened first: file systems over a network then ask anew."""
    try:
        with file.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime
    except OSError:
        return None


def seconds_since_beat(file: Path) -> float:
    """By this machine's clock; infinite where there is no file."""
    beat = beat_time(file)
    return float("inf") if beat is None else max(0.0, time.time() - beat)


def process_started(pid: int) -> str:
    """Distinguish a process from a later one of the same number: by the machine's boot, and its start; '' for none.

    Where there is no /proc a number is all there is to go by.
    """
    if not Path("/proc/self/stat").exists():
        return "running" if _exists(pid) else ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"  # a zombie runs no more


def still_runs(pid: int, started: str) -> bool:
    """Whether the process lives that process_started told of, on this machine."""
    return bool(started) and process_started(pid) == started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".json" and file.stem.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(file: Path) -> Attempt:
    """A file that is not whole (just created, or its writer was killed) is an attempt somewhere, alive by its time."""
    try:
        values = json.loads(file.read_text())
        values.pop("ended_at", None)
        return Attempt(file, **values)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError, AttributeError):
        return Attempt(file, "unknown", 0, "", "", 0, "")


def _write(file: Path, values: dict) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(values))
    temporary.rename(file)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
