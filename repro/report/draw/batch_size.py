"""Drawn against the batch size: accuracy, costs, single languages."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.report import tables
from repro.report.draw.axes import label_batch_sizes, label_rows, metric_label, new_axes, piled
from repro.report.draw.series import draw_series, finish
from repro.report.style import INK, OTHER_STYLE, look

MOST_LANGUAGES = 8
"""So many are all named at their lines' ends; of more only a few."""


def accuracy_by_batch_size(
    table: pd.DataFrame,
    metric: str,
    ax: Axes | None = None,
    by: Sequence[str] | None = None,
    singles: bool = True,
    origins: tuple[str, ...] = (),
) -> Axes:
    """A metric (0 to 1, drawn in percent) against batch size, a line for each loss and series.

    table: of `repro.results.load` or `repro.results.sources.load`; the paper's rows are hollow, imported ones have
    colours of their own. by: the columns that tell series apart, found from the table when None. singles: each run is
    drawn, and links to its row. origins: names of imported series in the order of their colours.
    """
    label = metric_label(metric)
    return by_batch_size(table, metric, 100, label, ax, by, singles, origins)


def by_batch_size(
    table: pd.DataFrame,
    value: str,
    factor: float,
    label: str,
    ax: Axes | None = None,
    by: Sequence[str] | None = None,
    singles: bool = True,
    origins: tuple[str, ...] = (),
    also: Sequence[str] = (),
    from_zero: bool = False,
) -> Axes:
    """Any number of runs against batch size. also: columns that split series besides, such as the machine for speed."""
    axes, names = new_axes(ax), []
    given = table if "origin" in table else table.assign(origin="")
    given = given.assign(origin=given["origin"].fillna("").astype(str))
    if value not in given:
        given = given.assign(**{value: float("nan")})
    for origin, part in given.groupby("origin", sort=True):
        series = tables.series_columns(part, also) if by is None else by
        named = draw_series(
            axes,
            part,
            value,
            by=series,
            factor=factor,
            style=lambda key, origin=origin: look(key["loss"], origin, origins),
            singles=singles,
        )
        told = {name for _, _, name in names}
        names += [each for each in named if each[2] not in told]
    label_batch_sizes(axes, tables.placed(given)["batch_size"], most=5 if names else 7)
    label_rows(axes, label, (lambda number: f"{number:,.6g}" if number >= 0 else "") if from_zero else None)
    finish(axes, given, value, names, "batch_size", factor, from_zero)
    return axes


def by_language(table: pd.DataFrame, metrics: Sequence[str], mean: str, ax: Axes | None = None) -> Axes:
    """A metric of each language (0 to 1, drawn in percent) against batch size, thin, and the languages' mean.

    table: runs of one loss, several seeds are averaged. metrics: one column a language, <dataset>_<language>/<metric>.
    """
    axes = new_axes(ax)
    runs = tables.finished(table)
    found = runs.assign(**{m: 100 * tables.numbers(runs[m]) for m in [*metrics, mean] if m in runs})
    means = found.groupby("batch_size")[[m for m in [*metrics, mean] if m in runs]].mean().dropna(how="all")
    ends = []
    for metric in (m for m in metrics if m in means):
        line = means[metric].dropna()
        if len(line):
            axes.plot(line.index, line, color=OTHER_STYLE["color"], lw=0.8, alpha=0.7, label=language(metric))
            ends.append((float(line.index[-1]), float(line.iloc[-1]), language(metric)))
    if mean in means:
        loss = str(runs["loss"].iloc[0])
        origin = runs["origin"].iloc[0] if "origin" in runs else ""
        style = look(loss, origin)
        axes.plot(means.index, means[mean], **style, label="mean", zorder=3)
    label_batch_sizes(axes, means.index, most=4)
    label_rows(axes, metric_label(mean))
    _name_ends(axes, ends)
    return axes


def language(metric: str) -> str:
    """wds_shapes_retrieval_de/mean_recall@1 → de."""
    return metric.rpartition("/")[0].rpartition("_")[2]


def _name_ends(axes: Axes, ends: list[tuple[float, float, str]]) -> None:
    """Languages right of their lines, in the lines' order and apart; of many every so many-th."""
    ends = sorted(ends, key=lambda end: end[1])
    if not ends:
        return
    if len(ends) > MOST_LANGUAGES:
        places = {round(i * (len(ends) - 1) / (MOST_LANGUAGES - 1)) for i in range(MOST_LANGUAGES)}
        ends = [ends[place] for place in sorted(places)]
    axes.set_xlim(right=axes.get_xlim()[1] * 1.5)
    for (x, _, name), y in zip(ends, piled(axes, [y for _, y, _ in ends]), strict=True):
        offset = {"xytext": (4, 0), "textcoords": "offset points", "ha": "left", "va": "center", "color": INK}
        axes.annotate(name, (x, y), fontsize=7, **offset)
