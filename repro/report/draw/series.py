"""Lines of runs: means joined, single runs as linked points, 95 % intervals as bars.

Runs that are unlike never share a line (tables.series_columns). A run without a number is a cross at its place.
"""

import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation, Transform

from repro.report.draw.axes import INK, PAPER, look, name_lines
from repro.results import tables

Look = Mapping[str, object]
SHIFTS = {"sigmoid": -4.5, "softmax": 4.5}
"""Points to the left or right of its place, where both losses would hide each other."""
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
    style: Callable[[Look], Look] = lambda key: look(key["loss"]),
    singles: bool = True,
    intervals: bool = True,
) -> list[tuple[float, float, str]]:
    """Mean of `value` against `x`: a line for each series (`by`) and each of its `lines`.

    factor: of what is drawn to what the table holds (100 for percent). style: a line's look from its columns.
    singles: draw the runs one by one, each a link to its row (run_urls).
    Returns where series could be named: (x, y, name).
    """
    within = [*lines, x]
    needed = {"loss", "batch_size", "status", "seed", "run_id", "sweep", "origin", value, *by, *within}
    table = table[[column for column in table.columns if column in needed]]
    means = tables.summarise(table, value, by, within)
    done = tables.finished(table)
    done = done.assign(**{value: tables.numbers(done[value])}).dropna(subset=[value, x])
    series = tables.split(means, by) if len(means) else []
    names = []
    for position, (key, part) in enumerate(series):
        strength = 1 - 0.55 * (len(series) - 1 - position) / max(1, len(series) - 1)
        for own, line in tables.split(part, lines):
            name = ", ".join(filter(None, [*map(str, own.values()), tables.series_label(key)]))
            own_look = {**style({**key, **own}), "alpha": strength, "label": name}
            runs = tables.part_of(done, {**key, **own})
            _draw_line(axes, line, runs if singles else runs[:0], x, value, factor, own_look, intervals)
        start = part[part[x] == part[x].min()]
        names.append((float(start[x].iloc[0]), factor * float(start["mean"].max()), tables.series_label(key)))
    return names if 1 < len(names) <= MOST_NAMES else []


def _draw_line(
    axes: Axes, line: pd.DataFrame, runs: pd.DataFrame, x: str, value: str, factor: float, style: Look, intervals: bool
) -> None:
    """One line: means; bars and small points where there are several seeds; points alone where there is one."""
    several, linked = bool((line["seeds"] > 1).any()), "run_id" in runs and len(runs) > 0
    plain = {key: style[key] for key in style if key not in ("shift", "marker", "markerfacecolor")}
    shift = float(style.get("shift", 0) or SHIFTS.get(str(line["loss"].iloc[0]) if "loss" in line else "", 0))
    face = style.get("markerfacecolor", style["color"])
    marks = {} if linked and not several else {"marker": style["marker"], "markerfacecolor": face}
    edge = {"markeredgecolor": PAPER if face == style["color"] else style["color"], "markeredgewidth": 0.6}
    axes.plot(line[x], factor * line["mean"], **plain, **marks, **edge, zorder=3)
    if several and intervals:
        draw_intervals(axes, line, x, factor, style, shift)
    if linked:
        draw_runs(axes, runs, x, value, factor, style, several, shift)


def draw_intervals(axes: Axes, means: pd.DataFrame, x: str, factor: float, style: Look, shift: float = 0) -> None:
    """95 % intervals of means as bars, a little beside them. means: of tables.summarise."""
    quiet = {"color": style["color"], "lw": 1, "alpha": 0.55 * float(style.get("alpha", 1))}
    place = {"transform": moved(axes, 0.4 * shift), "zorder": 2.2, "label": "_intervals"}
    axes.vlines(means[x], factor * means["low"], factor * means["high"], **quiet, **place)


def draw_runs(
    axes: Axes,
    runs: pd.DataFrame,
    x: str,
    value: str,
    factor: float,
    style: Look,
    small: bool = False,
    shift: float = 0,
) -> None:
    """Each run as a point that links to its row. small: beside the means of several seeds, `shift` points away."""
    strength = float(style.get("alpha", 1))
    face = style.get("markerfacecolor", style["color"])
    points = {"s": 7, "lw": 0, "alpha": 0.6 * strength} if small else {"s": 19, "lw": 0.6, "alpha": strength}
    edge = {} if small else {"edgecolors": PAPER if face == style["color"] else style["color"]}
    place = {"transform": moved(axes, shift if small else 0), "zorder": 2.5 if small else 3.5}
    numbers = factor * tables.numbers(runs[value])
    drawn = axes.scatter(runs[x], numbers, c=face, marker=style["marker"], **place, **points, **edge)
    drawn.set_urls(run_urls(runs))


def moved(axes: Axes, points: float) -> Transform:
    """Places of data, so many points to the right: so that lines which meet do not hide each other's runs."""
    return axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)


def run_urls(runs: pd.DataFrame) -> list[str | None]:
    """The page's place of each run's row: #run-<sweep>/<id>, #run-<id> of a table without sweeps.

    None for published rows, which have no row to link to, and for those without an id.
    """
    if "origin" in runs and (runs["origin"] == "paper").any():
        return [None] * len(runs)
    names = runs.reindex(columns=["sweep", "run_id"]).fillna("").astype(str).to_numpy()
    quoted = [[urllib.parse.quote(name, safe="") for name in pair if name] for pair in names]
    return [f"#run-{'/'.join(parts)}" if pair[1] else None for pair, parts in zip(names, quoted, strict=True)]


def mark_missing(axes: Axes, table: pd.DataFrame, value: str, x: str) -> None:
    """A cross at the foot of the panel where a run has no value, in its loss's colour, with the run's status."""
    runs = tables.placed(table)
    lacking = runs[tables.lacks(runs, value)].dropna(subset=[x])
    if lacking.empty:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.42 * (high - low), high)
    foot = axes.get_xaxis_transform()
    cross = {"marker": "x", "linestyle": "none", "markeredgewidth": 1.6, "clip_on": False}
    for place, group in lacking.groupby(x):
        for loss in group["loss"].unique():
            # Side by side, since both losses often fail at the same batch size.
            aside = foot + ScaledTranslation(0.8 * SHIFTS.get(loss, 0) / 72, 0, axes.figure.dpi_scale_trans)
            style = cross | {"color": look(loss)["color"], "label": f"{loss}, no result"}
            axes.plot([place], [0.045], transform=aside, **style)
        text = ", ".join(tables.missing(group, value))
        axes.text(place, 0.1, text, fontsize=7, color=INK, transform=foot, rotation=90, ha="center", va="bottom")


def finish(
    axes: Axes,
    table: pd.DataFrame,
    value: str,
    x: str,
    factor: float,
    names: Sequence[tuple[float, float, str]] = (),
    from_zero: bool = False,
) -> Axes:
    """Limits, crosses for missing numbers, words where there is nothing else, and the names of series."""
    done = tables.numbers(tables.finished(table)[value])
    done = factor * done[done.abs() < math.inf]
    if len(done):
        # The data set the limits, not the bars: with two seeds an interval can be many times wider than all else.
        margin = 0.08 * (done.max() - done.min()) or 0.05 * abs(done.max()) or 1
        axes.set_ylim(0 if from_zero else done.min() - margin, done.max() + margin)
    if "status" in table:
        mark_missing(axes, table, value, x)
    if done.empty:
        axes.set_yticks([])
        axes.text(0.5, 0.6, "no result", transform=axes.transAxes, ha="center")
    name_lines(axes, names)
    return axes
