"""Figures of a report: accuracy, speed and memory against batch size, ours and the paper's drawn by the same code.

A loss has one colour, marker and line everywhere. What differs within a panel (examples seen, for example) is
written at the line's start, so that no line needs a colour of its own; setups and scales get panels of their own.
Text is 9 pt where a panel is 6.6 cm wide, so that a figure can still be read in a column 8 cm wide.
"""

import itertools
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from repro.counts import format_batch_size
from repro.report import tables

INK, PAPER, GRID = "#232629", "#ffffff", "#d9dce0"
LOSS_STYLES = {
    "sigmoid": {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    "softmax": {"color": "#d55e00", "marker": "s", "linestyle": (0, (4, 1.6))},
}
"""Blue and vermilion of Okabe and Ito, told apart with any colour vision; marker and line tell them apart in grey."""
OTHER_STYLE = {"color": "#7a7f87", "marker": "D", "linestyle": ":"}
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",  # text stays text: small, searchable, editable
    "text.parse_math": False,  # a $ in a name is a $
}
PANEL = (2.6, 2.5)
WIDTH_POINTS = 145
"""Of the drawing within a panel, about: what its labels leave."""
FORMATS = ("png", "svg")
PAPER_PANELS = {
    "table-8": ("Paper: SigLiT, ImageNet", "table 8, by examples seen"),
    "table-5": ("Paper: SigLIP, ImageNet", "table 5, by examples seen"),
}


@matplotlib.rc_context(STYLE)
def accuracy(table: pd.DataFrame, published: pd.DataFrame, metrics: Sequence[str], columns: int = 2) -> Figure:
    """The paper's figure 2: a panel for each of our metrics (and setup and scale), then the paper's own curves.

    columns: panels a row; 1 for a phone, or one column of a printed page.
    """
    if not metrics:
        metrics = ["no evaluation/accuracy"]
        table = table.assign(**{metrics[0]: math.nan})
    ours = [
        (metric, key, part)
        for metric in metrics
        for key, part in _panels(table)
        if tables.is_evaluated_on(part, metric, metrics)
    ]
    figure, axes = _grid(len(ours) + len(PAPER_PANELS), columns)
    for axis, (metric, key, part) in zip(axes, ours, strict=False):
        dataset, name = tables.metric_title(metric)
        _draw_panel(axis, part, metric, 100, (f"Ours: {dataset}", _panel_name(key)), f"{name} (%)")
    for axis, (source, titles) in zip(axes[len(ours) :], PAPER_PANELS.items(), strict=True):
        _draw_panel(axis, paper_curves(published, source), "value", 1, titles, "0-shot top-1 accuracy (%)")
    return _with_legend(figure)


def throughput(table: pd.DataFrame) -> Figure:
    """Training speed in examples per second."""
    return _cost(table, "examples_per_second", 1, "speed (examples/s)")


def memory(table: pd.DataFrame) -> Figure:
    """Peak memory of a rank, in MiB or GiB."""
    largest = tables.numbers(tables.finished(table)["peak_memory_bytes"]).max()
    unit, size = ("GiB", 2**30) if largest >= 4 * 2**30 else ("MiB", 2**20)
    return _cost(table, "peak_memory_bytes", 1 / size, f"peak memory ({unit})")


@matplotlib.rc_context(STYLE)
def _cost(table: pd.DataFrame, value: str, factor: float, label: str) -> Figure:
    panels = _panels(table)
    figure, axes = _grid(len(panels))
    for axis, (key, part) in zip(axes, panels, strict=True):
        _draw_panel(axis, part, value, factor, (f"Ours: {_panel_name(key)}",), label, also=tables.MACHINE)
        axis.set_ylim(bottom=0)
    return _with_legend(figure)


def paper_curves(published: pd.DataFrame, source: str) -> pd.DataFrame:
    """The ImageNet rows of one of the paper's tables, in the shape of our own table; `value` in percent."""
    rows = published[published["source"] == source]
    rows = rows[(rows["metric"] == "zeroshot_top1_percent") & rows["loss"].isin(LOSS_STYLES)]
    return rows.dropna(subset=["batch_size", "value"])


