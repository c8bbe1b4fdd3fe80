"""Files by which a run's ranks say where they are and what ended them, outside their process group.

A rank renews job/alive-<rank> from a thread of its own, so the file tells what the main thread does even while an
exchange holds that thread up. A rank that fails alone leaves job/failures/<rank>.json and exits at once: to leave the
process group in order is a collective, which its peers, stuck in another one, never join. They see the file and exit.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from repro.config.files import CorruptRun, read_object
from repro.runs import ownership
from repro.runs.directory import ENDED, RunDirectory
from repro.runs.signals import exit_at_once

RECORDED = 0
"""Exit code of a rank: the run directory says how it ended, or another rank does."""
FAILED = 1
BUSY = 3
"""Another process has the run: nothing was touched."""
DISK_FULL = 4
"""Exit code of a rank whose disk is too full to record that."""
LOOK_SECONDS = 0.5
"""Between two looks of a rank for the failures of others."""
LAST_WORDS_SECONDS = 2.0
"""How long a rank that lost contact waits for the others to say why."""
PREPARING, READING, COMPUTING, WAITING = "preparing", "reading", "computing", "waiting"
TIMED = (READING, COMPUTING, WAITING)
"""State of a rank in the middle of training. All else (preparing data, evaluating, saving) may take any time."""


class Activity:
    """Where this process's main thread is; `count` grows with every move, so that others see that it moves."""

    def __init__(self) -> None:
        self.doing, self.step, self.count = PREPARING, 0, 0

    def move(self, doing: str | None = None, step: int | None = None) -> None:
        self.doing = self.doing if doing is None else doing
        self.step = self.step if step is None else step
        self.count += 1

    @contextlib.contextmanager
    def during(self, doing: str) -> Iterator[None]:
        before = self.doing
        self.move(doing)
        try:
            yield
        finally:
            self.move(before)

    def __str__(self) -> str:
        return f"{self.count} {self.doing} {self.step}"


activity = Activity()


def read_place(file: Path) -> str:
    """The second line of a rank's sign of life; '' where there is none (yet)."""
    with contextlib.suppress(OSError, UnicodeDecodeError, IndexError):
        return file.read_text().splitlines()[1]
    return ""


@contextlib.contextmanager
def announced(file: Path) -> Iterator[None]:
    """Renew this rank's sign of life while inside; at the end, say that it left in order."""
    try:
        with ownership.beating(file, lambda: _put(file, f"{socket.gethostname()} {os.getpid()}\n{activity}\n")):
            yield
    finally:
        _put(file, ENDED)


def _put(file: Path, text: str) -> None:
    """Whole or not at all; where the disk is full, the file's time alone is renewed."""
    temporary = file.with_name(f".{file.name}")
    try:
        temporary.write_text(text)
        temporary.rename(file)
    except OSError:
        with contextlib.suppress(OSError):  # a sign that fails is a sign missed, and no reason to stop training
            os.utime(file)


def forget_failure(directory: RunDirectory, rank: int, ranks: int) -> None:
    """Remove what an earlier start of this rank left; rank 0 also what ranks left that this start has not."""
    for file in _failure_files(directory):
        if int(file.stem) == rank or (rank == 0 and int(file.stem) >= ranks):
            file.unlink(missing_ok=True)


def failures(directory: RunDirectory) -> dict[int, dict[str, Any]]:
    """Rank → what ended it: status, reason, rank, lost_contact. Files that are not whole yet are left out."""
    found = {}
    for file in _failure_files(directory):
        with contextlib.suppress(CorruptRun):
            found[int(file.stem)] = read_object(file)
    return found


def _failure_files(directory: RunDirectory) -> list[Path]:
    try:
        return sorted((file for file in directory.failures.iterdir() if file.stem.isdigit()), key=lambda f: int(f.stem))
    except (FileNotFoundError, NotADirectoryError):
        return []


def root_cause(directory: RunDirectory, own: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The failure among all ranks' that is not only the echo of another's; else own, or the first echo.

    own: this rank's failure. Where it is an echo itself, the others are given a little time to say more.
    """
    waits = own is not None and own["lost_contact"]
    deadline = time.monotonic() + (LAST_WORDS_SECONDS if waits else 0)
    while True:
        found = failures(directory)
        for failure in found.values():
            if not failure["lost_contact"]:
                return failure
        if time.monotonic() >= deadline:
            return own or next(iter(found.values()), None)
        time.sleep(0.1)


@contextlib.contextmanager
def watching(directory: RunDirectory, rank: int, on_failure: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """While inside, a thread calls on_failure with another rank's failure, once one is there that is no mere echo.

    Files that were there before are an earlier start's.
    """
    over = threading.Event()
    before = {file: _changed_at(file) for file in _failure_files(directory)}

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if all(before.get(file) == _changed_at(file) for file in _failure_files(directory)):
                continue
            for other, failure in failures(directory).items():
                file = directory.failure_file(other)
                if other != rank and not failure["lost_contact"] and before.get(file) != _changed_at(file):
                    on_failure(failure)
                    return

    thread = threading.Thread(target=watch, name="failures of others", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _changed_at(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime_ns
    return 0


def leave(code: int) -> NoReturn:
    """End this process: in order, or at once where it is in a process group still, which its peers will not leave."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        exit_at_once(code)
    sys.exit(code)
