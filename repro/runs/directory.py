"""Every file name and format of a run directory, in one place.

A run writes only here: append-only JSON lines, or a temporary file renamed into place, so that a killed run
leaves whole files or none. All that is read elsewhere (status, tables, reports) is derived from these files.
"""

import contextlib
import datetime
import itertools
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.config.files import (
    FULL,
    CorruptRun,
    MissingFile,
    as_json,
    read_object,
    write_atomically,
    write_json,
    write_text,
)
from repro.config.spec import FORMAT, RunSpec
from repro.runs import ownership

logger = logging.getLogger(__name__)

UNFINISHED = ("pending", "queued", "running", "interrupted", "cancelled")
"""States of a run that typing the command again takes up. All others are results."""

RESERVE_BYTES = 32 << 10
ENDED = "ended\n"
"""Written by a rank that leaves in order over its sign of life."""


class AnotherRun(CorruptRun):
    """A run directory holds the spec of another run, as after a copy; the message names both."""


class RunDirectory:
    """The files of one run. Making the object touches nothing on disk."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.spec_file = self.path / "spec.json"
        self.provenance_file = self.path / "provenance.json"
        self.optimizer_file = self.path / "optimizer.json"
        self.log_file = self.path / "log.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.final = self.checkpoints / "final.pt"
        self.evals = self.path / "evals"
        self.result_file = self.path / "result.json"
        self.trained_file = self.checkpoints / "final.json"
        self.job = self.path / "job"
        self.output_file = self.job / "output.log"
        self.attempts = self.job / "attempts"
        self.cancelled_file = self.job / "cancelled.json"
        self.reserve_file = self.job / "reserve"
        self.failures = self.job / "failures"
        self.micro_batch_file = self.job / "micro-batch.json"

    def evals_at(self, examples: int) -> Path:
        """The folder of an evaluation on the way (spec.evaluate_at)."""
        return self.evals / f"at-{examples}"

    def write_spec(self, spec: RunSpec) -> None:
        """A file that says the same already is left as it is: to write one is to wait for the disk."""
        self.job.mkdir(parents=True, exist_ok=True)
        text = as_json(spec.model_dump())
        try:
            written = self.spec_file.read_text()
        except (OSError, UnicodeDecodeError):
            written = ""
        if written != text:
            write_text(self.spec_file, text)

    def read_spec(self) -> RunSpec:
        """Raises CorruptRun, and AnotherRun where it is not this directory's.

        Told by the readable part of the id: the hash of a spec changes when a version adds a field.
        """
        try:
            spec = RunSpec.parse(read_object(self.spec_file), str(self.spec_file))
        except InputError as error:
            raise CorruptRun(str(error)) from None
        if _without_hash(spec.run_id) != _without_hash(self.path.name):
            raise AnotherRun(f"{self.spec_file}: is the spec of {spec.run_id}; rename the directory, or move it")
        return spec

    def read_result(self) -> dict[str, Any] | None:
        """The result, or None where the run has not ended. Raises CorruptRun."""
        try:
            result = read_object(self.result_file)
        except MissingFile:
            return None
        if not isinstance(result.get("status"), str) or not isinstance(result.get("metrics", {}), dict):
            raise CorruptRun(f"{self.result_file}: expected a result with a status, and metrics by name")
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """The row; what is not finite becomes null. On a full disk it takes the room that was kept for it."""
        finished_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._write_with_reserve(self.result_file, {"format": FORMAT, **_finite(result), "finished_at": finished_at})
        self.reserve_file.unlink(missing_ok=True)

    def write_failure(self, rank: int, failure: dict[str, Any]) -> None:
        """Record what ended this rank: status, reason, lost_contact (whether it only missed another)."""
        self.failures.mkdir(parents=True, exist_ok=True)
        self._write_with_reserve(self.failure_file(rank), _finite(failure) | {"rank": rank})

    def _write_with_reserve(self, file: Path, values: dict[str, Any]) -> None:
        try:
            write_json(file, values)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.reserve_file.unlink(missing_ok=True)  # another rank may just have done so
            write_json(file, values)

    def keep_room_for_a_result(self) -> None:
        """Reserve space, so that a run that ends because the disk is full can still say so."""
        self.reserve_file.write_bytes(os.urandom(RESERVE_BYTES))  # random: file systems may compress zeros away

    def read_trained(self) -> dict[str, Any] | None:
        """Read what training measured, where it finished and the weights are there. Raises CorruptRun."""
        if not self.final.exists():
            return None
        try:
            return read_object(self.trained_file) if self.trained_file.exists() else None
        except CorruptRun as error:
            raise CorruptRun(
                f"{error}; the weights are whole, and what training measured is not: remove this file to train again"
            ) from None

    def status(self) -> str:
        """The state that its files show: finished, failed, killed, oom, diverged, bad-data, disk-full; interrupted,
        cancelled, running or pending. What waits in a queue is known to the scheduler alone (launch/records.py).
        Raises CorruptRun.
        """
        result = self.read_result()
        if result is not None and result["status"] not in UNFINISHED:
            return result["status"]
        attempt = ownership.latest(self.attempts)
        if attempt is not None and attempt.is_alive():
            return "running"
        if self.cancelled_file.exists():
            return "cancelled"
        return "interrupted" if attempt is not None or self.log_file.exists() else "pending"

    def log(self, values: dict[str, Any]) -> None:
        """One line of log.jsonl. Numbers that are not finite become null: JSON has none."""
        with self.log_file.open("a") as file:
            file.write(json.dumps(_finite(values)) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """All whole lines; a last line cut off by a kill is left out. Raises CorruptRun."""
        if not self.log_file.exists():
            return []
        try:
            return [json.loads(line) for line in self.log_file.read_text().split("\n")[:-1]]
        except ValueError as error:  # no text, or no JSON
            raise CorruptRun(f"{self.log_file}: {error}") from None

    def truncate_log(self, step: int) -> None:
        """Cut the log back to the steps up to this one, whose state a run goes on from; 0 empties it.

        Lines are in the order of their steps: all from the first later one on, or one that a crash left unreadable, go.
        """
        if not self.log_file.exists():
            return
        lines = self.log_file.read_bytes().splitlines(keepends=True)
        kept = b"".join(itertools.takewhile(lambda line: _logged_step(line) <= step, lines))
        write_atomically(self.log_file, lambda temporary: temporary.write_bytes(kept) and None)

    def last_logged(self) -> dict[str, Any] | None:
        """The newest line that can be read, from the end of the file."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().split(b"\n")[:-1]
        except OSError:
            return None
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                if isinstance(values := json.loads(line), dict):
                    return values
        return None

    def read_micro_batch(self) -> int | None:
        """Read the micro-batch to go on with after out-of-memory; None for the spec's, to which a damaged file falls
        back, with a warning: out of memory again, it is rewritten.
        """
        if not self.micro_batch_file.exists():
            return None
        try:
            micro_batch = read_object(self.micro_batch_file).get("micro_batch")
        except CorruptRun as error:
            logger.warning("%s; going on with the spec's micro_batch", error)
            return None
        if not isinstance(micro_batch, int) or micro_batch < 1:
            logger.warning("%s: expected a micro_batch; going on with the spec's", self.micro_batch_file)
            return None
        return micro_batch

    def alive_file(self, rank: int) -> Path:
        """Renewed every few seconds while this rank lives: its machine and process."""
        return self.job / f"alive-{rank}"

    def failure_file(self, rank: int) -> Path:
        """There where a rank failed alone, and could say so (liveness.py)."""
        return self.failures / f"{rank}.json"


def _logged_step(line: bytes) -> float:
    """The step of a line of the log; infinity where the line is not whole."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: null in their place."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }


def _without_hash(run_id: str) -> str:
    return run_id.rpartition("-")[0]


def run_directories(runs: Path, sweep: str | None = None) -> list[RunDirectory]:
    """Every run directory below runs/ (or of one sweep), sorted by name; one that lost its spec.json is one still."""
    folders = [runs / sweep] if sweep else [folder for folder in _listed(runs) if folder.is_dir()]
    return [RunDirectory(path) for folder in folders for path in _listed(folder) if _holds_a_run(path)]


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _holds_a_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("spec.json", "result.json", "log.jsonl"))


def find_run(target: str, runs: Path) -> RunDirectory | None:
    """A run by its directory, any path inside it, or its id below `runs`; None where there is no such run."""
    for folder in (Path(target), *Path(target).parents):
        if (folder / "spec.json").is_file():
            return RunDirectory(folder)
    found = list(runs.glob(f"*/{target}/spec.json")) if "/" not in target else []
    return RunDirectory(found[0].parent) if found else None
