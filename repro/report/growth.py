"""Saturation points (where growing stops paying) of our runs and the paper's in one figure, and the losses compared."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.config.sweep import sweep_names
from repro.config.units import format_batch_size
from repro.report.claims import columns_of_claims
from repro.report.claims.batch_size import interval
from repro.report.draw.axes import FULL_CM, INK, STYLE, label_batch_sizes, look
from repro.report.exhibits.batch_size import PAPER_CURVES
from repro.report.exhibits.exhibit import Exhibit, crossed
from repro.report.figures import INCH_CM
from repro.report.inputs import Inputs
from repro.results import tables
from repro.results.stats.comparison import COLUMNS, compare_losses
from repro.results.stats.saturation import Saturation, analyse

FEWEST_SIZES = 3
"""Batch sizes that a series needs to have a shape."""
PAPER_TABLES = (PAPER_CURVES["siglit"], PAPER_CURVES["siglip"], ("table-2", "imagenet1k/acc1"), PAPER_CURVES["msiglip"])
ROW_INCHES = 0.2
Table = tuple[str, pd.DataFrame, str]
"""Label, runs and metric of a table that has series over batch sizes."""


def exhibits(inputs: Inputs) -> list[Exhibit]:
    """The saturation points, and the losses compared; none where no sweep has several batch sizes."""
    runs = tables.placed(inputs.all if inputs.metrics else columns_of_claims(inputs.all))
    runs = runs[~runs["sweep"].isin(set(sweep_names()) - {"batch-size"})]
    ours, papers = list(_ours(inputs, runs)), list(_papers(inputs, set(runs["setup"])))
    if not (points := list(_saturations(ours))):
        return []
    of_paper = [(f"paper, {label}", result) for label, result in _saturations(papers)]
    return [
        _points([*points, *of_paper], len(of_paper)),
        *_losses("losses-ours", "Losses compared, ours", ours),
        *_losses("losses-paper", "Losses compared, the paper's", papers),
    ]


def _ours(inputs: Inputs, runs: pd.DataFrame) -> Iterator[Table]:
    """Our runs and imported rows of sweeps whose batch size is to vary, in the order of the paper's figure 2."""
    order = list(PAPER_CURVES)
    for sweep, part in runs.groupby("sweep"):
        if part["batch_size"].nunique() < FEWEST_SIZES:
            continue
        groups = sorted(part.groupby("setup"), key=lambda group: order.index(group[0]) if group[0] in order else 9)
        for setup, own in groups:
            for metric in inputs.metrics or tables.main_metrics(own):
                if own[metric].notna().any():
                    yield ", ".join(filter(None, [sweep if sweep != "batch-size" else "", setup])), own, metric


def _papers(inputs: Inputs, setups: set[str]) -> Iterator[Table]:
    """The paper's tables of setups that we have."""
    for source, metric in PAPER_TABLES:
        part = inputs.paper[inputs.paper["source"] == source]
        if part["setup"].isin(setups).any():
            yield part["setup"].iloc[0], part[part["note"].isna()].dropna(axis=1, how="all"), metric


def _saturations(parts: Iterable[Table]) -> Iterator[tuple[str, Saturation]]:
    """(label, saturation) of every series."""
    for label, part, metric in parts:
        for result in analyse(part, metric):
            series = {name: value for name, value in result.series.items() if name not in ("setup", "sweep", "scale")}
            words = [label, str(series.pop("loss", "")), tables.series_label(series), tables.metric_title(metric)[0]]
            yield ", ".join(filter(None, words)), result


def _points(results: Sequence[tuple[str, Saturation]], papers: int) -> Exhibit:
    data = pd.DataFrame([{**result.as_dict(), "series": label} for label, result in results])
    table = pd.DataFrame(
        {
            "series": label,
            "peak": format_batch_size(result.peak),
            "saturation point": interval(result),
            "conclusion": result.conclusion,
        }
        for label, result in results
    )
    caption = (
        "The smallest batch size whose accuracy is within a margin of the peak (the greater of half a point and twice "
        "the noise of a mean over seeds), with its 95% interval; the peak as a diamond; an arrow where the grid ends "
        "too early. Where a table has one run a cell, the noise is the paper's own (table 7) or borrowed from cells "
        "with several seeds; where there is none, no interval is drawn. Method and coverage: docs/saturation.md."
    )
    return Exhibit("saturation-points", "Where growing stops paying", caption, data, table, _draw(results, papers))


