"""Time and memory of the loss implementations against the batch, one line each, beside what the products alone take.

The panels are those of the report (repro/report/draw/benchmark.py), a block for each ranks, dim, dtype and device.
"""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from repro.config.units import format_bytes
from repro.report.draw.axes import label_log_rows
from repro.report.draw.benchmark import LIMIT, format_seconds, in_order, loss_cost, styles
from repro.report.exhibits.benchmark import PANELS_BY, place
from repro.report.figures import add_legend
from repro.report.style import STYLE

PANEL = (3.3, 2.5)


@matplotlib.rc_context(STYLE)
def draw(table: pd.DataFrame, file: Path) -> None:
    """For each ranks, dim, dtype and device of the table two rows, time and memory, and a column for each loss.

    The scale of a row is one, so that the losses can be read off against each other.
    """
    losses = sorted(table["loss"].unique())
    order = in_order(table.dropna(subset="seconds")["implementation"])  # a name looks the same in every panel
    blocks = list(table.groupby(PANELS_BY, sort=True))
    size = (PANEL[0] * len(losses) + 0.4, 2 * PANEL[1] * len(blocks) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2 * len(blocks), len(losses), squeeze=False, sharey="row")
    for number, (key, block) in enumerate(blocks):
        for column, loss in enumerate(losses):
            part = block[block["loss"] == loss]
            time, memory = grid[2 * number][column], grid[2 * number + 1][column]
            time.set_title(f"{loss}\n{place(dict(zip(PANELS_BY, key, strict=True)))}", loc="left")
            loss_cost(part, "seconds", time, order)
            loss_cost(part, "peak_memory_bytes", memory, order)
        label_log_rows(grid[2 * number][0], "forward + backward", format_seconds)
        label_log_rows(grid[2 * number + 1][0], "peak extra memory", format_bytes, 4)
    add_legend(figure, styles(order) | {"the products by torch.mm": LIMIT})
    figure.savefig(file, dpi=200)
