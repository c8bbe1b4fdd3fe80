"""Drawing functions for notebooks and reports: a DataFrame in, matplotlib Axes out (`ax=None` makes new ones).

from repro.report import draw
from repro.results import tables

ax = draw.accuracy_by_batch_size(tables.load("batch-size"), "wds_shapes_objects/acc1")
ax.figure.savefig("accuracy.png", dpi=200)
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from repro.config.units import format_batch_size, format_examples
from repro.report.draw import axes as ax_
from repro.report.draw.axes import INK, OTHER_STYLE, PAPER, look, looks
from repro.report.draw.benchmark import capacity as capacity
from repro.report.draw.benchmark import loss_cost as loss_cost
from repro.report.draw.series import draw_intervals, draw_runs, draw_series, finish
from repro.results import tables

MOST_LANGUAGES = 8
"""Up to so many are all named at their lines' ends, of more only a few."""
MOST_TICKS = 4
MOST_CURVES = 12
"""For more runs of one setting their median is drawn."""
MOST_LINES = 400
"""Points of one curve: a figure 8 cm wide shows no more."""
STEP_PARTS = {
    "data_seconds": ("waiting for data", "#b9bfc6", ""),
    "towers_seconds": ("towers", "#56b4e9", ""),
    "loss_seconds": ("loss", "#e69f00", "///"),
    "exchange_seconds": ("exchange", "#cc79a7", "xxx"),
    "optimizer_seconds": ("optimizer", "#009e73", "\\\\\\"),
    "other_seconds": ("other", "#7a7f87", ""),
}
"""Columns of a run, mean seconds a step: name, colour (Okabe and Ito's, pale) and hatch, for print in grey."""
NEGATIVES = ("random", "hard", "easy")
ALL = "all"
ALL_STYLE = {"color": INK, "marker": "D", "linestyle": "none", "shift": 8.5}
Look = dict[str, object]


def accuracy_by_batch_size(
    table: pd.DataFrame, metric: str, ax: Axes | None = None, singles: bool = True, origins: tuple[str, ...] = ()
) -> Axes:
    """A metric (0 to 1, drawn in percent) against batch size, a line for each loss and series.

    table: of `repro.results.load` or `repro.results.tables.load`; the paper's rows are hollow, imported ones have
    colours of their own. singles: each run is drawn, and links to its row. origins: names of imported series in the
    order of their colours.
    """
    label = ax_.metric_label(metric)
    return by_batch_size(table, metric, 100, label, ax, singles=singles, origins=origins)


def by_batch_size(
    table: pd.DataFrame,
    value: str,
    factor: float,
    label: str,
    ax: Axes | None = None,
    by: Sequence[str] | None = None,
    singles: bool = True,
    origins: tuple[str, ...] = (),
    from_zero: bool = False,
) -> Axes:
    """Any number of runs against batch size. by: columns that tell series apart, found from the table when None."""
    axes, names = ax_.new_axes(ax), []
    given = table if "origin" in table else table.assign(origin="")
    given = given.assign(origin=given["origin"].fillna("").astype(str), **{value: tables.column(given, value)})
    for origin, part in given.groupby("origin", sort=True):
        series = tables.series_columns(part) if by is None else by

        def style(key: Mapping[str, object], origin: str = origin) -> Look:
            return look(key["loss"], origin, origins)

        named = draw_series(axes, part, value, by=series, factor=factor, style=style, singles=singles)
        names += [each for each in named if each[2] not in {name for _, _, name in names}]
    ax_.label_batch_sizes(axes, tables.placed(given)["batch_size"], most=5 if names else 7)
    ax_.label_rows(axes, label, (lambda number: f"{number:,.6g}" if number >= 0 else "") if from_zero else None)
    return finish(axes, given, value, "batch_size", factor, names, from_zero)


