"""Time and memory of the loss implementations against the batch, one line each, beside what the products alone take.

A family of implementations (ours, the plain formula, each peer) has one colour; its variants differ in marker.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from repro.counts import format_bytes
from repro.report.figures import INK, PAPER, STYLE, label_batch_sizes

FAMILIES = {
    "repro": "#0072b2",
    "open_clip": "#d55e00",
    "plain": "#7a7f87",
    "siglip-kernel": "#009e73",
    "inf-cl": "#cc79a7",
}
"""Okabe and Ito's colours."""
MARKERS = "oDs^"
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
LIMIT = {"color": INK, "linestyle": "--", "linewidth": 1}
PANEL = (3.3, 2.5)
PANELS_BY = ["ranks", "dim", "dtype", "device", "threads"]


@matplotlib.rc_context(STYLE)
def draw(table: pd.DataFrame) -> Figure:
    """For each ranks, dim, dtype and device of the table two rows, time and memory, and a column for each loss."""
    losses = sorted(table["loss"].unique())
    blocks = list(table.groupby(PANELS_BY, sort=True))
    size = (PANEL[0] * len(losses) + 0.2, 2 * PANEL[1] * len(blocks) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2 * len(blocks), len(losses), squeeze=False)
    for number, (key, block) in enumerate(blocks):
        for column, loss in enumerate(losses):
            part = block[block["loss"] == loss]
            time, memory = grid[2 * number][column], grid[2 * number + 1][column]
            time.set_title(f"{loss}\n{_place(dict(zip(PANELS_BY, key, strict=True)))}", loc="left")
            _draw_lines(time, part, "seconds", "forward + backward")
            limits = part.drop_duplicates("local_batch").sort_values("local_batch")
            time.plot(limits["local_batch"], limits["matmul_limit_seconds"], **LIMIT, zorder=2)
            time.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_seconds(value)))
            _draw_lines(memory, part, "peak_memory_bytes", "peak extra memory")
            memory.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
            memory.set_yscale("log", base=2)
            memory.yaxis.set_major_locator(LogLocator(base=4 if _spans(part, "peak_memory_bytes") < 1000 else 16))
            memory.yaxis.set_minor_formatter(NullFormatter())
    _share_limits(grid)
    _add_legend(figure, table)
    return figure


def save(figure: Figure, file: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, dpi=200)


def styles(names: Sequence[str]) -> dict[str, dict]:
    """Colour by family, marker and line by the place within the family."""
    found: dict[str, dict] = {}
    seen: dict[str, int] = {}
    for name in names:
        family = next((family for family in FAMILIES if name == family or name.startswith(f"{family}-")), name)
        place = seen[family] = seen.get(family, -1) + 1
        line = LINES[place % len(LINES)]
        found[name] = {"color": FAMILIES.get(family, INK), "marker": MARKERS[place % len(MARKERS)], "linestyle": line}
    return found


def format_seconds(value: float) -> str:
    """0.0021 → 2.1 ms."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:.1g} s"


def _draw_lines(axes: Axes, part: pd.DataFrame, value: str, label: str) -> None:
    for name, style in styles(_order(part["implementation"])).items():
        line = part[part["implementation"] == name].dropna(subset=value).sort_values("local_batch")
        if line.empty:
            continue
        axes.plot(line["local_batch"], line[value], **style, markeredgecolor=PAPER, markeredgewidth=0.6, zorder=3)
        if value == "seconds":
            spread = (line[value] - line["seconds_least"], line["seconds_most"] - line[value])
            axes.errorbar(line["local_batch"], line[value], spread, fmt="none", ecolor=style["color"], elinewidth=0.8)
    axes.set_yscale("log")
    label_batch_sizes(axes, part["local_batch"])
    axes.set_xlabel("batch size of a rank")
    axes.set_ylabel(label)
    axes.grid(False, which="minor")


def _order(names: pd.Series) -> list[str]:
    """The families in FAMILIES' order, variants as they were measured."""
    families = list(FAMILIES)
    place = {name: next((i for i, f in enumerate(families) if name.startswith(f)), 9) for name in names.unique()}
    return sorted(place, key=place.__getitem__)


def _share_limits(grid) -> None:
    """One scale a row, so that the losses can be read off against each other."""
    for row in grid:
        low, high = min(axes.get_ylim()[0] for axes in row), max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_ylim(low, high)
        for axes in row[1:]:
            axes.set_ylabel("")


def _spans(part: pd.DataFrame, value: str) -> float:
    found = part[value].dropna()
    return found.max() / max(1, found.min()) if len(found) else 1


def _place(key: dict) -> str:
    threads = f", {key['threads']} thread" + "s" * (key["threads"] > 1) if key["device"] == "cpu" else ""
    ranks = f"{key['ranks']} rank" + "s" * (key["ranks"] > 1)
    return f"{ranks}{threads}, d {key['dim']}, {key['dtype']}, {key['device']}"


def _add_legend(figure: Figure, table: pd.DataFrame) -> None:
    """What is drawn, by loss: the same variant's name may stand for another marker in the other loss."""
    drawn = table.dropna(subset="seconds") if "seconds" in table else table[:0]
    handles: dict[str, Line2D] = {}
    for _, part in table.groupby("loss", sort=True):
        measured = set(drawn["implementation"])
        for name, style in styles(_order(part["implementation"])).items():
            if name in measured:
                handles.setdefault(name, Line2D([], [], **style, label=name))
    lines = [handles[name] for name in _order(pd.Series(list(handles), dtype=object))]
    lines.append(Line2D([], [], **LIMIT, label="matrix products alone"))
    columns = 3 if len(set(table["loss"])) > 1 else 2
    figure.legend(handles=lines, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)
