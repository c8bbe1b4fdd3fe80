"""Every exhibit of the report that there are runs for: the paper's figures, then its tables, then cost."""

from repro.report.exhibits import batch_size, batch_tables, languages, released, robustness, settings, training
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
COSTS = ()


def exhibits(found: Found) -> list[Exhibit]:
    """All exhibits, in the order in which a report shows them."""
    return [exhibit for make in (*FIGURES, *TABLES, *COSTS) for exhibit in make(found)]
