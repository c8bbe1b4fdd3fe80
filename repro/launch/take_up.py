"""Prepare run directories before their jobs start: specs in place, traces of earlier ends out of the way.

A job whose run is cancelled or has failed finds that there is nothing to do, so both are removed before it can start.
Where the scheduler then refuses the job they are put back: a refusal changes no run's state.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro.config.files import CorruptRun, read_object, write_atomically
from repro.launch.cell import Cell, needs_a_job
from repro.launch.survey import Place
from repro.runs.directory import UNFINISHED, AnotherRun


@dataclass(frozen=True)
class TakenUp:
    """A run that is about to be started. removed: the files that were in the way, and what they held."""

    cell: Cell
    removed: dict[Path, bytes]

    def put_back(self) -> None:
        """Leave the run as it was."""
        for file, content in self.removed.items():
            write_atomically(file, lambda temporary, content=content: temporary.write_bytes(content) and None)


def take_up(
    found: Sequence[tuple[Cell, str, Place | None]], retry: bool, say: Callable[[str], None] = lambda text: None
) -> list[TakenUp]:
    """Make ready what is to be started: its spec in place, an old failure and a cancellation gone. Under the lock.

    found: as `launch.states` finds them. A spec.json that cannot be read is rewritten, as the sweep knows what was in
    it. A run whose directory is in the way (another run's, not writable) is left out, and `say` told.
    """
    waiting = []
    for cell, state, _ in found:
        start = needs_a_job(state, retry)
        if not start and not cell.directory.path.exists():
            continue
        try:
            _mend_spec(cell, say)
            if start:
                waiting.append(TakenUp(cell, _make_ready(cell)))
        except AnotherRun as error:
            say(f"left out: {error}")
        except OSError as error:
            say(f"left out: {error.filename or cell.directory.path}: cannot be written ({error.strerror})")
    return waiting


def _mend_spec(cell: Cell, say: Callable[[str], None]) -> None:
    """Raises AnotherRun."""
    directory = cell.directory
    if not directory.path.exists():
        return
    try:
        if read_object(directory.spec_file) != json.loads(cell.spec.model_dump_json()):  # far quicker than read_spec
            directory.read_spec()
    except AnotherRun:
        raise
    except CorruptRun as error:
        say(f"rewritten: {error}")
        directory.write_spec(cell.spec)


def _make_ready(cell: Cell) -> dict[Path, bytes]:
    directory = cell.directory
    directory.write_spec(cell.spec)
    in_the_way = [directory.cancelled_file] if directory.cancelled_file.exists() else []
    result = directory.read_result()
    if result is not None and result["status"] not in (*UNFINISHED, "finished"):
        in_the_way.append(directory.result_file)
    removed = {file: file.read_bytes() for file in in_the_way}
    for file in in_the_way:
        file.unlink()
    return removed
