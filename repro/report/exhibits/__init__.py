"""Every exhibit of the report that there are runs for: the paper's figures, then its tables, then cost."""

from collections.abc import Callable, Iterator

from repro.report.exhibits import (
    batch_size,
    batch_tables,
    benchmark,
    compute,
    cost,
    languages,
    released,
    robustness,
    settings,
    training,
)
from repro.report.exhibits.exhibit import Exhibit as Exhibit
from repro.report.found import Found

FIGURES = (
    batch_size.figure_2,
    batch_size.figure_3,
    training.figure_4,
    training.figure_5,
    robustness.figure_6,
    robustness.figure_7,
    languages.figure_8,
    training.curves_by_sweep,
)
TABLES = (
    settings.table_1,
    languages.table_2,
    released.table_3,
    settings.table_4,
    batch_tables.table_5,
    settings.table_6,
    settings.table_7,
    batch_tables.table_8,
    languages.table_9,
    settings.vocabulary,
)
COSTS = (
    cost.throughput,
    cost.step_split,
    cost.loss_share,
    cost.memory,
    benchmark.capacity,
    benchmark.loss,
    benchmark.exchange,
    compute.compute,
    compute.hours,
)


SHOWN = (
    *(f"figure {number}" for number in (2, 3, 4, 5, 6, 7, 8)),
    *(f"table {number}" for number in range(1, 10)),
    "section 4.3",
)
"""What of the paper has an exhibit: sweeps that reproduce one of these need no other."""


def exhibits(found: Found) -> list[Exhibit]:
    """All exhibits, in the order in which a report shows them."""
    figures, tables, costs = (list(_made(found, each)) for each in (FIGURES, TABLES, COSTS))
    covered = found.sweeps_of(*SHOWN)
    return [*figures, *batch_size.by_sweep(found, covered), *tables, *costs]


def _made(found: Found, makers: tuple[Callable[[Found], Iterator[Exhibit]], ...]) -> Iterator[Exhibit]:
    for make in makers:
        yield from make(found)
