"""Where growing stops paying, in our runs and the paper's: saturation points in one figure, and the losses compared."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.config.sweep import sweep_names
from repro.config.units import format_batch_size
from repro.report import tables
from repro.report.claims import columns_of_claims
from repro.report.claims.batch_size import interval
from repro.report.draw.axes import label_batch_sizes, new_axes
from repro.report.exhibits import Exhibit
from repro.report.found import Found
from repro.report.style import FULL_CM, INK, STYLE, look
from repro.results.stats.comparison import COLUMNS, compare_losses
from repro.results.stats.saturation import Saturation, analyse

FEWEST_SIZES = 3
"""Batch sizes that a series needs to have a shape."""
PAPER_TABLES = {"table-8": "imagenet1k/acc1", "table-5": "imagenet1k/acc1", "table-2": "imagenet1k/acc1"} | {
    "table-9": "crossmodal3600_mean/mean_recall@1"
}
ROW_INCHES, WIDTH_INCHES = 0.2, FULL_CM / 2.54
Table = tuple[str, pd.DataFrame, str]
"""Label, runs and metric of a table that has series over batch sizes."""


def exhibits(found: Found) -> list[Exhibit]:
    """The saturation points, and the losses compared; none where no sweep has several batch sizes."""
    ours = list(_ours(found))
    if not (points := list(_saturations(ours))):
        return []
    papers = list(_papers(found))
    of_paper = [(f"paper, {label}", result) for label, result in _saturations(papers)]
    made = [_points([*points, *of_paper], len(of_paper))]
    for name, title, parts in (
        ("losses-ours", "Losses compared, ours", ours),
        ("losses-paper", "Losses compared, the paper's", papers),
    ):
        made += _losses(name, title, parts)
    return made


def _saturations(parts: Iterable[Table]) -> Iterator[tuple[str, Saturation]]:
    """(label, saturation) of every series."""
    for label, part, metric in parts:
        for result in analyse(part, metric):
            yield _label(label, result), result


def _placed(found: Found) -> pd.DataFrame:
    """Our runs and imported rows of sweeps whose batch size is to vary."""
    runs = tables.placed(columns_of_claims(found.all) if not found.metrics else found.all)
    return runs[~runs["sweep"].isin(set(sweep_names()) - {"batch-size"})]


def _ours(found: Found) -> Iterator[Table]:
    for sweep, part in _placed(found).groupby("sweep"):
        if part["batch_size"].nunique() < FEWEST_SIZES:
            continue
        # In the order of the paper's figure 2.
        for setup, own in sorted(part.groupby("setup"), key=lambda group: _place(group[0])):
            for metric in found.metrics or tables.main_metrics(own):
                if own[metric].notna().any():
                    named = (sweep if sweep != "batch-size" else "", setup)
                    yield ", ".join(filter(None, named)), own, metric


def _papers(found: Found) -> Iterator[Table]:
    """Of setups that we have."""
    setups = set(_placed(found)["setup"])
    for source, metric in PAPER_TABLES.items():
        part = found.paper[found.paper["source"] == source]
        if part["setup"].isin(setups).any():
            yield part["setup"].iloc[0], part[part["note"].isna()].dropna(axis=1, how="all"), metric


def _place(setup: object) -> tuple[int, str]:
    order = ("siglit", "siglip", "msiglip")
    return (order.index(setup) if setup in order else len(order), str(setup))


def _label(label: str, result: Saturation) -> str:
    series = {name: value for name, value in result.series.items() if name not in ("setup", "sweep", "scale")}
    words = [str(series.pop("loss", "")), tables.series_label(series)]
    return ", ".join(filter(None, [label, *words, " ".join(tables.metric_title(result.metric)[:1])]))


def _points(results: Sequence[tuple[str, Saturation]], papers: int) -> Exhibit:
    rows = [{**result.as_dict(), "series": label} for label, result in results]
    table = pd.DataFrame(
        {
            "series": [label for label, _ in results],
            "peak": [format_batch_size(result.peak) for _, result in results],
            "saturation point": [interval(result) for _, result in results],
            "conclusion": [result.conclusion for _, result in results],
        }
    )
    figure = draw(results, papers)
    caption = (
        "The smallest batch size whose accuracy is within a margin of the peak (the greater of half a point and twice "
        "the noise of a mean over seeds), with its 95% interval; the peak as a diamond; an arrow where the grid ends "
        "too early. Where a table has one run a cell, the noise is the paper's own (table 7) or borrowed from cells "
        "with several seeds; where there is none, no interval is drawn. Method and coverage: docs/saturation.md."
    )
    return Exhibit("saturation-points", "Where growing stops paying", caption, figure, None, table, pd.DataFrame(rows))


@matplotlib.rc_context(STYLE)
def draw(results: Sequence[tuple[str, Saturation]], papers: int = 0) -> Figure:
    """A row for each series, the paper's, which are the last `papers`, below a rule."""
    losses = dict.fromkeys(str(result.series.get("loss")) for _, result in results)
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(results) + 0.9), layout="constrained")
    saturation_points(results, figure.add_subplot(), papers)
    handles = [Line2D([], [], **look(loss), label=f"{loss}: saturation point") for loss in losses]
    handles.append(Line2D([], [], color=INK, marker="D", markerfacecolor="none", linestyle="none", label="peak"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def saturation_points(results: Sequence[tuple[str, Saturation]], ax: Axes | None = None, papers: int = 0) -> Axes:
    """Saturation points with intervals, and peaks, over a log₂ axis of batch sizes: a row for each (label, result).

    papers: how many of them, the last ones, are the paper's.
    """
    ax = new_axes(ax)
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
    return ax


def _losses(name: str, title: str, parts: Iterable[Table]) -> list[Exhibit]:
    """One table, batch sizes down and series across; none where no series has two losses."""
    found: list[pd.DataFrame] = []
    for label, part, metric in parts:
        if part["loss"].nunique() > 1:
            compared = compare_losses(part, metric)
            found.append(compared.assign(metric=metric, series=_names(label, compared, tables.metric_title(metric)[0])))
    found = [compared for compared in found if len(compared)]
    return [_comparison(name, title, pd.concat(found))] if found else []


def _comparison(name: str, title: str, data: pd.DataFrame) -> Exhibit:
    cells: dict[str, dict[int, str]] = {}
    for row in data.itertuples():
        cells.setdefault(row.series, {})[int(row.batch_size)] = _difference(row)
    table = pd.DataFrame(cells, index=sorted(data["batch_size"].unique())).fillna("")
    table.index = pd.Index([format_batch_size(int(size)) for size in table.index], name="batch size")
    noises = ", ".join(sorted(set(data["noise_source"].dropna().astype(str))))
    caption = (
        "One loss minus the other in points, paired by seed where both have it, with the 95% interval. *: one is "
        "ahead, after Holm's correction over all batch sizes of the series. =: surely equal, within the greater of "
        f"half a point and twice the noise of a mean. Neither: cannot be told. Seed noise: {noises}."
    )
    return Exhibit(name, title, caption, None, None, table, data.reset_index(drop=True))


def _names(label: str, compared: pd.DataFrame, metric: str) -> list[str]:
    own = [c for c in compared.columns if c not in ("setup", "batch_size", *COLUMNS)]
    keys = [dict(zip(own, values, strict=True)) for values in compared[own].itertuples(index=False, name=None)]
    pairs = [f"{a} − {b}" for a, b in zip(compared["loss_a"], compared["loss_b"], strict=True)]
    return [
        ", ".join(filter(None, [pair, label, tables.series_label(key), metric]))
        for pair, key in zip(pairs, keys, strict=True)
    ]


def _difference(row: Any) -> str:
    text = tables.signed(row.difference_points)
    if not math.isfinite(row.low_points):
        return text
    sign = {row.loss_a: " *", row.loss_b: " *", "equal": " ="}.get(row.verdict, "")
    return f"{text} ({tables.signed(row.low_points)} to {tables.signed(row.high_points)}){sign}"
