"""Look of every figure of a report: colours, type, widths, and which look belongs to which series.

A loss has one colour, marker and line everywhere. Ours are filled marks and the paper's hollow ones, so that they can
share a panel. Text is 8 pt at the width at which a figure is made: 17 cm, or 8 cm for one column of a page.
"""

import itertools

from repro.loss.registry import LOSSES

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
