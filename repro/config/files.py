"""Files that are whole or not there: written beside their place, synced, renamed; read with an error that names them.

A full disk is told by its name: which file, how much was to be written, how much is free. And where the files are that
come with the package: in a checkout beside it, where people edit them; a wheel carries them inside it.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from repro.config.errors import DiskFull
from repro.config.units import format_bytes

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


class CorruptRun(ValueError):
    """A run directory's file cannot be read; the message names the file and says why."""


class MissingFile(CorruptRun):
    """The file is not there."""


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `file`, sync it to disk, and rename it into place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, so that a process that lost the file cannot write into its successor's.
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".unfinished")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, values: Any) -> None:
    write_text(file, as_json(values))


def as_json(values: Any) -> str:
    return json.dumps(values, indent=1) + "\n"


def write_text(file: Path, text: str) -> None:
    write_atomically(file, lambda temporary: temporary.write_text(text) and None)


def read_json(file: Path) -> Any:
    """Raises CorruptRun that names the file."""
    try:
        text = file.read_text()
        return json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"{file}: no such file") from None
    except OSError as error:
        raise CorruptRun(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CorruptRun(f"{file}: not a text file") from None
    except json.JSONDecodeError as error:
        raise CorruptRun(f"{file}: {f'not JSON: {error}' if text.strip() else 'an empty file'}") from None


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file of keys and values. Raises CorruptRun that names the file."""
    values = read_json(file)
    if not isinstance(values, dict):
        raise CorruptRun(f"{file}: expected keys and values, found {type(values).__name__}")
    return values


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


PACKAGE = Path(__file__).parents[1]


def resource(name: str) -> Path:
    """'sweeps' or 'paper' → the folder that holds it."""
    checkout = PACKAGE.parent / {"paper": "results/paper"}.get(name, name)
    return checkout if checkout.is_dir() else PACKAGE / "_resources" / name


def cache_folder() -> Path:
    """Where made and fetched data are kept between sweeps: $REPRO_CACHE, or the user's cache folder."""
    if folder := os.environ.get("REPRO_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "siglip-repro"
