"""Axes as people read them: batch sizes as 512, 32k and 1M, examples as 65.5k and 3B, names at the starts of lines.

And the look of every figure: colours, type, widths. A loss has one colour, marker and line everywhere. Ours are filled
marks and the paper's hollow ones, so that they can share a panel. Text is 8 pt at the width at which a figure is made:
17 cm, or 8 cm for one column of a page.
"""

import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from repro.config.units import format_batch_size, format_examples
from repro.loss.registry import LOSSES
from repro.results import tables

TITLE_CHARACTERS = 36
INK, PAPER, GRID = "#232629", "#ffffff", "#d9dce0"
OTHER_STYLE = {"color": "#7a7f87", "marker": "D", "linestyle": ":"}
OTHER_STYLES = (
    {"color": "#009e73", "marker": "^", "linestyle": "-"},
    {"color": "#a8518a", "marker": "v", "linestyle": (0, (5, 1.5))},
    {"color": "#a67500", "marker": "D", "linestyle": (0, (1.5, 1.2))},
    {"color": "#3d8fc4", "marker": "P", "linestyle": (0, (5, 1.5, 1.2, 1.5))},
    {"color": "#5c636b", "marker": "X", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
)
"""For what is no loss (settings, imported series): green, purple, amber, sky and grey, dark enough for a thin line."""
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
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
    "lines.linewidth": 1.4,
    "lines.markersize": 4.2,
    "legend.handlelength": 2.4,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",  # text stays text: small, searchable, editable
    "pdf.fonttype": 42,  # TrueType: what printers and editors of PDF files expect
    "text.parse_math": False,  # a $ in a name is a $
}
SMALLEST_POINTS = 7
"""Nothing in a figure is written smaller."""
FULL_CM, COLUMN_CM = 17.0, 8.0
MOST_POINTS = 2000
"""Above so many runs in a figure they are not drawn one by one."""


def new_axes(axes: Axes | None) -> Axes:
    """The given axes, or those of a new figure."""
    if axes is not None:
        return axes
    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(3.4, 2.8), layout="constrained").add_subplot()


def label_batch_sizes(axes: Axes, sizes: Iterable[int], most: int = 7) -> None:
    """A log₂ axis with the labels that people write: 64, 512, 1k, 32k, 1M; all sizes where at most `most` fit."""
    sizes = sorted({int(size) for size in sizes})
    _label_log(axes, sizes, _powers(axes, sizes, most), lambda size: format_batch_size(round(size)))
    if sizes:
        axes.set_xlabel("batch size")


def label_examples(
    axes: Axes, counts: Iterable[float], label: str = "examples seen", write: Callable[[float], str] = format_examples
) -> None:
    """A log₂ axis of examples: 4.1k, 450M, 3B; labels where they have room beside each other, from the largest."""
    counts = sorted({float(count) for count in counts if count > 0})
    room = _points_wide(axes) / (math.log2(counts[-1] / counts[0]) + 1) if counts else 0  # points of a doubling
    ticks: list[float] = []
    for count in reversed(counts):
        if not ticks or room * math.log2(ticks[-1] / count) > 4.6 * len(write(count)) + 6:
            ticks.append(count)
    _label_log(axes, counts, ticks[::-1], write)
    axes.set_xlabel(label)


def label_examples_evenly(axes: Axes) -> None:
    """A linear axis of examples, written 50k, 100k."""
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: format_examples(count)))
    axes.set_xlabel("examples seen")


def label_rows(axes: Axes, label: str, write: Callable[[float], str] | None = None) -> None:
    """The vertical axis: its label, few ticks, numbers without exponents."""
    axes.set_ylabel(textwrap.fill(label, 28))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: (write or _number)(number)))
    axes.grid(False, which="minor")


def label_log_rows(axes: Axes, label: str, write: Callable[[float], str] | None = None, base: int = 10) -> None:
    """A logarithmic vertical axis; with 1, 2 and 5 as ticks where it spans less than a decade or two."""
    axes.set_yscale("log", base=base)
    low, high = axes.get_ylim()
    decades = math.log(high / low, base) if low > 0 else 9
    subs = (1.0,) if decades > 2 or base != 10 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(base=base, subs=subs, numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: (write or _number)(number)))
    axes.set_ylabel(textwrap.fill(label, 28))
    axes.grid(False, which="minor")


def metric_label(metric: str) -> str:
    """wds_shapes_retrieval/mean_recall@1 → 'mean recall@1 (%)': short, for an axis."""
    name = tables.metric_title(metric)[1].replace("mean image and text recall", "mean recall")
    name = re.sub(r"(\d+)shot acc1", r"\1-shot accuracy", name)
    return f"{name} (%)"


def title(axes: Axes, *lines: str) -> None:
    """At the left, one line or two, cut where they would leave the panel."""
    most = TITLE_CHARACTERS
    axes.set_title("\n".join(line if len(line) <= most else f"{line[: most - 1]}…" for line in lines), loc="left")


