"""Drawn against the share of negatives, and against the probability of corruption."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.config.units import format_examples
from repro.report import tables
from repro.report.draw.axes import label_ratios, label_rows, metric_label, new_axes
from repro.report.draw.series import draw_intervals, draw_runs, draw_series, finish
from repro.report.style import INK, looks

KINDS = ("random", "hard", "easy")
ALL = "all"
ALL_STYLE = {"color": INK, "marker": "D", "linestyle": "none", "shift": 8.5}


def with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Runs of a choice of negatives with `ratio`, negatives for each positive, and `kind`: which, and how long trained.

    Runs longer than that of all negatives are kinds of their own: 'hard, matched pairs' where as many pairs were seen.
    """
    runs = tables.placed(table)
    share = tables.numbers(runs["negatives_share"])
    lengths = tables.numbers(runs["examples_seen"])
    base = lengths.where(runs["negatives"] == ALL).groupby([runs["scale"], runs["batch_size"]]).transform("max")
    base = base.fillna(lengths.groupby([runs["scale"], runs["batch_size"]]).transform("min"))
    longer = (lengths / base).fillna(1)
    matched = (longer * share - 1).abs() < 0.05
    kinds = [
        str(kind) if ratio == 1 else f"{kind}, {'matched pairs' if is_matched else format_examples(length)}"
        for kind, ratio, is_matched, length in zip(runs["negatives"], longer, matched, lengths, strict=True)
    ]
    return runs.assign(ratio=share * (runs["batch_size"] - 1), kind=kinds)


def by_ratio(
    table: pd.DataFrame, value: str, ax: Axes | None = None, factor: float = 1, label: str = "", singles: bool = True
) -> Axes:
    """A number of runs against their negatives for each positive (figure 6), a line for each choice of negatives.

    table: with the columns negatives and negatives_share. Each line ends in the runs of all negatives.
    """
    axes = new_axes(ax)
    runs = table if "kind" in table else with_ratios(table)
    everything, kinds = runs[runs["kind"] == ALL], kinds_of(runs)
    styles = kind_styles(runs)
    for kind in kinds:
        own = runs[runs["kind"] == kind]
        joined = own if "," in kind else pd.concat([own, everything]).assign(kind=kind)
        one = {"x": "ratio", "lines": ("kind",), "factor": factor, "singles": False, "intervals": False}
        draw_series(axes, joined, value, style=lambda key: styles[key["kind"]], **one)
        draw_intervals(
            axes, tables.summarise(own, value, (), ("ratio",)), "ratio", factor, styles[kind], styles[kind]["shift"]
        )
        _draw_singles(axes, own, value, factor, styles[kind], singles)
    draw_series(axes, everything, value, "ratio", (), ("kind",), factor, lambda _: ALL_STYLE, False)
    _draw_singles(axes, everything, value, factor, ALL_STYLE, singles)
    label_ratios(axes, runs["ratio"].dropna())
    label_rows(axes, label or value.replace("_", " "))
    finish(axes, runs, value, [], "ratio", factor)
    return axes


def kinds_of(runs: pd.DataFrame) -> list[str]:
    """Choices of negatives but all: the paper's order, longer trained ones last."""
    found = [str(kind) for kind in runs["kind"].unique() if kind != ALL]
    place = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda kind: ("," in kind, place.get(kind.partition(",")[0], len(KINDS)), kind))


def kind_styles(runs: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Each its look, and its own few points to the left or right of its place."""
    styles = looks(kinds_of(runs))
    return {
        kind: {**style, "shift": (-6, -3.5, 3.5, 6)[place % 4]} for place, (kind, style) in enumerate(styles.items())
    }


def _draw_singles(
    axes: Axes, runs: pd.DataFrame, value: str, factor: float, style: dict[str, object], singles: bool
) -> None:
    done = tables.finished(runs)
    done = done[tables.numbers(done[value]).notna()] if value in done else done[:0]
    if singles and len(done) and "run_id" in done:
        several = bool(done["ratio"].duplicated().any())
        look = {**style, "facecolor": style["color"]}
        draw_runs(axes, done, "ratio", value, factor, look, several, float(style.get("shift", 0)))


def by_noise(
    table: pd.DataFrame,
    metric: str,
    kind: str,
    ax: Axes | None = None,
    by: Sequence[str] = (),
    singles: bool = True,
) -> Axes:
    """A metric (0 to 1, drawn in percent) against the probability of one kind of corruption (figure 7), both losses.

    table: with corruption and corruption_probability; runs without corruption are the point at 0.
    """
    axes = new_axes(ax)
    runs = table[table["corruption"].isin([kind, "none"])]
    runs = runs.assign(corruption_probability=tables.numbers(runs["corruption_probability"]).fillna(0))
    draw_series(axes, runs, metric, "corruption_probability", by, factor=100, singles=singles)
    axes.set_xlabel("corruption probability p")
    top = max(0.05, float(runs["corruption_probability"].max() or 0))
    axes.set_xlim(-0.06 * top, 1.06 * top)
    label_rows(axes, metric_label(metric))
    finish(axes, runs, metric, [], "corruption_probability", 100)
    return axes
