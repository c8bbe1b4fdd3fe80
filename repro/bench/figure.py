"""Time and memory of the loss implementations against the batch, one line each, beside what the products alone take.

A family of implementations (ours, the plain formula, each peer) has one colour; its variants differ in marker.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from repro.bench.implementations import IMPLEMENTATIONS
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
    """For each ranks, dim, dtype and device of the table two rows, time and memory, and a column for each loss.

    The scale of a row is one, so that the losses can be read off against each other.
    """
    losses = sorted(table["loss"].unique())
    blocks = list(table.groupby(PANELS_BY, sort=True))
    size = (PANEL[0] * len(losses) + 0.4, 2 * PANEL[1] * len(blocks) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2 * len(blocks), len(losses), squeeze=False, sharey="row")
    for number, (key, block) in enumerate(blocks):
        for column, loss in enumerate(losses):
            part = block[block["loss"] == loss]
            time, memory = grid[2 * number][column], grid[2 * number + 1][column]
            time.set_title(f"{loss}\n{_place(dict(zip(PANELS_BY, key, strict=True)))}", loc="left")
            _draw_lines(time, part, "seconds")
            limits = part.drop_duplicates("local_batch").sort_values("local_batch")
            time.plot(limits["local_batch"], limits["matmul_limit_seconds"], **LIMIT, zorder=2)
            _draw_lines(memory, part, "peak_memory_bytes")
        _label_values(grid[2 * number][0], "forward + backward", 10, format_seconds)
        _label_values(grid[2 * number + 1][0], "peak extra memory", 4, format_bytes)
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
        marker = MARKERS[place % len(MARKERS)]
        found[name] = {"color": FAMILIES.get(family, INK), "marker": marker, "linestyle": line}
        # Lines often coincide: the plain formula's is broad, below; ours is above all.
        found[name] |= {"plain": {"linewidth": 3.5, "alpha": 0.55, "zorder": 2.5}}.get(family, {"zorder": 3})
        found[name] |= {"zorder": 4} if family == "repro" else {}
    return found


def format_seconds(value: float) -> str:
    """0.0021 → 2.1 ms."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:.1g} s"


def _draw_lines(axes: Axes, part: pd.DataFrame, value: str) -> None:
    edge = {"markeredgecolor": PAPER, "markeredgewidth": 0.6}
    for name, style in styles(_order(part["implementation"])).items():
        line = part[part["implementation"] == name].dropna(subset=value).sort_values("local_batch")
        if line.empty:
            continue
        axes.plot(line["local_batch"], line[value], **style, **edge)
        if value == "seconds":
            spread = (line[value] - line["seconds_least"], line["seconds_most"] - line[value])
            bars = {"ecolor": style["color"], "elinewidth": 0.7, "alpha": 0.7}
            axes.errorbar(line["local_batch"], line[value], spread, fmt="none", **bars)
    label_batch_sizes(axes, part["local_batch"])
    axes.set_xlabel("batch size of a rank")
    axes.grid(False, which="minor")


def _label_values(axes: Axes, label: str, base: int, write: Callable[[float], str]) -> None:
    """For the row of panels that axes begins."""
    axes.set_yscale("log", base=base)
    axes.yaxis.set_major_locator(LogLocator(base=base, numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(label)


def _order(names: pd.Series) -> list[str]:
    """As in the list of implementations: ours, the plain formula, peers."""
    known = list(dict.fromkeys(i.name for i in IMPLEMENTATIONS))
    place = {name: known.index(name) if name in known else len(known) for name in names.unique()}
    return sorted(place, key=place.__getitem__)


def _place(key: dict) -> str:
    ranks = f"{key['ranks']} rank" + "s" * (key["ranks"] > 1)
    threads = f" × {key['threads']} thread" + "s" * (key["threads"] > 1) if key["device"] == "cpu" else ""
    device = "" if key["device"] == "cpu" else f", {key['device']}"
    return f"{ranks}{threads}, d {key['dim']}, {key['dtype']}{device}"


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
    lines.append(Line2D([], [], **LIMIT, label="the products by torch.mm"))
    columns = 3 if len(set(table["loss"])) > 1 else 2
    figure.legend(handles=lines, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)