@matplotlib.rc_context(STYLE)
def _draw(results: Sequence[tuple[str, Saturation]], papers: int) -> Figure:
    """Saturation points with intervals, and peaks, over a log₂ axis of batch sizes: a row for each (label, result).

    The paper's, which are the last `papers`, stand below a rule.
    """
    figure = Figure(figsize=(FULL_CM / INCH_CM, ROW_INCHES * len(results) + 0.9), layout="constrained")
    ax = figure.add_subplot()
    sizes: set[int] = set()
    for place, (_, result) in enumerate(results):
        y = len(results) - place
        colour = look(result.series.get("loss"))["color"]
        sizes |= {result.peak, *(size for size in (result.point, result.low, result.high) if size)}
        if result.low and result.high:
            ax.plot([result.low, result.high], [y, y], color=colour, linewidth=2.2, alpha=0.7)
        if result.point:
            ax.plot([result.point], [y], color=colour, marker="o", linestyle="none")
        if result.at_edge and result.point is None:
            sizes.add(2 * result.peak)  # the axis has room for the arrow, or it is not drawn
            ends = (result.peak * 2**0.9, y), (result.peak, y)
            ax.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": colour})
        ax.plot([result.peak], [y], color=colour, marker="D", markersize=6, markerfacecolor="none", linestyle="none")
    ax.set_yticks(range(len(results), 0, -1), [label for label, _ in results])
    ax.set_ylim(0.4, len(results) + 0.6)
    if 0 < papers < len(results):
        ax.axhline(papers + 0.5, color=INK, linewidth=0.8)
    span = range(math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes))) + 1)
    label_batch_sizes(ax, [2**power for power in span], most=len(span) if len(span) < 9 else 7)
    losses = dict.fromkeys(str(result.series.get("loss")) for _, result in results)
    handles = [Line2D([], [], **look(loss), label=f"{loss}: saturation point") for loss in losses]
    handles.append(Line2D([], [], color=INK, marker="D", markerfacecolor="none", linestyle="none", label="peak"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _losses(name: str, title: str, parts: Iterable[Table]) -> Iterator[Exhibit]:
    """One table, batch sizes down and series across; none where no series has two losses."""
    compared = [
        differences.assign(metric=metric, series=_series_names(label, differences, tables.metric_title(metric)[0]))
        for label, part, metric in parts
        if part["loss"].nunique() > 1 and len(differences := compare_losses(part, metric))
    ]
    if not compared:
        return
    data = pd.concat(compared)
    cells: dict[str, dict[int, str]] = {}
    for row in data.itertuples():
        cells.setdefault(row.series, {})[int(row.batch_size)] = _difference(row)
    noises = ", ".join(sorted(set(data["noise_source"].dropna().astype(str))))
    caption = (
        "One loss minus the other in points, paired by seed where both have it, with the 95% interval. *: one is "
        "ahead, after Holm's correction over all batch sizes of the series. =: surely equal, within the greater of "
        f"half a point and twice the noise of a mean. Neither: cannot be told. Seed noise: {noises}."
    )
    yield Exhibit(
        name, title, caption, data.reset_index(drop=True), crossed(cells, "batch size", write=format_batch_size)
    )


def _series_names(label: str, compared: pd.DataFrame, metric: str) -> list[str]:
    own = [c for c in compared.columns if c not in ("setup", "batch_size", *COLUMNS)]
    names = []
    for row in compared.to_dict("records"):
        pair, series = f"{row['loss_a']} − {row['loss_b']}", tables.series_label({c: row[c] for c in own})
        names.append(", ".join(filter(None, [pair, label, series, metric])))
    return names


def _difference(row: Any) -> str:
    text = tables.signed(row.difference_points)
    if not math.isfinite(row.low_points):
        return text
    sign = {row.loss_a: " *", row.loss_b: " *", "equal": " ="}.get(row.verdict, "")
    return f"{text} ({tables.signed(row.low_points)} to {tables.signed(row.high_points)}){sign}"
