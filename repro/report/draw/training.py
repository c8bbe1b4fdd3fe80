"""Drawn along training: accuracy at points of a run, and columns of its log."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.report import tables
from repro.report.draw.axes import (
    label_examples,
    label_examples_evenly,
    label_log_rows,
    label_rows,
    metric_label,
    new_axes,
)
from repro.report.draw.series import draw_series, finish
from repro.report.style import looks

MOST_CURVES = 12
"""Of more runs of one setting their median is drawn."""
MOST_LINES = 400
"""Points of one curve: a figure 8 cm wide shows no more."""


def accuracy_along_training(
    table: pd.DataFrame, metric: str, ax: Axes | None = None, case: str = "case", singles: bool = True
) -> Axes:
    """A metric (0 to 1, drawn in percent) against the examples seen so far, a line for each value of the column `case`.

    table: of `repro.results.load_evaluations`, with that column.
    """
    axes = new_axes(ax)
    styles = looks(dict.fromkeys(table[case]))
    draw_series(
        axes,
        table,
        metric,
        x="examples_seen_at",
        lines=(case,),
        factor=100,
        style=lambda key: styles[key[case]],
        singles=singles,
    )
    label_examples(axes, tables.numbers(table["examples_seen_at"]).dropna())
    label_rows(axes, metric_label(metric))
    finish(axes, table, metric, [], "examples_seen_at", 100)
    return axes


def training_curves(
    table: pd.DataFrame, column: str, by: str | Sequence[str], ax: Axes | None = None, log: bool = True
) -> Axes:
    """A column of the runs' logs against examples seen: a colour for each value of `by`, a thin line for each run.

    table: of `repro.results.load_curves`. Of many runs of one value the median.
    """
    axes = new_axes(ax)
    by = [by] if isinstance(by, str) else list(by)
    given = table.assign(**{column: tables.numbers(table[column])}).dropna(subset=[column, "examples_seen_at"])
    styles = looks([tuple(key.values()) for key, _ in tables.split(given, by)])
    for key, part in tables.split(given, by):
        style, name = styles[tuple(key.values())], tables.series_label(key)
        runs = [line for _, line in part.groupby("run_id", sort=True)]
        if len(runs) > MOST_CURVES:
            median = part.groupby("examples_seen_at")[column].median()
            axes.plot(median.index, median, color=style["color"], linestyle=style["linestyle"], lw=1.2, label=name)
            continue
        for line in runs:
            shown = line.sort_values("examples_seen_at").iloc[:: -(-len(line) // MOST_LINES)]
            thin = {"color": style["color"], "linestyle": style["linestyle"], "lw": 0.8, "alpha": 0.85}
            axes.plot(shown["examples_seen_at"], shown[column], **thin, label=name)
    label_examples_evenly(axes)
    if log and len(given) and (given[column] > 0).all():
        label_log_rows(axes, column.replace("_", " "))
    else:
        label_rows(axes, column.replace("_", " "))
    return axes
