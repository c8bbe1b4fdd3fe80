"""The sweeps there are, as `repro sweep` alone shows them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from repro.cli.tables import written_hours
from repro.spec import SCALES

if TYPE_CHECKING:
    from repro.plan.listing import Cost
    from repro.sweep import Sweep


def sweeps_table(costs: "Sequence[tuple[Sweep, Mapping[str, Cost]]]") -> Table:
    """A sweep a row; for each scale its runs, and the hours of cores or GPUs."""
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))  # fits 100 columns
    for column in ("sweep", "what it shows", "reproduces"):
        shown.add_column(f"\n{column}", overflow="fold", no_wrap=column == "sweep")
    for scale in SCALES:
        shown.add_column(f"{scale}\nruns", justify="right", no_wrap=True)
        shown.add_column("core-\nhours" if scale == "laptop" else "GPU-\nhours", justify="right", no_wrap=True)
    for sweep, by_scale in costs:
        cells = [cell for scale in SCALES for cell in _cells(by_scale.get(scale))]
        shown.add_row(sweep.name, sweep.title, sweep.reproduces, *cells)
    return shown


def sweeps_notes(costs: "Sequence[tuple[Sweep, Mapping[str, Cost]]]") -> list[str]:
    from repro.plan.listing import CLUSTER

    problems = [
        f"{sweep.name} at scale {scale}: {cost.problem}"
        for sweep, by_scale in costs
        for scale, cost in by_scale.items()
        if cost.problem
    ]
    return [
        f"hours: at laptop scale foretold from a calibration, at the others as the profile {CLUSTER} assumes; "
        "repro plan NAME --scale SCALE says more",
        *problems,
    ]


def _cells(cost: "Cost | None") -> tuple[str, str]:
    if cost is None:
        return "–", "–"
    runs = f"{cost.runs:,}" if cost.runs else "?"
    return runs, "?" if cost.hours is None else written_hours(cost.hours)
