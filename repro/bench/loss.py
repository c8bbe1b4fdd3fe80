"""Time, memory and gradient error of every loss implementation, side by side.

Time is measured in warmed processes, implementations in turn, round by round; memory in a process's first call;
the gradient against float64. Beside them stands what the machine's matrix products alone would take.
"""

import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from repro.bench import measure
from repro.bench.implementations import Implementation, Setting
from repro.bench.ranks import on_ranks
from repro.config.errors import InputError
from repro.config.units import format_bytes

KEYS = ["loss", "ranks", "local_batch", "dim", "dtype", "device", "threads", "implementation"]
"""Columns that identify a row of the results, beside the machine."""


@dataclass(frozen=True)
class Effort:
    """How much is measured. check_up_to: the largest global batch whose gradients are held against float64."""

    repeats: int = 5
    rounds: int = 3
    check_up_to: int = 16 * 1024
    limit_seconds: float = 600.0
    square: int = 4096


class InTurn:
    """Measures candidates of one setting by turns; one that fails keeps its reason and is passed over from then on."""

    def __init__(self, setting: Setting, names: Iterable[str], effort: Effort, report: Callable[[str], None]):
        self.setting, self.effort, self.report = setting, effort, report
        self.ends = {name: ("ok", "") for name in names}
        self.times: dict[tuple[str, str], list[float]] = defaultdict(list)

    def works(self, name: str) -> bool:
        return self.ends[name][0] == "ok"

    def run(self, name: str, what: str, function: Callable, *arguments: Any, ranks: int | None = None) -> list[Any]:
        """Return each rank's value, nothing where one fails. Fewer ranks than the setting's get all their threads."""
        setting, ranks = self.setting, ranks or self.setting.ranks
        options = {"threads": setting.threads * setting.ranks // ranks, "device": setting.device}
        outcome = on_ranks(function, *arguments, ranks=ranks, **options, limit_seconds=self.effort.limit_seconds)
        if outcome.status != "ok" and name:
            self.ends[name] = outcome.status, f"{what}: {outcome.reason}"
            self.report(f"{setting.label}: {name} {outcome.status}, {outcome.reason}")
        return outcome.values

    def time(self, name: str, what: str, function: Callable, *arguments: Any) -> None:
        """Add the slowest rank's seconds of every repeat to those of `what`."""
        if values := self.run(name, what, function, *arguments):
            slowest = [max(ranks) for ranks in zip(*values, strict=True)]
            self.times[name, what] += slowest
            self.report(f"{self.setting.label}: {name}, {what} {1e3 * statistics.median(slowest):,.1f} ms")

    def rates(self, square: int) -> dict[str, float]:
        """Operations a second of the slowest rank's matrix products, by their shape."""
        ranks = self.run("", "", measure.matmul_rate, self.setting, square)
        return {name: min(rates[name] for rates in ranks) for name in (ranks[0] if ranks else ())}

    def summary(self, name: str, what: str, prefix: str = "") -> dict[str, float]:
        times = self.times[name, what]
        numbers = (statistics.median(times), min(times), max(times)) if times else ()
        names = (f"{prefix}seconds", f"{prefix}seconds_least", f"{prefix}seconds_most")
        return dict(zip(names, numbers, strict=False))


def compare(
    settings: Sequence[Setting],
    implementations: Sequence[Implementation],
    effort: Effort,
    reference: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """One row a setting and implementation; status says what became of it, reason why.

    reference: the implementation that `ratio` is taken to; None for the fastest of open_clip's. Raises InputError where
    it is not among what is measured.
    """
    names = sorted({i.name for i in implementations})
    if reference is not None and reference not in names:
        raise InputError(f"--reference: '{reference}' is not measured; expected one of {', '.join(names)}")
    tables = []
    for setting in settings:
        chosen = {i.name: i for i in implementations if i.loss == setting.loss}
        tables.append(_with_ratio(pd.DataFrame(_rows(setting, chosen, effort, report)), reference))
    return pd.concat(tables, ignore_index=True)


def _rows(
    setting: Setting, implementations: dict[str, Implementation], effort: Effort, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    turns = InTurn(setting, implementations, effort, report)
    found: dict[str, dict[str, Any]] = {name: {} for name in implementations}
    best: dict[str, float] = {}
    for name, implementation in implementations.items():
        if reason := implementation.obstacle(setting):
            turns.ends[name] = "not run", reason
        elif reason := too_large(implementation, setting):
            turns.ends[name] = "too large", reason
    for number in range(effort.rounds):
        rates = turns.rates(effort.square if number == 0 else 0) if any(map(turns.works, found)) else {}
        best |= {shape: max(rate, best.get(shape, 0.0)) for shape, rate in rates.items()}
        for name in filter(turns.works, found):
            turns.time(name, "timing", measure.seconds, implementations[name], setting, effort.repeats)
    for name in filter(turns.works, found):
        if held := turns.run(name, "memory", measure.peak_memory, implementations[name], setting):
            found[name]["peak_memory_bytes"] = max(held)
            report(f"{setting.label}: {name} {format_bytes(max(held))}")
    if setting.batch_size <= effort.check_up_to and any(map(turns.works, found)):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "gradients.pt"
            turns.run("float64", "gradient not checked, float64", measure.write_reference, setting, file, ranks=1)
            for name in filter(turns.works, found):
                if "float64" in turns.ends:
                    turns.ends[name] = "ok", turns.ends["float64"][1]
                elif parts := turns.run(name, "gradient", measure.squared_errors, implementations[name], setting, file):
                    found[name] |= measure.relative_errors(parts)
    limits = {f"matmul_{shape}_per_second": rate for shape, rate in best.items()}
    rate = max(best.values(), default=math.nan)
    limits |= {"matmul_limit_seconds": setting.operations / rate}
    rows = []
    for name in found:
        status, reason = turns.ends[name]
        row = asdict(setting) | {"batch_size": setting.batch_size, "implementation": name, "status": status}
        row |= {"reason": reason} | found[name] | limits
        if times := turns.summary(name, "timing"):
            share = setting.operations / times["seconds"] / rate
            row |= times | {"measurements": len(turns.times[name, "timing"]), "share_of_matmul_rate": share}
        rows.append(row)
    return rows


def too_large(implementation: Implementation, setting: Setting) -> str:
    """Why there is no use in trying, on CPUs, where the system would start to kill processes; empty where there is."""
    needed, available = setting.ranks * implementation.least_bytes(setting), psutil.virtual_memory().available
    if setting.device != "cpu" or needed <= available:
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


def draw(table: pd.DataFrame, settings: pd.DataFrame, file: Path) -> None:
    """The report's figure of the recorded rows whose ranks, dim, dtype, device and threads are among these settings."""
    from repro.report.exhibits.benchmark import PANELS_BY, loss
    from repro.report.inputs import Inputs

    drawn = table.merge(settings[PANELS_BY].drop_duplicates(), on=PANELS_BY)
    for exhibit in loss(Inputs(*[pd.DataFrame()] * 4, bench={"loss": drawn})):
        exhibit.figure.savefig(file, dpi=200)
