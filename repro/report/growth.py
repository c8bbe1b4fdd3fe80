"""Where growing stops paying, in our runs and the paper's: saturation points in one figure, and the losses compared."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro import sources
from repro.counts import format_batch_size
from repro.report import figures, tables
from repro.report.exhibits import Exhibit
from repro.report.found import Found
from repro.sweep import sweep_names

if TYPE_CHECKING:
    from repro.analysis.saturation import Saturation

FEWEST_SIZES = 3
"""Batch sizes that a series needs to have a shape."""
PAPER_TABLES = {"table-5": "imagenet1k/acc1", "table-8": "imagenet1k/acc1", "table-2": "imagenet1k/acc1"} | {
    "table-9": "crossmodal3600_mean/mean_recall@1"
}
ROW_INCHES, WIDTH_INCHES = 0.2, 6.7


def exhibits(found: Found) -> list[Exhibit]:
    """The saturation points, and sigmoid against softmax; none where no sweep has several batch sizes."""
    results = list(saturations(found))
    ours = [(label, result) for label, result in results if not label.startswith("paper")]
    if not ours:
        return []
    found_here = [_points(results)]
    compared = _losses(found)
    return [*found_here, compared] if compared else found_here


def saturations(found: Found) -> Iterator[tuple[str, "Saturation"]]:
    """(label, saturation) of every series with several batch sizes: ours and imported ones, then the paper's."""
    from repro.analysis.saturation import analyse

    for label, part, metric in _tables(found):
        for result in analyse(part, metric):
            yield _label(label, result), result


def _tables(found: Found) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """(label, runs, metric) for each table that has series over batch sizes."""
    runs = tables.placed(found.runs)
    of_one_batch = set(sweep_names()) - {"batch-size"}
    runs = runs[~runs["sweep"].isin(of_one_batch)]
    for sweep, part in runs.groupby("sweep"):
        if part["batch_size"].nunique() < FEWEST_SIZES:
            continue
        for setup, own in part.groupby("setup", dropna=False):
            for metric in found.metrics or tables.main_metrics(own):
                if own[metric].notna().any():
                    kind = "" if sweep == "batch-size" else f"{sweep}, "
                    yield f"{kind}{setup}", own, metric
    published = tables.with_mean_recall(sources.published_runs(found.published))
    for source, metric in PAPER_TABLES.items():
        part = published[published["sweep"] == source]
        if part["setup"].isin(runs["setup"]).any():
            yield f"paper, {part['setup'].iloc[0]}", part[part["note"].isna()].dropna(axis=1, how="all"), metric


def _label(label: str, result: "Saturation") -> str:
    series = {name: value for name, value in result.series.items() if name not in ("setup", "sweep", "scale")}
    words = [str(series.pop("loss", "")), tables.series_label(series)]
    return ", ".join(filter(None, [label, *words, " ".join(tables.metric_title(result.metric)[:1])]))


def _points(results: Sequence[tuple[str, "Saturation"]]) -> Exhibit:
    rows = [{"series": label, **result.as_dict()} for label, result in results]
    table = pd.DataFrame(
        {
            "series": [label for label, _ in results],
            "peak": [format_batch_size(result.peak) for _, result in results],
            "saturation point": [_interval(result) for _, result in results],
            "conclusion": [result.conclusion for _, result in results],
        }
    )
    figure, _ = None, None
    figure = draw(results)
    caption = (
        "The smallest batch size whose accuracy is within a margin of the peak (the greater of half a point and twice "
        "the seed noise), with its 95% interval; the peak as a diamond; an arrow where the grid ends too early. "
        "Where a table has one run a cell, the noise is the paper's own (table 7) or borrowed from cells with several "
        "seeds; where there is none, no interval is drawn. Method and coverage: docs/saturation.md."
    )
    return Exhibit("saturation-points", "Where growing stops paying", caption, figure, None, table, pd.DataFrame(rows))


def _interval(result: "Saturation") -> str:
    if result.point is None:
        return "cannot tell"
    point = format_batch_size(result.point)
    if result.low is None or result.high is None:
        return point
    return f"{point} ({format_batch_size(result.low)} to {format_batch_size(result.high)})"


