"""Checkpoints and final weights on disk: whole and as they were written, or set aside.

A file gets a temporary name, is hashed on the way, synced and renamed. Its sha256 lies beside it before it does, as
`sha256sum -c` reads it. The last two checkpoints are kept; one that was damaged or cut off is renamed to *.damaged,
with a warning, and the one before is taken.
"""

import errno
import hashlib
import json
import logging
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import torch

from repro.config.errors import InputError
from repro.config.files import full_disk_named, sync_folder, write_atomically, write_text
from repro.models.build import WEIGHTS_NAME
from repro.train.state import size_bytes

KEPT = 2
FINAL = "final.pt"
FINAL_COLUMNS = "final.json"
"""The result's columns that training found out, so that a run killed after its training is not trained again."""

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, in one folder. Only one process writes there.

    check_owner is called right before anything is put in place or logged, and raises where another process has the run.
    """

    def __init__(self, folder: Path, check_owner: Callable[[], None] = lambda: None, spec_hash: str = ""):
        self.folder, self.check_owner, self.spec_hash = folder, check_owner, spec_hash

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write step-<step>.pt and drop all but the newest two. Raises DiskFull; the ones before are then untouched."""
        self._put(self.folder / f"step-{step:09d}.pt", state | {"spec_hash": self.spec_hash})
        for old in self._files()[:-KEPT]:
            _drop(old)

    def load_latest(self, device: torch.device) -> dict[str, Any] | None:
        """The newest good checkpoint, or None; what is not good is set aside.

        Raises InputError for one that is whole, but not this run's: somebody put it there.
        """
        self._remove_leftovers()
        files = self._files()
        for file in reversed(files):
            if _good_or_set_aside(file):
                return self._load(file, device)
        if files:
            logger.warning("%s: none of %d checkpoints is good; training starts over", self.folder, len(files))
        return None

    def _load(self, file: Path, device: torch.device) -> dict[str, Any]:
        advice = "remove it, and the run goes on from what else is there"
        try:
            state = torch.load(file, map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise InputError(
                f"{file}: not a checkpoint ({type(error).__name__}; nothing in it was run); {advice}"
            ) from error
        found = state.get("spec_hash") if isinstance(state, dict) else None
        if found != self.spec_hash:
            raise InputError(
                f"{file}: the checkpoint of another run (spec {found}, expected {self.spec_hash}); {advice}"
            )
        return state

    def save_final(self, weights: dict[str, torch.Tensor], columns: dict[str, Any]) -> None:
        """final.pt, as open_clip.create_model(..., pretrained=) and its local-dir find it; drops the resumable ones.

        It comes last: where it is, the columns and the link are.
        """
        self.check_owner()
        with full_disk_named(self.folder / FINAL_COLUMNS):
            _put_text(self.folder / FINAL_COLUMNS, json.dumps(columns) + "\n")
        link = self.folder / WEIGHTS_NAME
        if not link.is_symlink():
            link.unlink(missing_ok=True)
            link.symlink_to(FINAL)
        self._put(self.folder / FINAL, weights)
        for old in self._files():
            _drop(old)

    def trained(self) -> dict[str, Any] | None:
        """The columns that save_final left, where its weights are good; else None."""
        file, columns = self.folder / FINAL, self.folder / FINAL_COLUMNS
        if not file.exists() or not columns.exists() or not _good_or_set_aside(file):
            return None
        return json.loads(columns.read_text())

    def _put(self, file: Path, state: Any) -> None:
        self.check_owner()
        self._remove_leftovers()

        def write(temporary: Path) -> None:
            with temporary.open("wb") as target:
                digest = _serialize(state, target)
                target.flush()
                os.fsync(target.fileno())
            self.check_owner()
            _put_text(_sidecar(file), f"{digest}  {file.name}\n")

        with full_disk_named(file, size_bytes(state)):
            write_atomically(file, write)
            sync_folder(file.parent)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _remove_leftovers(self) -> None:
        """Leftovers of a killed write: temporary files, and a checksum whose file never came."""
        for file in self.folder.glob(".*.unfinished"):
            file.unlink()
        for sidecar in self.folder.glob("*.pt.sha256"):
            if not sidecar.with_suffix("").exists():
                sidecar.unlink()


class _Hashing:
    """A file that hashes what is written to it, and remembers why it could not be written: torch's writer may raise
    an error of its own on top."""

    def __init__(self, target: BinaryIO):
        self.target, self.sha256, self.failure = target, hashlib.sha256(), None

    def write(self, data: memoryview) -> int:
        self.sha256.update(data)
        try:
            return self.target.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.target.flush()


def _serialize(state: Any, target: BinaryIO) -> str:
    """Returns the sha256 of what was written."""
    hashing = _Hashing(target)
    try:
        torch.save(state, hashing)
    except RuntimeError:
        if hashing.failure is not None:
            raise hashing.failure from None
        raise
    return hashing.sha256.hexdigest()


def _put_text(file: Path, text: str) -> None:
    write_text(file, text)
    sync_folder(file.parent)


def _sidecar(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def damage_of(file: Path) -> str | None:
    """Say why a checkpoint or final weights are not what was written; None where they are."""
    sidecar = _sidecar(file)
    if not sidecar.exists():
        return f"{sidecar.name} is missing"
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        expected = sidecar.read_text()
    except OSError as error:
        if error.errno != errno.EIO:  # others are no word about the file: a server away, a right missing
            raise
        return f"{error.strerror}"
    if expected.split() != [found, file.name]:
        return f"its {file.stat().st_size:,} bytes do not give the sha256 in {sidecar.name}"
    return None


def _good_or_set_aside(file: Path) -> bool:
    damage = damage_of(file)
    if damage is None:
        return True
    logger.warning("%s is damaged or cut off (%s); set aside as %s.damaged", file, damage, file.name)
    for part in (file, _sidecar(file)):
        if part.exists():
            part.rename(part.with_name(f"{part.name}.damaged"))
    return False


def _drop(file: Path) -> None:
    """The checksum goes last: a file without one would count as damaged."""
    file.unlink()
    _sidecar(file).unlink(missing_ok=True)


class Background:
    """Leaving it as a context waits for the work. What the work raises is raised by the next `check` or `wait`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._work: Future[None] | None = None
        self.last_seconds = 0.0
        """Seconds that the last work took."""

    @property
    def busy(self) -> bool:
        return self._work is not None and not self._work.done()

    def start(self, work: Callable[[], None]) -> None:
        """Waits for work that is under way, and raises what it raised."""
        self.wait()
        self._work = self._thread.submit(self._timed, work)

    def _timed(self, work: Callable[[], None]) -> None:
        started = time.perf_counter()
        work()
        self.last_seconds = time.perf_counter() - started

    def check(self) -> None:
        """Raises what finished work raised."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.error("while %s ended the run, a checkpoint failed too: %s", type(error).__name__, failure)
        finally:
            self._thread.shutdown()
