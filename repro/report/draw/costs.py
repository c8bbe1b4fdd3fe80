"""Drawn from clocks: where a step's time goes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from repro.config.units import format_batch_size
from repro.report import tables
from repro.report.draw.axes import every_nth, new_axes
from repro.report.style import INK, PAPER, look

PARTS = {
    "data_seconds": ("waiting for data", "#b9bfc6", ""),
    "towers_seconds": ("towers", "#56b4e9", ""),
    "loss_seconds": ("loss", "#e69f00", "///"),
    "exchange_seconds": ("exchange", "#cc79a7", "xxx"),
    "optimizer_seconds": ("optimizer", "#009e73", "\\\\\\"),
    "other_seconds": ("other", "#7a7f87", ""),
}
"""Columns of a run, mean seconds a step: name, colour (Okabe and Ito's, pale) and hatch, which tells them in grey."""


def parts_of(table: pd.DataFrame) -> list[str]:
    """The parts of a step that these runs have."""
    done = tables.finished(table)
    return [part for part in PARTS if part in done and tables.numbers(done[part]).notna().any()]


def step_parts(table: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds a step of each part, a row for each batch size and loss; finished runs that have any of them."""
    done, parts = tables.finished(table), parts_of(table)
    numbers = done.assign(**{part: tables.numbers(done[part]) for part in parts}).dropna(subset=parts, how="all")
    return numbers.groupby(["batch_size", "loss"])[parts].mean().reset_index()


def step_time(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Seconds of a step, stacked by what they went to: a bar for each batch size and loss, sigmoid at the left.

    table: one series of runs with columns of PARTS; several seeds are averaged.
    """
    axes = new_axes(ax)
    means = step_parts(table)
    sizes, losses = sorted(means["batch_size"].unique()), sorted(means["loss"].unique())
    width = 0.8 / max(1, len(losses))
    for place, loss in enumerate(losses):
        rows = means[means["loss"] == loss].set_index("batch_size").reindex(sizes).fillna(0)
        x = np.arange(len(sizes)) + (place - (len(losses) - 1) / 2) * width
        bottom = np.zeros(len(sizes))
        for part in (part for part in PARTS if part in rows):
            name, colour, hatch = PARTS[part]
            bar = {"color": colour, "hatch": hatch, "edgecolor": PAPER, "linewidth": 0.4}
            axes.bar(x, rows[part], 0.92 * width, bottom, label=name, **bar)
            bottom += rows[part].to_numpy()
        mark = look(loss)
        there = bottom > 0
        axes.plot(
            x[there],
            bottom[there],
            linestyle="none",
            marker=mark["marker"],
            color=mark["color"],
            ms=4,
            mec=PAPER,
            mew=0.5,
        )
    every = every_nth(axes, [format_batch_size(int(size)) for size in sizes])
    axes.set_xticks(range(0, len(sizes), every), [format_batch_size(int(size)) for size in sizes[::every]], color=INK)
    axes.set_xlabel("batch size")
    axes.set_ylabel("seconds a step")
    axes.set_ylim(bottom=0)
    axes.grid(False, axis="x")
    return axes