@matplotlib.rc_context(figures.STYLE)
def draw(results: Sequence[tuple[str, "Saturation"]]) -> Figure:
    """A row for each series, ours above the paper's."""
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(results) + 0.9), layout="constrained")
    saturation_points(results, figure.add_subplot())
    handles = [Line2D([], [], **figures.LOSS_STYLES[loss], label=f"{loss}: saturation point") for loss in tables.LOSSES]
    handles.append(
        Line2D([], [], color=figures.INK, marker="D", markerfacecolor="none", linestyle="none", label="peak")
    )
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def saturation_points(results: Sequence[tuple[str, "Saturation"]], ax: Axes | None = None) -> Axes:
    """Saturation points with intervals, and peaks, over a log₂ axis of batch sizes: a row for each (label, result)."""
    ax = ax or Figure(layout="constrained").add_subplot()
    sizes: set[int] = set()
    for place, (_, result) in enumerate(results):
        y = len(results) - place
        colour = figures.LOSS_STYLES.get(result.series.get("loss"), figures.OTHER_STYLE)["color"]
        sizes |= {result.peak, *(size for size in (result.point, result.low, result.high) if size)}
        if result.low and result.high:
            ax.plot([result.low, result.high], [y, y], color=colour, linewidth=2.2, alpha=0.7)
        if result.point:
            ax.plot([result.point], [y], color=colour, marker="o", linestyle="none")
        if result.at_edge:
            ax.annotate(
                "", (result.peak * 2**0.9, y), (result.peak, y), arrowprops={"arrowstyle": "->", "color": colour}
            )
        ax.plot([result.peak], [y], color=colour, marker="D", markersize=6, markerfacecolor="none", linestyle="none")
    ax.set_yticks(range(len(results), 0, -1), [label for label, _ in results])
    ax.set_ylim(0.4, len(results) + 0.6)
    papers = sum(label.startswith("paper") for label, _ in results)
    if 0 < papers < len(results):
        ax.axhline(papers + 0.5, color=figures.INK, linewidth=0.8)
    span = range(math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes))) + 1)
    figures.label_batch_sizes(ax, [2**power for power in span], most=len(span) if len(span) < 9 else 7)
    return ax


def _losses(found: Found) -> Exhibit | None:
    from repro.analysis.comparison import compare_losses

    parts = []
    for label, part, metric in _tables(found):
        if part["loss"].nunique() > 1:
            compared = compare_losses(part, metric)
            if len(compared):
                titled = " ".join(tables.metric_title(metric)[:1])
                parts.append(compared.assign(series=_series_label(label, compared, titled)))
    if not parts:
        return None
    data = pd.concat(parts, ignore_index=True)
    table = data.assign(
        **{
            "batch size": [format_batch_size(int(size)) for size in data["batch_size"]],
            "sigmoid − softmax (points)": [_difference(row) for row in data.itertuples()],
            "who is ahead": data["verdict"],
        }
    )[["series", "batch size", "sigmoid − softmax (points)", "who is ahead"]]
    caption = (
        "Sigmoid minus softmax at each batch size, paired by seed where both have it, with the 95% interval; verdicts "
        "after Holm's correction over all batch sizes of a series. 'equal': within half a point for sure."
    )
    return Exhibit("losses-by-batch-size", "Sigmoid against softmax", caption, None, None, table, data)


def _series_label(label: str, compared: pd.DataFrame, metric: str) -> list[str]:
    own = [c for c in compared.columns if c in ("examples_seen", "model", "data_fingerprint")]
    keys = [dict(zip(own, values, strict=True)) for values in compared[own].itertuples(index=False, name=None)]
    return [", ".join(filter(None, [label, tables.series_label(key), metric])) for key in keys]


def _difference(row: object) -> str:
    low, high = getattr(row, "low", math.nan), getattr(row, "high", math.nan)
    text = tables.signed(row.difference)
    return f"{text} ({tables.signed(low)} to {tables.signed(high)})" if math.isfinite(low) else text