def name_lines(axes: Axes, names: Sequence[tuple[float, float, str]]) -> None:
    """Write each line's name left of its start (x, y, name), names that would touch one above the other."""
    if not names:
        return
    _make_room(axes, names)
    names = sorted(names, key=lambda item: item[1])
    for (x, _, name), y in zip(names, piled(axes, [y for _, y, _ in names]), strict=True):
        offset = {"xytext": (-5, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        axes.annotate(name, (x, y), fontsize=7.5, **offset)


def piled(axes: Axes, heights: Sequence[float]) -> list[float]:
    """Ascending heights of a panel, moved so that words there do not touch: as little as can be, and within it.

    What is left of each height when the words below it are taken away must not fall: averaged where it does.
    """
    low, high = axes.get_ylim()
    place = axes.get_subplotspec()
    rows = place.get_gridspec().nrows if place else 1
    apart = 9.5 / (0.62 * 72 * axes.figure.get_figheight() / rows) * (high - low)
    blocks: list[tuple[float, int]] = []
    for place, height in enumerate(heights):
        level, size = height - place * apart, 1
        while blocks and blocks[-1][0] > level:
            below, many = blocks.pop()
            level, size = (below * many + level * size) / (many + size), many + size
        blocks.append((level, size))
    levels = [level for level, size in blocks for _ in range(size)]
    highest = high - (len(levels) - 0.5) * apart
    return [max(low + apart / 2, min(level, highest)) + place * apart for place, level in enumerate(levels)]


def _make_room(axes: Axes, names: Sequence[tuple[float, float, str]]) -> None:
    """Move the left limit of a log axis so that the names fit."""
    low, high = (math.log2(limit) for limit in axes.get_xlim())
    for x, _, name in names:
        share = min(0.6, (4.4 * len(name) + 10) / _points_wide(axes))  # of the panel's width that the name takes
        low = min(low, (math.log2(x) - share * high) / (1 - share))
    axes.set_xlim(left=2**low)


def every_nth(axes: Axes, labels: Sequence[str]) -> int:
    """Step between those of evenly spaced labels that have room."""
    needed = sum(4.6 * len(label) + 5 for label in labels)
    return max(1, math.ceil(needed / _points_wide(axes)))


def _points_wide(axes: Axes) -> float:
    """About: what a panel's labels leave of its place."""
    place = axes.get_subplotspec()
    return 0.74 * 72 * axes.figure.get_figwidth() / (place.get_gridspec().ncols if place else 1)


def _number(value: float) -> str:
    """1,200 or −5.5, with the sign that print uses."""
    return f"{value:,.6g}".replace("-", "−")


def _label_log(axes: Axes, values: Sequence[float], ticks: Sequence[float], write: Callable[[float], str]) -> None:
    if not values:
        axes.xaxis.set_major_locator(NullLocator())
        return
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axes.xaxis.set_minor_locator(FixedLocator(values))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(values[0] / 1.4, values[-1] * 1.4)


def _powers(axes: Axes, sizes: Sequence[int], most: int) -> list[float]:
    """The sizes themselves where they have room, else powers of two at even distances."""
    if not sizes:
        return []
    span = math.log2(sizes[-1] / sizes[0])
    crowded = any(math.log2(b / a) < span / 8 for a, b in itertools.pairwise(sizes))
    if len(sizes) <= most and not crowded:
        return list(sizes)
    first, last = math.floor(math.log2(sizes[0])), math.ceil(math.log2(sizes[-1]))
    return [2**power for power in range(first, last + 1, math.ceil((last - first + 1) / min(5, most)))]


def format_ratio(count: float) -> str:
    """Negatives for each positive, as the paper writes them: 16,383 → 1:16k, 25.5 → 1:26, 2.55 → 1:2.6."""
    if count >= 1000:
        return f"1:{count / 1024:.2g}k"
    return f"1:{count:.0f}" if count >= 10 else f"1:{count:.2g}"


def look(loss: object, origin: object = None, origins: tuple[str, ...] = ()) -> dict[str, object]:
    """Style of a series: of ours by its loss; the paper's hollow; of an imported one its own colour, by its place."""
    style = dict(LOSSES[str(loss)].style if loss in LOSSES else OTHER_STYLE)
    if isinstance(origin, str) and origin == "paper":
        return style | {"markerfacecolor": PAPER, "linewidth": 1.1}
    if isinstance(origin, str) and origin in origins:
        own = OTHER_STYLES[origins.index(origin) % len(OTHER_STYLES)]
        return {"color": own["color"], "marker": own["marker"], "linestyle": style["linestyle"]}
    return style


def looks(names: object) -> dict[str, dict[str, object]]:
    """A look for each of some settings, in their order."""
    return dict(zip(names, itertools.cycle(OTHER_STYLES), strict=False))