def by_language(table: pd.DataFrame, metrics: Sequence[str], mean: str, ax: Axes | None = None) -> Axes:
    """A metric of each language (0 to 1, drawn in percent) against batch size, thin, and the languages' mean.

    table: runs of one loss, several seeds are averaged. metrics: one column a language, <dataset>_<language>/<metric>.
    """
    axes = ax_.new_axes(ax)
    runs = tables.finished(table)
    columns = [metric for metric in [*metrics, mean] if metric in runs]
    scaled = runs.assign(**{metric: 100 * tables.numbers(runs[metric]) for metric in columns})
    means = scaled.groupby("batch_size")[columns].mean().dropna(how="all")
    ends = []
    for metric in (metric for metric in columns if metric != mean):
        line = means[metric].dropna()
        if len(line):
            axes.plot(line.index, line, color=OTHER_STYLE["color"], lw=0.8, alpha=0.7, label=language(metric))
            ends.append((float(line.index[-1]), float(line.iloc[-1]), language(metric)))
    if mean in means:
        style = look(runs["loss"].iloc[0], runs["origin"].iloc[0] if "origin" in runs else "")
        axes.plot(means.index, means[mean], **style, label="mean", zorder=3)
    ax_.label_batch_sizes(axes, means.index, most=4)
    ax_.label_rows(axes, ax_.metric_label(mean))
    if ends:
        _name_ends(axes, sorted(ends, key=lambda end: end[1]))
    return axes


def language(metric: str) -> str:
    """wds_shapes_retrieval_de/mean_recall@1 → de."""
    return metric.rpartition("/")[0].rpartition("_")[2]


def _name_ends(axes: Axes, ends: list[tuple[float, float, str]]) -> None:
    """Languages right of their lines, in the lines' order and apart; of many every so many-th."""
    if len(ends) > MOST_LANGUAGES:
        places = {round(i * (len(ends) - 1) / (MOST_LANGUAGES - 1)) for i in range(MOST_LANGUAGES)}
        ends = [ends[place] for place in sorted(places)]
    axes.set_xlim(right=axes.get_xlim()[1] * 1.5)
    offset = {"xytext": (4, 0), "textcoords": "offset points", "ha": "left", "va": "center", "color": INK}
    for (x, _, name), y in zip(ends, ax_.piled(axes, [y for _, y, _ in ends]), strict=True):
        axes.annotate(name, (x, y), fontsize=7, **offset)


def accuracy_along_training(
    table: pd.DataFrame, metric: str, ax: Axes | None = None, case: str = "case", singles: bool = True
) -> Axes:
    """A metric (0 to 1, drawn in percent) against the examples seen so far, a line for each value of the column `case`.

    table: of `repro.results.load_evaluations`, with that column.
    """
    axes, x = ax_.new_axes(ax), "examples_seen_at"
    styles = looks(dict.fromkeys(table[case]))
    draw_series(axes, table, metric, x, (), (case,), 100, lambda key: styles[key[case]], singles)
    ax_.label_examples(axes, tables.numbers(table[x]).dropna())
    ax_.label_rows(axes, ax_.metric_label(metric))
    return finish(axes, table, metric, x, 100)