def draw_curves(
    axes: Axes, table: pd.DataFrame, value: str, by: Sequence[str] | None = None, factor: float = 1
) -> Axes:
    """Mean of `value` against batch size: a line for each loss and series, seeds as points, 95 % intervals as bars.

    by: the columns that tell series apart; found from the table when None. Several series are named at their starts.
    """
    by = tables.series_columns(table) if by is None else by
    found = tables.summarise(table, value, by)
    series = tables.split(found, by) if len(found) else []
    names = []
    for position, (key, part) in enumerate(series):
        strength = 1 - 0.55 * (len(series) - 1 - position) / max(1, len(series) - 1)
        runs = _of_series(tables.finished(table), key)
        for loss, line in part.groupby("loss"):
            style = LOSS_STYLES.get(loss, OTHER_STYLE)
            x, y = line["batch_size"], factor * line["mean"]
            label = ", ".join(filter(None, [str(loss), tables.series_label(key)]))
            axes.plot(x, y, **style, alpha=strength, label=label, markeredgecolor=PAPER, markeredgewidth=0.6, zorder=3)
            if (line["seeds"] > 1).any():
                bars = factor * (line["mean"] - line["low"])
                axes.errorbar(x, y, bars, fmt="none", ecolor=style["color"], elinewidth=1, capsize=2.5, alpha=strength)
                seeds = runs[runs["loss"] == loss]
                points = {"color": style["color"], "alpha": 0.6 * strength, "marker": style["marker"], "lw": 0, "s": 7}
                shifted = axes.transData + _shift(axes, loss, 4.5)
                axes.scatter(seeds["batch_size"], factor * tables.numbers(seeds[value]), transform=shifted, **points)
        if len(series) > 1:
            start = part[part["batch_size"] == part["batch_size"].min()]
            names.append((start["batch_size"].iloc[0], factor * start["mean"].max(), tables.series_label(key)))
    values = factor * tables.numbers(tables.finished(table)[value]).dropna()
    if len(values):
        # The data set the limits, not the bars: with two seeds an interval can be many times wider than all else.
        margin = 0.08 * (values.max() - values.min()) or 0.05 * abs(values.max()) or 1
        axes.set_ylim(values.min() - margin, values.max() + margin)
    label_batch_sizes(axes, tables.placed(table)["batch_size"], most=5 if names else 7)
    _name_series(axes, names)
    return axes


def mark_missing(axes: Axes, table: pd.DataFrame, value: str) -> Axes:
    """A cross at the foot of the panel where a run has no value, in its loss's colour, with the run's status."""
    runs = tables.placed(table)
    lacking = runs[(runs["status"] != "finished") | tables.numbers(runs[value]).isna()]
    if lacking.empty:
        return axes
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.4 * (high - low), high)
    foot = axes.get_xaxis_transform()
    for size, group in lacking.groupby("batch_size"):
        for loss in group["loss"].unique():
            style = {"color": LOSS_STYLES.get(loss, OTHER_STYLE)["color"], "marker": "x", "linestyle": "none"}
            # Side by side, since both losses often fail at the same batch size.
            beside = foot + _shift(axes, loss, 3.5)
            axes.plot(
                [size],
                [0.045],
                transform=beside,
                **style,
                markeredgewidth=1.6,
                label=f"{loss}, no result",
                clip_on=False,
            )
        text = ", ".join(tables.missing(group, value))
        axes.text(size, 0.1, text, fontsize=7.5, transform=foot, rotation=90, ha="center", va="bottom")
    return axes


