"""A full disk, by its name: which file, how much was to be written, how much is free."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from repro.counts import format_bytes
from repro.errors import DiskFull

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


@contextlib.contextmanager
def full_disk_named(file: Path, size_bytes: int | None = None) -> Iterator[None]:
    """The body writes `file`. Raises DiskFull where there is no room for it; size_bytes: its size, where known."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        wanted = f"{format_bytes(size_bytes)} to be written" if size_bytes is not None else "size not known"
        free = format_bytes(shutil.disk_usage(file.parent).free)
        raise DiskFull(f"{file}: {FULL[error.errno]} ({wanted}, {free} free)") from error


def sync_folder(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