def training_curves(
    table: pd.DataFrame, column: str, by: Sequence[str], ax: Axes | None = None, log: bool = True
) -> Axes:
    """A column of the runs' logs against examples seen: a colour for each value of `by`, a thin line for each run.

    table: of `repro.results.load_curves`. Of many runs of one value the median.
    """
    axes, x = ax_.new_axes(ax), "examples_seen_at"
    given = table.assign(**{column: tables.numbers(table[column])}).dropna(subset=[column, x])
    groups = tables.split(given, by)
    for (key, part), style in zip(groups, looks(range(len(groups))).values(), strict=True):
        plain = {"color": style["color"], "linestyle": style["linestyle"], "label": tables.series_label(key)}
        runs = [line for _, line in part.groupby("run_id", sort=True)]
        if len(runs) > MOST_CURVES:
            median = part.groupby(x)[column].median()
            axes.plot(median.index, median, **plain, lw=1.2)
            continue
        for line in runs:
            shown = line.sort_values(x).iloc[:: -(-len(line) // MOST_LINES)]
            axes.plot(shown[x], shown[column], **plain, lw=0.8, alpha=0.85)
    ax_.label_examples_evenly(axes)
    label = ax_.label_log_rows if log and len(given) and (given[column] > 0).all() else ax_.label_rows
    label(axes, column.replace("_", " "))
    return axes


def with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Runs of a choice of negatives with `ratio`, negatives for each positive, and `kind`: which, and how long trained.

    Runs longer than that of all negatives are kinds of their own: 'hard, matched pairs' where as many pairs were seen.
    """
    runs = tables.placed(table)
    share, lengths = tables.numbers(runs["negatives_share"]), tables.numbers(runs["examples_seen"])
    cells = [runs["scale"], runs["batch_size"]]
    base = lengths.where(runs["negatives"] == ALL).groupby(cells).transform("max")
    longer = (lengths / base.fillna(lengths.groupby(cells).transform("min"))).fillna(1)
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

    table: of `with_ratios`. Each line ends in the runs of all negatives.
    """
    axes = ax_.new_axes(ax)
    everything = table[table["kind"] == ALL]
    for kind, style in {**kind_styles(table), ALL: ALL_STYLE}.items():
        own = table[table["kind"] == kind]
        joined = own if kind == ALL or "," in kind else pd.concat([own, everything]).assign(kind=kind)
        of_all = kind == ALL
        draw_series(axes, joined, value, "ratio", (), ("kind",), factor, lambda _, s=style: s, False, of_all)
        if not of_all:
            means = tables.summarise(own, value, (), ("ratio",))
            draw_intervals(axes, means, "ratio", factor, style, style["shift"])
        done = tables.finished(own)
        done = done[tables.numbers(done[value]).notna()]
        if singles and len(done):
            several = bool(done["ratio"].duplicated().any())
            draw_runs(axes, done, "ratio", value, factor, style, several, style["shift"])
    ax_.label_examples(axes, table["ratio"].dropna(), "positives : negatives", ax_.format_ratio)
    ax_.label_rows(axes, label or value.replace("_", " "))
    return finish(axes, table, value, "ratio", factor)


def kind_styles(runs: pd.DataFrame) -> dict[str, Look]:
    """A look, and a few points to the left or right of its place, for each choice of negatives but all.

    In the paper's order, longer trained ones last.
    """
    kinds = [str(kind) for kind in runs["kind"].unique() if kind != ALL]
    place = {kind: number for number, kind in enumerate(NEGATIVES)}
    kinds.sort(key=lambda kind: ("," in kind, place.get(kind.partition(",")[0], len(place)), kind))
    shifts = (-6, -3.5, 3.5, 6)
    return {kind: {**style, "shift": shifts[n % 4]} for n, (kind, style) in enumerate(looks(kinds).items())}


def by_noise(
    table: pd.DataFrame, metric: str, kind: str, ax: Axes | None = None, by: Sequence[str] = (), singles: bool = True
) -> Axes:
    """A metric (0 to 1, drawn in percent) against the probability of one kind of corruption (figure 7), both losses.

    table: with corruption and corruption_probability; runs without corruption are the point at 0.
    """
    axes, x = ax_.new_axes(ax), "corruption_probability"
    runs = table[table["corruption"].isin([kind, "none"])]
    runs = runs.assign(**{x: tables.numbers(runs[x]).fillna(0)})
    draw_series(axes, runs, metric, x, by, factor=100, singles=singles)
    axes.set_xlabel("corruption probability p")
    top = max(0.05, float(runs[x].max() or 0))
    axes.set_xlim(-0.06 * top, 1.06 * top)
    ax_.label_rows(axes, ax_.metric_label(metric))
    return finish(axes, runs, metric, x, 100)


def pareto_front(table: pd.DataFrame, cost: str, metric: str) -> pd.Series:
    """Mark the runs on the front: no other is as good or better that cost as little or less."""
    order = pd.DataFrame({"cost": tables.numbers(table[cost]), "worse": -tables.numbers(table[metric])})
    order = order.dropna().sort_values(["cost", "worse"])
    best_before = (-order["worse"]).cummax().shift(fill_value=-math.inf)
    return (-order["worse"] > best_before).reindex(table.index, fill_value=False)


def pareto(
    table: pd.DataFrame, cost: str, metric: str, ax: Axes | None = None, label: str = "", singles: bool = True
) -> Axes:
    """A metric (0 to 1, drawn in percent) against a cost on a logarithmic axis, each run a point, the front joined.

    table: one row a run, the cost as a column. singles: false draws the front alone.
    """
    axes = ax_.new_axes(ax)
    runs = tables.finished(table)
    runs = runs.assign(**{cost: tables.numbers(runs[cost]), metric: tables.numbers(runs[metric])})
    runs = runs[runs[cost] > 0].dropna(subset=[metric])
    front = runs[pareto_front(runs, cost, metric)].sort_values(cost)
    shown = runs if singles else front
    axes.step(front[cost], 100 * front[metric], where="post", color=INK, lw=1, label="front", zorder=2)
    for loss, part in shown.groupby("loss"):
        draw_runs(axes, part, cost, metric, 100, look(loss) | {"alpha": 0.75})
    # The front's runs again, ringed.
    axes.plot(front[cost], 100 * front[metric], "o", mfc="none", mec=INK, ms=7, mew=0.9, label="on the front", zorder=4)
    _label_cost(axes, runs[cost], label or cost.replace("_", " "))
    ax_.label_rows(axes, ax_.metric_label(metric))
    return finish(axes, shown, metric, cost, 100)


def _label_cost(axes: Axes, values: pd.Series, label: str) -> None:
    """A logarithmic axis with two to five ticks, however little of a decade it spans."""
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.xaxis.set_minor_locator(NullLocator())
    if values.empty:
        return
    low, high = values.min() / 1.3, values.max() * 1.3
    axes.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= MOST_TICKS // 2:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // MOST_TICKS) or 1]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.2g}".replace("e+", "e") if value >= 1e6 else f"{value:,.6g}")
    )


def parts_of(table: pd.DataFrame) -> list[str]:
    """The parts of a step that these runs have."""
    done = tables.finished(table)
    return [part for part in STEP_PARTS if tables.column(done, part).notna().any()]


def step_parts(table: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds a step of each part, a row for each batch size and loss; finished runs that have any of them."""
    done, parts = tables.finished(table), parts_of(table)
    numbers = done.assign(**{part: tables.numbers(done[part]) for part in parts}).dropna(subset=parts, how="all")
    return numbers.groupby(["batch_size", "loss"])[parts].mean().reset_index()


def step_time(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Seconds of a step, stacked by what they went to: a bar for each batch size and loss, sigmoid at the left.

    table: one series of runs with columns of STEP_PARTS; several seeds are averaged.
    """
    axes = ax_.new_axes(ax)
    means = step_parts(table)
    sizes, losses = sorted(means["batch_size"].unique()), sorted(means["loss"].unique())
    width = 0.8 / max(1, len(losses))
    for place, loss in enumerate(losses):
        rows = means[means["loss"] == loss].set_index("batch_size").reindex(sizes).fillna(0)
        x = np.arange(len(sizes)) + (place - (len(losses) - 1) / 2) * width
        bottom = np.zeros(len(sizes))
        for part in (part for part in STEP_PARTS if part in rows):
            name, colour, hatch = STEP_PARTS[part]
            bar = {"color": colour, "hatch": hatch, "edgecolor": PAPER, "linewidth": 0.4}
            axes.bar(x, rows[part], 0.92 * width, bottom, label=name, **bar)
            bottom += rows[part].to_numpy()
        there, own = bottom > 0, look(loss)
        mark = {"marker": own["marker"], "color": own["color"], "ms": 4, "mec": PAPER, "mew": 0.5}
        axes.plot(x[there], bottom[there], linestyle="none", **mark)
    names = [format_batch_size(int(size)) for size in sizes]
    every = ax_.every_nth(axes, names)
    axes.set_xticks(range(0, len(sizes), every), names[::every], color=INK)
    axes.set_xlabel("batch size")
    axes.set_ylabel("seconds a step")
    axes.set_ylim(bottom=0)
    axes.grid(False, axis="x")
    return axes
