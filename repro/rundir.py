"""Every file name and format of a run directory, in one place.

A run writes only here: append-only JSON lines, or a temporary file renamed into place, so that a killed run
leaves whole files or none. All that is read elsewhere (status, tables, reports) is derived from these files.
"""

import datetime
import itertools
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro import attempts
from repro.errors import InputError
from repro.spec import FORMAT, RunSpec

UNFINISHED = ("pending", "queued", "running", "interrupted", "cancelled")
"""States of a run that typing the command again takes up. All others are results."""


class CorruptRun(ValueError):
    """A run directory's file cannot be read; the message names the file and says why."""


class RunDirectory:
    """The files of one run. Making the object touches nothing on disk."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.spec_file = self.path / "spec.json"
        self.provenance_file = self.path / "provenance.json"
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
        self.micro_batch_file = self.job / "micro-batch.json"

    def write_spec(self, spec: RunSpec) -> None:
        self.job.mkdir(parents=True, exist_ok=True)
        write_json(self.spec_file, spec.model_dump())

    def read_spec(self) -> RunSpec:
        """Raises CorruptRun."""
        values = read_json(self.spec_file)
        if not isinstance(values, dict):
            raise CorruptRun(f"{self.spec_file}: expected keys and values")
        if values.get("format") != FORMAT:
            found = values.get("format")
            raise CorruptRun(f"{self.spec_file}: format {found}; this version of repro reads format {FORMAT}")
        try:
            return RunSpec.parse(values, str(self.spec_file))
        except InputError as error:
            raise CorruptRun(str(error)) from None

    def read_result(self) -> dict[str, Any] | None:
        """The result, or None where the run has not ended. Raises CorruptRun."""
        if not self.result_file.exists():
            return None
        result = read_json(self.result_file)
        if not isinstance(result, dict) or "status" not in result:
            raise CorruptRun(f"{self.result_file}: expected a result with a status")
        return result

    def write_result(self, result: dict[str, Any]) -> None:
        """The row; what is not finite becomes null."""
        finished_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_json(self.result_file, {"format": FORMAT, **_finite(result), "finished_at": finished_at})

    def read_trained(self) -> dict[str, Any] | None:
        """What training measured, where it came to its end and the weights are there. Raises CorruptRun."""
        if not self.final.exists():
            return None
        return read_json(self.trained_file) if self.trained_file.exists() else None

    def status(self) -> str:
        """What its files say: finished, failed, killed, oom, diverged, bad-data, disk-full; interrupted, cancelled,
        running or pending. What waits in a queue is known to the scheduler alone (launch/survey.py). Raises CorruptRun.
        """
        result = self.read_result()
        if result is not None and result["status"] not in UNFINISHED:
            return result["status"]
        attempt = attempts.latest(self.attempts)
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
        """All whole lines; a last line cut off by a kill is left out."""
        if not self.log_file.exists():
            return []
        lines = self.log_file.read_text().split("\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except json.JSONDecodeError as error:
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
        """The newest whole line, read from the end of the file."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().split(b"\n")[:-1]
            return json.loads(lines[-1]) if lines else None
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def read_micro_batch(self) -> int | None:
        """What the run goes on with after it was out of memory; None for the spec's. Raises CorruptRun."""
        return read_json(self.micro_batch_file)["micro_batch"] if self.micro_batch_file.exists() else None

    def alive_file(self, rank: int) -> Path:
        """Renewed every few seconds while this rank lives: its machine and process."""
        return self.job / f"alive-{rank}"

    def failure_file(self, rank: int) -> Path:
        """What ended this rank, where it could say so itself: status, reason, and whether it only missed another."""
        return self.job / f"failure-{rank}.json"


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


def run_directories(runs: Path, sweep: str | None = None) -> list[RunDirectory]:
    """Every run directory below runs/ (or of one sweep), sorted by name."""
    specs = runs.glob(f"{sweep or '*'}/*/spec.json")
    return [RunDirectory(file.parent) for file in sorted(specs)]


def find_run(target: str, runs: Path) -> RunDirectory | None:
    """A run by its directory, any path inside it, or its id below `runs`; None where there is no such run."""
    for folder in (Path(target), *Path(target).parents):
        if (folder / "spec.json").is_file():
            return RunDirectory(folder)
    found = list(runs.glob(f"*/{target}/spec.json")) if "/" not in target else []
    return RunDirectory(found[0].parent) if found else None


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `file`, sync it to disk, and rename it into place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
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
    text = json.dumps(values, indent=1) + "\n"
    write_atomically(file, lambda temporary: temporary.write_text(text) and None)


def read_json(file: Path) -> Any:
    """Raises CorruptRun that names the file."""
    try:
        return json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptRun(f"{file}: {error}") from None
