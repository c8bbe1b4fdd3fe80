"""Where a section runs, and the rows that it leaves in a CSV, each on disk as soon as it is measured."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from repro.bench import record


class OutOfTime(Exception):
    """A section has used its time; what it has measured is in its rows."""


@dataclass(frozen=True)
class Expected:
    """predicted: a range, in words, from before the first measurement. at_most, at_least: the goal, if there is one."""

    predicted: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def limit(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    def verdict(self, measured: float | str) -> str:
        """'met' or 'missed'; empty without a goal."""
        if isinstance(measured, str) or not self.limit:
            return ""
        met = measured <= self.at_most if self.at_most is not None else measured >= self.at_least
        return "met" if met else "missed"


NOTHING_EXPECTED = Expected()


COLUMNS = ("section", "case", "quantity", "measured", "predicted", "limit", "verdict", "unit", "status", "reason")
"""One figure, or why there is none. status: 'ok', 'not run', 'oom', 'failed' or 'timeout'."""
BLANK = dict.fromkeys(COLUMNS, "") | {"status": "ok"}


@dataclass(frozen=True)
class Rows:
    """The rows of one section's CSV: any process of the section may append to it."""

    section: str
    file: Path
    origin: tuple[str, ...]

    @classmethod
    def begin(cls, section: str, file: Path, device: str) -> "Rows":
        origin = record.origin(device)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(",".join([*COLUMNS, *origin]) + "\n")
        return cls(section, file, tuple(origin.values()))

    def add(
        self,
        case: str,
        quantity: str,
        measured: float | str,
        unit: str = "",
        expected: Expected = NOTHING_EXPECTED,
        reason: str = "",
    ) -> None:
        """reason: an explanation."""
        goal = {"predicted": expected.predicted, "limit": expected.limit, "verdict": expected.verdict(measured)}
        self._append(case=case, quantity=quantity, measured=measured, **goal, unit=unit, reason=reason)

    def add_missing(self, case: str, status: str, reason: str, quantity: str = "") -> None:
        """Add a row that says why something was not measured."""
        self._append(case=case, quantity=quantity, status=status, reason=reason)

    def _append(self, **cells: float | str) -> None:
        """In one write, when the file is closed, so that a process that is killed leaves whole lines."""
        row = BLANK | {"section": self.section} | cells
        said = row["reason"] or f"{row['measured']} {row['unit']}"
        print(f"{time.strftime('%H:%M:%S')} {row['case']}: {row['quantity'] or row['status']}: {said}")
        with self.file.open("a") as file:
            csv.writer(file, lineterminator="\n").writerow([*row.values(), *self.origin])


@dataclass(frozen=True)
class Place:
    """device: 'cuda', or 'cpu' for a rehearsal at toy sizes. out: the folder with all sections' CSVs.

    scratch: shared by the sections, and removed at the end. deadline: by time.monotonic(); what is not done is killed.
    """

    device: str
    rows: Rows
    out: Path
    scratch: Path
    deadline: float

    @property
    def toy(self) -> bool:
        return self.device == "cpu"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda", 0) if self.device == "cuda" else torch.device("cpu")

    def reserve(self, seconds: float, case: str) -> None:
        """Raises OutOfTime, and leaves a row that says so, where less is left than the case is known to take."""
        if self.left < seconds:
            reason = f"{max(0.0, self.left):.0f} s were left; it takes about {seconds:.0f} s"
            self.rows.add_missing(case, "timeout", reason)
            raise OutOfTime(f"{case}: {reason}")

    def expected(self, predicted: str = "", **goal: float) -> Expected:
        """Expectation for a GPU; a rehearsal expects nothing."""
        return NOTHING_EXPECTED if self.toy else Expected(predicted, **goal)


def section_row(section: str, seconds: float, limit_seconds: float, status: str, reason: str) -> dict[str, object]:
    """Row of the summary that says how a section ended."""
    row = {"section": section, "quantity": "section", "measured": round(seconds, 1), "limit": f"≤ {limit_seconds:.0f}"}
    return BLANK | row | {"unit": "s", "status": status, "reason": reason}
