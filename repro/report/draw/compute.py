"""Accuracy against what training cost, with the runs that no other beats at the same cost or less."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from repro.report import tables
from repro.report.draw.axes import label_rows, metric_label, new_axes
from repro.report.draw.series import draw_runs, finish
from repro.report.style import INK, look

MOST_TICKS = 4


def pareto_front(table: pd.DataFrame, cost: str, metric: str) -> pd.Series:
    """Whether each run is on the front: none is as good or better that cost as little or less."""
    order = pd.DataFrame({"cost": tables.numbers(table[cost]), "worse": -tables.numbers(table[metric])})
    order = order.dropna().sort_values(["cost", "worse"])
    best_before = (-order["worse"]).cummax().shift(fill_value=-math.inf)
    return (-order["worse"] > best_before).reindex(table.index, fill_value=False)


def pareto(
    table: pd.DataFrame, cost: str, metric: str, ax: Axes | None = None, label: str = "", singles: bool = True
) -> Axes:
    """A metric (0 to 1, drawn in percent) against a cost on a logarithmic axis, each run a point, the front joined.

    table: one row a run, the cost as a column. singles: false draws the front alone.
    """
    axes = new_axes(ax)
    runs = tables.finished(table)
    runs = runs.assign(**{cost: tables.numbers(runs[cost]), metric: tables.numbers(runs[metric])})
    runs = runs.dropna(subset=[cost, metric])
    runs = runs[runs[cost] > 0]
    front = runs[pareto_front(runs, cost, metric)].sort_values(cost)
    axes.step(front[cost], 100 * front[metric], where="post", color=INK, lw=1, label="front", zorder=2)
    for loss, part in (runs if singles else front).groupby("loss"):
        style = look(loss)
        draw_runs(axes, part, cost, metric, 100, style | {"facecolor": style["color"], "alpha": 0.75})
    # The front's runs again, ringed.
    axes.plot(front[cost], 100 * front[metric], "o", mfc="none", mec=INK, ms=7, mew=0.9, label="on the front", zorder=4)
    _label_cost(axes, runs[cost], label or cost.replace("_", " "))
    label_rows(axes, metric_label(metric))
    shown = runs if singles else front
    finish(axes, shown, metric, [], cost, 100)
    return axes


def _label_cost(axes: Axes, values: pd.Series, label: str) -> None:
    """A logarithmic axis with two to five ticks, however little of a decade it spans."""
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.xaxis.set_minor_locator(NullLocator())
    if values.empty:
        return
    low, high = values.min() / 1.3, values.max() * 1.3
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= MOST_TICKS // 2:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // MOST_TICKS) or 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_large(value)))


def format_large(value: float) -> str:
    """2e14 → 2e14, 20 → 20, 0.05 → 0.05."""
    return f"{value:.2g}".replace("e+", "e") if value >= 1e6 else f"{value:,.6g}"
