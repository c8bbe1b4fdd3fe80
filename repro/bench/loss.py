"""Time, memory and gradient error of every loss implementation, side by side.

Time is measured in warmed processes, implementations in turn, round by round; memory in a process's first call;
the gradient against float64. Beside them stands what the machine's matrix products alone would take.
"""

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from repro.bench import measure
from repro.bench.implementations import Implementation
from repro.bench.ranks import Outcome, on_ranks
from repro.bench.setting import DTYPES, Setting
from repro.config.errors import InputError
from repro.config.units import format_bytes

KEYS = ["loss", "ranks", "local_batch", "dim", "dtype", "device", "threads", "implementation"]
"""What tells rows of the results apart, beside the machine."""
ERRORS = {
    "images": "error_images",
    "texts": "error_texts",
    "logit_scale": "error_logit_scale",
    "logit_bias": "error_logit_bias",
}


@dataclass(frozen=True)
class Effort:
    """How much is measured. check_up_to: the largest global batch whose gradients are held against float64."""

    repeats: int = 5
    rounds: int = 3
    check_up_to: int = 16 * 1024
    limit_seconds: float = 600.0
    square: int = 4096


def compare(
    settings: Sequence[Setting],
    implementations: Sequence[Implementation],
    effort: Effort,
    reference: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """One row a setting and implementation; status says what became of it, reason why.

    reference: the implementation that `ratio` is taken to; None for the fastest of open_clip's.
    """
    tables = []
    for setting in settings:
        chosen = [i for i in implementations if i.loss == setting.loss]
        rows = _Comparison(setting, chosen, effort, report).rows()
        tables.append(_with_ratio(pd.DataFrame(rows), reference))
    return pd.concat(tables, ignore_index=True)


class _Comparison:
    """One setting's measurements: a row for each implementation, filled in round by round."""

    def __init__(
        self,
        setting: Setting,
        implementations: Sequence[Implementation],
        effort: Effort,
        report: Callable[[str], None],
    ):
        self.setting, self.effort, self.report = setting, effort, report
        self.rates: dict[str, float] = {}
        self.times: dict[str, list[float]] = {i.name: [] for i in implementations}
        self.found = {i: self._begin(i) for i in implementations}

    def _begin(self, implementation: Implementation) -> dict:
        row = asdict(self.setting) | {"batch_size": self.setting.batch_size, "implementation": implementation.name}
        if reason := implementation.obstacle(self.setting):
            return row | {"status": "not run", "reason": reason}
        if reason := too_large(implementation, self.setting):
            return row | {"status": "too large", "reason": reason}
        return row | {"status": "ok", "reason": ""}

    def rows(self) -> list[dict]:
        for number in range(self.effort.rounds):
            if self._working():
                self._measure_rates(self.effort.square if number == 0 else 0)
            for implementation in self._working():
                self._measure_time(implementation, number)
        for implementation in self._working():
            self._measure_memory(implementation)
        if self.setting.batch_size <= self.effort.check_up_to and self._working():
            self._check_gradients()
        return [row | self._times(row["implementation"]) for row in self.found.values()]

    def _working(self) -> list[Implementation]:
        return [i for i, row in self.found.items() if row["status"] == "ok"]

    def _run(self, function: Callable, *arguments, ranks: int | None = None) -> Outcome:
        """On the setting's ranks, or on fewer with all of their threads."""
        setting, ranks = self.setting, ranks or self.setting.ranks
        options = {"threads": setting.threads * setting.ranks // ranks, "device": setting.device}
        return on_ranks(function, *arguments, ranks=ranks, **options, limit_seconds=self.effort.limit_seconds)

    def _failed(self, implementation: Implementation, outcome: Outcome, what: str) -> bool:
        if outcome.status == "ok":
            return False
        self.found[implementation] |= {"status": outcome.status, "reason": f"{what}: {outcome.reason}"}
        self.report(f"{implementation.name}: {outcome.status}, {outcome.reason}")
        return True

    def _measure_rates(self, square: int) -> None:
        """The best rate of the slowest rank, over all rounds."""
        outcome = self._run(measure.matmul_rate, self.setting, square)
        for name in outcome.values[0] if outcome.values else ():
            slowest = min(rates[name] for rates in outcome.values)
            self.rates[name] = max(slowest, self.rates.get(name, 0.0))

    def _measure_time(self, implementation: Implementation, number: int) -> None:
        outcome = self._run(measure.seconds, implementation, self.setting, self.effort.repeats)
        if not self._failed(implementation, outcome, "timing"):
            slowest = [max(ranks) for ranks in zip(*outcome.values, strict=True)]
            self.times[implementation.name] += slowest
            middle = statistics.median(slowest)
            self.report(f"{self.setting.label}, round {number + 1}: {implementation.name} {1e3 * middle:,.1f} ms")

    def _measure_memory(self, implementation: Implementation) -> None:
        outcome = self._run(measure.peak_memory, implementation, self.setting)
        if not self._failed(implementation, outcome, "memory"):
            self.found[implementation]["peak_memory_bytes"] = max(outcome.values)
            self.report(f"{self.setting.label}: {implementation.name} {format_bytes(max(outcome.values))}")

    def _check_gradients(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "gradients.pt"
            made = self._run(measure.write_reference, self.setting, file, ranks=1)
            for implementation in self._working():
                if made.status != "ok":
                    self.found[implementation]["reason"] = f"gradient not checked, float64: {made.reason}"
                    continue
                outcome = self._run(measure.squared_errors, implementation, self.setting, file)
                if not self._failed(implementation, outcome, "gradient"):
                    self.found[implementation] |= relative_errors(outcome.values)

    def _times(self, name: str) -> dict[str, float]:
        rate = max(self.rates.values(), default=math.nan)
        found = {f"matmul_{key}_per_second": value for key, value in self.rates.items()}
        found |= {"matmul_limit_seconds": self.setting.operations / rate}
        if times := self.times[name]:
            middle = statistics.median(times)
            found |= {"seconds": middle, "seconds_least": min(times), "seconds_most": max(times)}
            found |= {"measurements": len(times), "share_of_matmul_rate": self.setting.operations / middle / rate}
        return found


def relative_errors(ranks: Sequence[dict[str, tuple[float, float]]]) -> dict[str, float]:
    """‖g − g64‖ ÷ ‖g64‖ over all ranks' parts; for t and b the error of the mean over ranks."""
    found = {}
    for name in ranks[0]:
        first, second = (sum(part[name][i] for part in ranks) for i in range(2))
        if name in ("images", "texts"):
            found[ERRORS[name]] = math.sqrt(first / second)
        else:
            found[ERRORS[name]] = abs(first / second - 1)
    return found


def too_large(implementation: Implementation, setting: Setting) -> str:
    """Why there is no use in trying, on CPUs, where the system would start to kill processes; empty where there is."""
    if setting.device != "cpu":
        return ""
    needed = setting.ranks * implementation.least_bytes(setting, DTYPES[setting.dtype].itemsize)
    with open("/proc/meminfo") as lines:
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if needed <= available:
        return ""
    return f"needs at least {format_bytes(needed)}; {format_bytes(available)} are available"


def _with_ratio(table: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """Adds `ratio`, time over the reference's time, where the reference was measured."""
    if "seconds" not in table:
        return table
    measured = table.dropna(subset="seconds").set_index("implementation")["seconds"]
    if reference is None:
        peers = measured[measured.index.str.startswith("open_clip")]
        reference = peers.idxmin() if len(peers) else None
    if reference not in measured:
        return table
    return table.assign(ratio=table["seconds"] / measured[reference], reference=reference)


def check_reference(reference: str | None, implementations: Sequence[Implementation]) -> None:
    """Raises InputError where the reference is not among what is measured."""
    names = sorted({i.name for i in implementations})
    if reference is not None and reference not in names:
        raise InputError(f"--reference: '{reference}' is not measured; expected one of {', '.join(names)}")
