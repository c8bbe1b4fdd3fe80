"""Every exhibit of the report that there are runs for: the paper's figures, then its tables, then cost."""

from repro.report.exhibits import batch_size, benchmark, cost, settings, training
from repro.report.exhibits.exhibit import Exhibit as Exhibit
from repro.report.inputs import Inputs

FIGURES = (
    *(batch_size.figure_2, batch_size.figure_3, training.figure_4, training.figure_5, training.figure_6),
    *(training.figure_7, batch_size.figure_8, training.curves_by_sweep),
)
TABLES = (
    *(settings.table_1, batch_size.table_2, settings.table_3, settings.table_4, batch_size.table_5, settings.table_6),
    *(settings.table_7, batch_size.table_8, batch_size.table_9, settings.vocabulary),
)
COSTS = (
    *(cost.throughput, cost.step_split, cost.loss_share, cost.memory),
    *(benchmark.capacity, benchmark.loss, benchmark.exchange, cost.compute, cost.hours),
)
SHOWN = (*(f"figure {n}" for n in range(2, 9)), *(f"table {n}" for n in range(1, 10)), "section 4.3")
"""Parts of the paper that have an exhibit: sweeps that reproduce one of these need no other."""


def exhibits(inputs: Inputs) -> list[Exhibit]:
    """All exhibits, in the order in which a report shows them."""
    figures, tables, costs = ([e for make in each for e in make(inputs)] for each in (FIGURES, TABLES, COSTS))
    return [*figures, *batch_size.by_sweep(inputs, inputs.sweeps_of(*SHOWN)), *tables, *costs]
