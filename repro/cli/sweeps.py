"""The sweeps there are, as `repro sweep` alone shows them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from repro.cli.tables import written_hours
from repro.config.spec import SCALES

if TYPE_CHECKING:
    from repro.estimate.listing import Cost, Listed


def sweeps_table(sweeps: "Sequence[Listed]") -> Table:
    """A sweep a row; for each scale its runs, and the hours of cores or GPUs."""
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))  # fits 100 columns
    for column in ("sweep", "what it shows", "reproduces"):
        shown.add_column(f"\n{column}", overflow="fold", no_wrap=column == "sweep")
    for scale in SCALES:
        shown.add_column(f"{scale}\nruns", justify="right", no_wrap=True)
        shown.add_column("core-\nhours" if scale == "laptop" else "GPU-\nhours", justify="right", no_wrap=True)
    for sweep in sweeps:
        cells = [cell for scale in SCALES for cell in _cells(sweep.costs.get(scale))]
        shown.add_row(sweep.name, sweep.title, sweep.reproduces, *cells)
    return shown


def sweeps_notes(sweeps: "Sequence[Listed]") -> list[str]:
    """Where the hours come from, and what keeps a sweep from having some."""
    from repro.estimate.listing import CLUSTER

    problems = [(sweep.name, sweep.problem) for sweep in sweeps]
    problems += [
        (f"{sweep.name} at scale {scale}", cost.problem) for sweep in sweeps for scale, cost in sweep.costs.items()
    ]
    return [
        f"hours: at laptop scale predicted from a calibration, at the others as the profile {CLUSTER} assumes; "
        "repro plan NAME --scale SCALE says more",
        *(f"{which}: {problem}" for which, problem in problems if problem),
    ]


def _cells(cost: "Cost | None") -> tuple[str, str]:
    if cost is None:
        return "–", "–"
    if cost.measurement:
        return "bench", "–"
    runs = f"{cost.runs:,}" if cost.runs else "?"
    return runs, "?" if cost.hours is None else written_hours(cost.hours)
