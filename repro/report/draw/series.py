"""The one way in which numbers of runs become lines: means joined, single runs as linked points, 95 % intervals as bars.

Runs that are unlike never share a line (tables.series_columns). A run without a number is a cross at its place.
"""

import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.report import tables
from repro.report.draw.axes import beside, name_lines
from repro.report.style import INK, LOSS_STYLES, OTHER_STYLE, PAPER, look

Look = Callable[[Mapping[str, object]], Mapping[str, object]]
MOST_NAMES = 6
"""More series than this in one panel are not named."""


def draw_series(
    axes: Axes,
    table: pd.DataFrame,
    value: str,
    x: str = "batch_size",
    by: Sequence[str] = (),
    lines: Sequence[str] = ("loss",),
    factor: float = 1,
    style: Look | None = None,
    singles: bool = True,
) -> list[tuple[float, float, str]]:
    """Mean of `value` against `x`: a line for each series (`by`) and each of its `lines`.

    factor: of what is drawn to what the table holds (100 for percent). style: a line's look from its columns.
    singles: draw the runs one by one, each a link to #run-<id>. Returns where series could be named: (x, y, name).
    """
    within = [*lines, x]
    held = axes.get_ylim() if axes.has_data() else None
    found = tables.summarise(table, value, by, within)
    done = tables.finished(table)
    done = done.assign(**{value: tables.numbers(done[value])}).dropna(subset=[value, x])
    series = tables.split(found, by) if len(found) else []
    names = []
    for position, (key, part) in enumerate(series):
        strength = 1 - 0.55 * (len(series) - 1 - position) / max(1, len(series) - 1)
        for own, line in tables.split(part, lines):
            look_of_line = dict(style({**key, **own}) if style else look(own.get("loss")))
            runs = tables.part_of(done, {**key, **own})
            name = ", ".join(filter(None, [*map(str, own.values()), tables.series_label(key)]))
            _draw_line(axes, line, runs, (x, value), factor, look_of_line | {"alpha": strength}, name, singles)
        start = part[part[x] == part[x].min()]
        names.append((float(start[x].iloc[0]), factor * float(start["mean"].max()), tables.series_label(key)))
    _limit(axes, factor * done[value], held)
    return names if 1 < len(names) <= MOST_NAMES else []


def _draw_line(
    axes: Axes,
    line: pd.DataFrame,
    runs: pd.DataFrame,
    columns: tuple[str, str],
    factor: float,
    look_of_line: dict[str, object],
    name: str,
    singles: bool,
) -> None:
    """One line: means; bars and small points where there are several seeds; points alone where there is one."""
    (x, value), several = columns, bool((line["seeds"] > 1).any())
    own = dict(look_of_line)
    marker, face = own.pop("marker"), own.pop("markerfacecolor", own["color"])
    linked = singles and "run_id" in runs and len(runs) > 0
    marks = {} if linked and not several else {"marker": marker, "markerfacecolor": face}
    edge = {"markeredgecolor": PAPER if face == own["color"] else own["color"], "markeredgewidth": 0.6}
    axes.plot(line[x], factor * line["mean"], **own, **marks, **edge, label=name, zorder=3)
    if several:
        bars = factor * (line["mean"] - line["low"])
        quiet = {"ecolor": own["color"], "elinewidth": 1, "capsize": 2.2, "alpha": own.get("alpha", 1)}
        axes.errorbar(line[x], factor * line["mean"], bars, fmt="none", **quiet)
    if not linked:
        return
    draw_runs(axes, runs, x, value, factor, {**own, "marker": marker, "facecolor": face}, small=several)


def draw_runs(
    axes: Axes,
    runs: pd.DataFrame,
    x: str,
    value: str,
    factor: float,
    look_of_runs: Mapping[str, object],
    small: bool = False,
) -> None:
    """Each run as a point that links to its row. small: beside the means of several seeds."""
    place = str(runs["loss"].iloc[0]) if small and "loss" in runs else ""
    shifted = axes.transData + beside(axes, place, 4.5)
    strength = float(look_of_runs.get("alpha", 1))
    face = look_of_runs.get("facecolor", look_of_runs["color"])
    points = {"s": 7, "lw": 0, "alpha": 0.6 * strength} if small else {"s": 19, "lw": 0.6, "alpha": strength}
    edge = {} if small else {"edgecolors": PAPER if face == look_of_runs["color"] else look_of_runs["color"]}
    drawn = axes.scatter(
        runs[x],
        factor * tables.numbers(runs[value]),
        transform=shifted,
        c=face,
        marker=look_of_runs["marker"],
        zorder=2.5 if small else 3.5,
        **points,
        **edge,
    )
    drawn.set_urls([run_url(run) for run in runs["run_id"]] if is_ours(runs) else [None] * len(runs))


def run_url(run_id: object) -> str:
    """Where the page has the run's row."""
    return f"#run-{urllib.parse.quote(str(run_id), safe='')}"


def is_ours(runs: pd.DataFrame) -> bool:
    """Whether these rows are runs of this project: others have no row to link to."""
    return "origin" not in runs or not (runs["origin"] == "paper").any()


def mark_missing(axes: Axes, table: pd.DataFrame, value: str, x: str = "batch_size") -> Axes:
    """A cross at the foot of the panel where a run has no value, in its loss's colour, with the run's status."""
    runs = tables.placed(table)
    lacking = runs[tables.lacks(runs, value)].dropna(subset=[x])
    if lacking.empty:
        return axes
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.42 * (high - low), high)
    foot = axes.get_xaxis_transform()
    for place, group in lacking.groupby(x):
        for loss in group["loss"].unique():
            colour = LOSS_STYLES.get(loss, OTHER_STYLE)["color"]
            # Side by side, since both losses often fail at the same batch size.
            moved = foot + beside(axes, loss, 3.5)
            cross = {"color": colour, "marker": "x", "linestyle": "none", "markeredgewidth": 1.6, "clip_on": False}
            axes.plot([place], [0.045], transform=moved, **cross, label=f"{loss}, no result")
        text = ", ".join(tables.missing(group, value))
        axes.text(place, 0.1, text, fontsize=7, color=INK, transform=foot, rotation=90, ha="center", va="bottom")
    return axes


def finish(axes: Axes, table: pd.DataFrame, value: str, names: Sequence[tuple[float, float, str]], x: str) -> None:
    """Crosses for what is missing, words where there is nothing else, and the names of series."""
    if "status" in table:
        mark_missing(axes, table, value, x)
    if tables.numbers(tables.finished(table)[value]).dropna().empty:
        axes.set_yticks([])
        axes.text(0.5, 0.6, "no result", transform=axes.transAxes, ha="center")
    name_lines(axes, names)


def _limit(axes: Axes, values: pd.Series, held: tuple[float, float] | None) -> None:
    """The data set the limits, not the bars: with two seeds an interval can be many times wider than all else.

    held: limits of what the panel shows already.
    """
    values = values[values.abs() < math.inf]
    if values.empty:
        return
    margin = 0.08 * (values.max() - values.min()) or 0.05 * abs(values.max()) or 1
    low, high = values.min() - margin, values.max() + margin
    axes.set_ylim(*((min(low, held[0]), max(high, held[1])) if held else (low, high)))
