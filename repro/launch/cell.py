"""One run of a launch: its spec, its directory, its state, and how a launch takes it up.

A job whose run is cancelled or has failed finds that there is nothing to do, so both traces are removed before it can
start. Where the scheduler then refuses the job they are put back: a refusal changes no run's state.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.config.files import CorruptRun, read_object, write_atomically
from repro.config.spec import RunSpec, labels
from repro.data.eval_sets import evaluated
from repro.launch.records import JobPlace
from repro.runs import ownership
from repro.runs.directory import UNFINISHED, AnotherRun, RunDirectory


@dataclass(frozen=True)
class JobSettings:
    """How jobs are carried out; changes no result.

    restarts: how often a run is started again after one of its ranks died. auto_micro_batch: a run that is out of
    memory goes on with half the micro-batch. timeout_seconds: how long ranks wait for one that trains no further.
    """

    workers: int = 0
    checkpoint_seconds: float = 300.0
    ranks: int = 1
    restarts: int = 0
    auto_micro_batch: bool = False
    timeout_seconds: float = 600.0


@dataclass(frozen=True)
class Cell:
    """One run of a launch."""

    spec: RunSpec
    directory: RunDirectory
    among: str = ""
    """Its label among the other runs of its sweep (see `labelled`)."""

    @classmethod
    def of(cls, spec: RunSpec, runs: Path, sweep: str) -> "Cell":
        return cls(spec, RunDirectory(runs.resolve() / sweep / spec.run_id))

    @property
    def label(self) -> str:
        return self.among or self.spec.label

    @property
    def sweep(self) -> str:
        return self.directory.path.parent.name

    def state(self, places: Mapping[str, JobPlace] | None = None) -> str:
        """The directory's status, completed by where the run waits or runs (launch/records.py).

        A finished run that lacks an evaluation is `pending`.
        """
        try:
            status = self.directory.status()
        except CorruptRun:
            return "corrupt"
        if status == "finished" and not evaluated(self.directory, self.spec):
            attempt = ownership.latest(self.directory.attempts)
            status = "running" if attempt is not None and attempt.is_alive() else "pending"
        if status not in UNFINISHED or places is None:
            return status
        if status == "running" and not self._in_a_job():
            return status
        place = places.get(self.directory.path.name)
        if status == "cancelled" and place is not None and not place.job_id:
            return status  # a local launch passes over it
        if place is not None and place.state != "gone":
            return place.state
        began = place is None or place.began
        # Its job is gone, however fresh its last sign of life, or ended before it started the run.
        return "interrupted" if status == "running" or (status == "pending" and not began) else status

    def _in_a_job(self) -> bool:
        attempt = ownership.latest(self.directory.attempts)
        return attempt is not None and bool(attempt.job_id)


def labelled(cells: Sequence[Cell]) -> list[Cell]:
    """The same runs, with labels that tell them from each other."""
    found = labels([cell.spec for cell in cells])
    return [replace(cell, among=label) for cell, label in zip(cells, found, strict=True)]


def needs_a_job(state: str, retry: bool) -> bool:
    """Whether a run in this state is started: what has not ended and is nowhere; with `retry` what failed, too."""
    return state in ("pending", "interrupted", "cancelled") or (
        retry and state not in (*UNFINISHED, "finished", "corrupt")
    )


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
    found: Sequence[tuple[Cell, str, JobPlace | None]], retry: bool, say: Callable[[str], None] = lambda text: None
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
