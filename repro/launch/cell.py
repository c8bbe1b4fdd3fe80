"""One run of a launch: what it is, where it lies, and what state it is in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repro.config.files import CorruptRun
from repro.config.spec import RunSpec, labels
from repro.data.eval_sets import evaluated
from repro.launch.survey import Place
from repro.runs import ownership
from repro.runs.directory import UNFINISHED, RunDirectory


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

    def state(self, places: Mapping[str, Place] | None = None) -> str:
        """The directory's status, completed by where the run waits or runs (launch/survey.py).

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
