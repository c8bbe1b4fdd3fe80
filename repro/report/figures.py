"""Figures of a report: panels put together, their legend, and the files that they are saved to.

A figure is made at the width at which it is read: 17 cm for a page of two columns, 8 cm for one column and a phone.
repro.report.draw draws what a panel shows.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.loss.registry import LOSSES
from repro.report.draw.axes import COLUMN_CM, FULL_CM, GRID, INK, PAPER, STYLE, look
from repro.report.draw.axes import title as set_title
from repro.results import tables

INCH_CM = 2.54
PANEL_CM = 5.3
"""Height of a row of panels."""
FORMATS = ("png", "svg", "pdf")
DPI, LARGE_DPI = 200, 130
LARGE_CM = 40
"""Taller figures have fewer pixels a centimetre."""
Draw = Callable[[Axes], object]
Look = Mapping[str, object]
NO_RESULT = {"color": INK, "marker": "x", "linestyle": "none", "markeredgewidth": 1.6}
PAGE_COLOURS = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    GRID: "var(--grid)",
    LOSSES["sigmoid"].colour: "var(--sigmoid)",
    LOSSES["softmax"].colour: "var(--softmax)",
}
"""A figure's colours on the page, which has a light and a dark theme."""


class Panel(NamedTuple):
    """A panel of a figure and the numbers that it shows."""

    draw: Draw
    data: pd.DataFrame


def panel(data: pd.DataFrame, heads: Sequence[str], function: Callable, *arguments: object, **options: object) -> Panel:
    """A panel that a function of repro.report.draw draws, with one or two lines of a title."""

    def draw(axes: Axes) -> None:
        function(*arguments, ax=axes, **options)
        set_title(axes, *filter(None, heads))

    return Panel(draw, data)


@matplotlib.rc_context(STYLE)
def panels(
    draws: Sequence[Draw | None],
    columns: int,
    width_cm: float = FULL_CM,
    legend: Mapping[str, Look] | None = None,
    row_cm: float = PANEL_CM,
) -> Figure:
    """A panel for each function that draws one, `columns` a row; None leaves a place empty. Legend above all.

    The Figure stands outside pyplot's: it needs no display and is freed when unused.
    """
    columns = max(1, min(columns, len(draws)))
    rows = math.ceil(len(draws) / columns)
    figure = Figure(figsize=(width_cm / INCH_CM, (row_cm * rows + 0.8) / INCH_CM), layout="constrained")
    for place, draw in enumerate(draws, 1):
        if draw is not None:
            draw(figure.add_subplot(rows, columns, place))
    add_legend(figure, legend or {})
    return figure


def full_and_column(draws: Sequence[Draw | None], columns: int, *options: object) -> tuple[Figure, Figure]:
    """The same panels at both widths: `columns` a row, and one below the other with empty places left out."""
    full = panels(draws, columns, FULL_CM if columns > 1 else 11.0, *options)
    return full, panels([draw for draw in draws if draw], 1, COLUMN_CM, *options)


def add_legend(figure: Figure, looks: Mapping[str, Look]) -> None:
    """Above all panels: the given lines, and the cross where there is one."""
    handles = []
    for name, style in looks.items():
        hollow = {"markeredgecolor": style["color"]} if style.get("markerfacecolor") == PAPER else {}
        line = {key: value for key, value in style.items() if key != "shift"} | hollow
        handles.append(Line2D([], [], **line, label=name))
    if any(line.get_marker() == "x" for axes in figure.axes for line in axes.lines):
        handles.append(Line2D([], [], **NO_RESULT, label="no result"))
    if handles:
        # So many as fit beside each other: each as wide as the longest name at 8 pt, with its line.
        longest = max(len(str(handle.get_label())) for handle in handles)
        fit = max(1, int(figure.get_figwidth() * 72 / (4.6 * longest + 34)))
        columns = math.ceil(len(handles) / math.ceil(len(handles) / fit))
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)


def loss_looks(*parts: pd.DataFrame) -> dict[str, Look]:
    """The legend of losses, in figures of ours and the paper's alike."""
    losses = {str(loss) for table in parts for loss in tables.placed(table)["loss"].unique()}
    return {loss: look(loss) for loss in sorted(losses)}


def share_heights(figure: Figure, columns: int) -> None:
    """The panels of a row get one vertical scale, so that they can be read off against each other."""
    for start in range(0, len(figure.axes), columns):
        row = figure.axes[start : start + columns]
        limits = [each.get_ylim() for each in row]
        for each in row:
            each.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write NAME.png (200 dpi), NAME.svg and NAME.pdf; returns the SVG's text. The same figure gives the same bytes.

    The layout is solved once: it takes as long as drawing, and all formats then agree.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.dpi = 72
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(folder / f"{name}.svg", metadata={"Date": None})
        if "pdf" in FORMATS:
            dates = {"CreationDate": None, "ModDate": None}
            FigureCanvasPdf(figure).print_pdf(folder / f"{name}.pdf", metadata=dates)
        if "png" in FORMATS:
            figure.dpi = DPI if figure.get_figheight() < LARGE_CM / INCH_CM else LARGE_DPI
            FigureCanvasAgg(figure).print_png(folder / f"{name}.png")
    return (folder / f"{name}.svg").read_text()


def inline(svg: str, name: str) -> Markup:
    """An SVG file's text → an element of the page: its colours the page's, its width the column's, its ids its own."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'\1style="--natural-width: \2px"', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    # Links of points (#run-…) lead to the page's rows; all other references stay within the figure.
    svg = re.sub(r'(href="#|url\(#)(?!run-)', rf"\1{name}-", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    # A page of many figures stays small: places to a hundredth of a point, points without a clip of their own (they lie
    # within their panel), no line ends.
    svg = re.sub(r' (d|x|y|transform|points)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), svg)
    svg = re.sub(
        r'(<a [^>]*?)(?: target="_blank")?>\s*<g clip-path="[^"]*">\s*(<use [^>]*/>)\s*</g>\s*</a>', r"\1>\2</a>", svg
    )
    svg = re.sub(r' d="[^"]*"', lambda match: re.sub(r"\s*\n", " ", match[0]), svg)
    return Markup(re.sub(r">\s+<", "><", svg))  # noqa: S704 (matplotlib has escaped the text in it)
