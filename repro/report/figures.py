"""Figures of a report: panels put together, their legend, and the files that they are saved to.

A figure is made at the width at which it is read: 17 cm for a page of two columns, 8 cm for one column and a phone.
What a panel shows is drawn by repro.report.draw.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro.report import tables
from repro.report.style import COLUMN_CM, FULL_CM, INK, PAPER, STYLE, look

INCH_CM = 2.54
PANEL_CM = 5.3
"""Height of a row of panels."""
FORMATS = ("png", "svg", "pdf")
DPI, LARGE_DPI = 200, 130
LARGE_CM = 40
"""Taller figures have fewer pixels a centimetre."""
Draw = Callable[[Axes], object]
NO_RESULT = {"color": INK, "marker": "x", "linestyle": "none", "markeredgewidth": 1.6}


@matplotlib.rc_context(STYLE)
def panels(
    draws: Sequence[Draw | None],
    columns: int,
    width_cm: float = FULL_CM,
    legend: Mapping[str, Mapping[str, object]] | None = None,
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


def full_and_column(
    draws: Sequence[Draw | None],
    columns: int,
    legend: Mapping[str, Mapping[str, object]] | None = None,
    row_cm: float = PANEL_CM,
) -> tuple[Figure, Figure]:
    """The same panels at both widths: `columns` a row, and one below the other with empty places left out."""
    full = panels(draws, columns, FULL_CM if columns > 1 else 11.0, legend, row_cm)
    column = panels([draw for draw in draws if draw], 1, COLUMN_CM, legend, row_cm)
    return full, column


def add_legend(figure: Figure, looks: Mapping[str, Mapping[str, object]]) -> None:
    """Above all panels: what is given, and the cross where there is one."""
    handles = [Line2D([], [], **_marked(style), label=name) for name, style in looks.items()]
    if any(line.get_marker() == "x" for axes in figure.axes for line in axes.lines):
        handles.append(Line2D([], [], **NO_RESULT, label="no result"))
    if handles:
        columns = _legend_columns([str(handle.get_label()) for handle in handles], figure.get_figwidth() * 72)
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, columnspacing=1.2)


def _legend_columns(names: Sequence[str], points: float) -> int:
    """So many as fit beside each other: each as wide as the longest name at 8 pt, with its line."""
    fit = int(points / (4.6 * max(map(len, names)) + 34))
    rows = math.ceil(len(names) / max(1, fit))
    return math.ceil(len(names) / rows)


def _marked(style: Mapping[str, object]) -> dict[str, object]:
    style = {key: value for key, value in style.items() if key != "shift"}
    hollow = {"markeredgecolor": style["color"]} if style.get("markerfacecolor") == PAPER else {}
    return {**style, **hollow}


def loss_looks(*of: pd.DataFrame) -> dict[str, dict[str, object]]:
    """The legend of losses, in figures of ours and the paper's alike."""
    found = {str(loss) for table in of for loss in tables.placed(table)["loss"].unique()}
    return {loss: look(loss) for loss in sorted(found)}


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write NAME.png (200 dpi), NAME.svg and NAME.pdf; returns the SVG's text. The same figure gives the same bytes.

    The layout is solved once: it takes as long as drawing, and all formats then agree.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.dpi = 72
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        if "svg" in FORMATS:
            FigureCanvasSVG(figure).print_svg(folder / f"{name}.svg", metadata={"Date": None})
        if "pdf" in FORMATS:
            dates = {"CreationDate": None, "ModDate": None}
            FigureCanvasPdf(figure).print_pdf(folder / f"{name}.pdf", metadata=dates)
        if "png" in FORMATS:
            figure.dpi = DPI if figure.get_figheight() < LARGE_CM / INCH_CM else LARGE_DPI
            FigureCanvasAgg(figure).print_png(folder / f"{name}.png")
    return (folder / f"{name}.svg").read_text()


def memory_unit(table: pd.DataFrame) -> tuple[str, int]:
    done = tables.finished(table)
    largest = tables.numbers(done["peak_memory_bytes"]).max() if "peak_memory_bytes" in done else 0
    return ("GiB", 2**30) if largest >= 4 * 2**30 else ("MiB", 2**20)


def share_heights(figure: Figure, columns: int) -> None:
    """The panels of a row get one vertical scale, so that they can be read off against each other."""
    axes = figure.axes
    for start in range(0, len(axes), columns):
        row = axes[start : start + columns]
        limits = [each.get_ylim() for each in row]
        for each in row:
            each.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