def label_batch_sizes(axes: Axes, sizes: Iterable[int], most: int = 7) -> None:
    """A log₂ axis with the labels that people write: 64, 512, 1k, 32k, 1M; all sizes where at most `most` fit."""
    sizes = sorted({int(size) for size in sizes})
    if not sizes:
        axes.xaxis.set_major_locator(NullLocator())
        return
    axes.set_xscale("log", base=2)
    ticks, span = sizes, math.log2(sizes[-1] / sizes[0])
    crowded = any(math.log2(b / a) < span / 8 for a, b in itertools.pairwise(sizes))
    if len(sizes) > most or crowded:
        first, last = math.floor(math.log2(sizes[0])), math.ceil(math.log2(sizes[-1]))
        ticks = [2**power for power in range(first, last + 1, math.ceil((last - first + 1) / 5))]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: format_batch_size(round(size))))
    axes.xaxis.set_minor_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.4)
    axes.set_xlabel("batch size")


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write NAME.png (200 dpi) and NAME.svg; returns the SVG's text. The same figure gives the same bytes."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        for suffix in FORMATS:
            metadata = {"Date": None} if suffix == "svg" else {}
            figure.savefig(folder / f"{name}.{suffix}", dpi=200, metadata=metadata)
            figure.set_layout_engine("none")  # the layout stays as the first format found it
    return (folder / f"{name}.svg").read_text()


def _draw_panel(
    axes: Axes,
    table: pd.DataFrame,
    value: str,
    factor: float,
    titles: Sequence[str],
    label: str,
    also: Iterable[str] = (),
) -> None:
    draw_curves(axes, table, value, tables.series_columns(table, also), factor)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if "status" in table:
        mark_missing(axes, table, value)
        if tables.numbers(tables.finished(table)[value]).dropna().empty:
            axes.yaxis.set_major_locator(NullLocator())
            axes.text(0.5, 0.6, "no result", transform=axes.transAxes, ha="center")
    axes.set_title("\n".join(line if len(line) <= 36 else f"{line[:35]}…" for line in titles), loc="left")
    axes.set_ylabel(textwrap.fill(label, 26))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.6g}"))
    axes.grid(False, which="minor")


def _shift(axes: Axes, loss: str, points: float) -> Transform:
    """Sigmoid a little to the left, softmax to the right, so that neither hides the other."""
    side = {"sigmoid": -1, "softmax": 1}.get(loss, 0)
    return ScaledTranslation(side * points / 72, 0, axes.figure.dpi_scale_trans)


def _panels(table: pd.DataFrame) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """One panel for each setup and scale; an empty one where no run can be placed."""
    runs = tables.placed(table)
    return tables.split(runs, ["setup", "scale"]) if len(runs) else [({}, runs)]


def _panel_name(key: dict[str, object]) -> str:
    return ", ".join(str(value) for value in key.values()) or "no run"


def _of_series(table: pd.DataFrame, key: dict[str, object]) -> pd.DataFrame:
    for column, value in key.items():
        table = table[table[column].isna() if pd.isna(value) else table[column] == value]
    return table


def _grid(panels: int, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """At most `columns` panels a row, in a Figure outside pyplot's: it needs no display and is freed when unused."""
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(PANEL[0] * max(columns, 1.25), PANEL[1] * rows + 0.3), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, position + 1) for position in range(panels)]


def _with_legend(figure: Figure) -> Figure:
    """One legend above all panels: the losses, the cross, and nothing that is not in the figure."""
    lines = [line for axes in figure.axes for line in axes.lines]
    drawn = {str(line.get_label()).split(",")[0] for line in lines}
    losses = sorted(label for label in drawn if not label.startswith("_"))
    handles = [Line2D([], [], **LOSS_STYLES.get(loss, OTHER_STYLE), label=loss) for loss in losses]
    if any(line.get_marker() == "x" for line in lines):
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="none", markeredgewidth=1.6, label="no result"))
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, columnspacing=1.2)
    return figure


def _name_series(axes: Axes, names: list[tuple[float, float, str]]) -> None:
    """Write each series' name left of its start, names that would touch one above the other."""
    if not names:
        return
    low, high = (math.log2(limit) for limit in axes.get_xlim())
    for x, _, name in names:
        share = min(0.6, (5.2 * len(name) + 12) / WIDTH_POINTS)  # of the panel's width that the name takes
        low = min(low, (math.log2(x) - share * high) / (1 - share))
    axes.set_xlim(left=2**low)
    bottom, top = axes.get_ylim()
    apart, taken = 0.09 * (top - bottom), {}
    for x, y, name in sorted(names, key=lambda item: item[1]):
        place = max(y, taken.get(x, -math.inf) + apart)
        taken[x] = place
        offset = {"xytext": (-5, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        axes.annotate(name, (x, place), fontsize=8, **offset)
