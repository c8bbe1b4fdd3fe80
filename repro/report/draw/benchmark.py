"""Panels of tables of results/bench: loss implementations beside each other.

A family of implementations (ours, the plain formula, each peer) has one colour; its variants differ in marker.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.config.units import format_batch_size, format_bytes
from repro.report.draw.axes import INK, PAPER, label_batch_sizes, label_log_rows, new_axes

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


def family(name: str) -> str:
    """repro-ring → repro."""
    return next((family for family in FAMILIES if name == family or name.startswith(f"{family}-")), name)


def styles(names: Sequence[str]) -> dict[str, dict]:
    """Colour by family, marker and line by the place within the family."""
    looks: dict[str, dict] = {}
    families = [family(name) for name in names]
    for number, (name, own) in enumerate(zip(names, families, strict=True)):
        place = families[:number].count(own) % len(LINES)
        looks[name] = {"color": FAMILIES.get(own, INK), "marker": MARKERS[place], "linestyle": LINES[place]}
        # Lines often coincide: the plain formula's is broad, below; ours is above all.
        broad = {"plain": {"linewidth": 3.5, "alpha": 0.55, "zorder": 2.5}, "repro": {"zorder": 4}}
        looks[name] |= broad.get(own, {"zorder": 3})
    return looks


def in_order(names: Sequence[str]) -> list[str]:
    """Ours first, the plain formula, then peers."""
    order = ["repro", "plain", *FAMILIES]
    return sorted(set(names), key=lambda name: (order.index(family(name)) if family(name) in order else 99, name))


def loss_cost(
    table: pd.DataFrame, value: str, ax: Axes | None = None, order: Sequence[str] = (), label: str = ""
) -> Axes:
    """`seconds` or `peak_memory_bytes` of each implementation of a loss against the batch of a rank.

    table: of results/bench/loss.csv, one loss, ranks, dim, dtype and device. Bars are the least and the most that was
    measured. With seconds, the dashed line is what the matrix products alone take. order: of implementations.
    """
    axes = new_axes(ax)
    edge = {"markeredgecolor": PAPER, "markeredgewidth": 0.6}
    given = table.assign(**{value: pd.to_numeric(table[value], errors="coerce")})
    for name, style in styles(order or in_order(given["implementation"])).items():
        line = given[given["implementation"] == name].dropna(subset=value).sort_values("local_batch")
        if line.empty:
            continue
        axes.plot(line["local_batch"], line[value], **style, **edge, label=name)
        if value == "seconds" and {"seconds_least", "seconds_most"} <= set(line.columns):
            spread = (line[value] - line["seconds_least"], line["seconds_most"] - line[value])
            bars = {"ecolor": style["color"], "elinewidth": 0.7, "alpha": 0.7}
            axes.errorbar(line["local_batch"], line[value], spread, fmt="none", **bars)
    if value == "seconds" and "matmul_limit_seconds" in given:
        limits = given.drop_duplicates("local_batch").sort_values("local_batch")
        axes.plot(limits["local_batch"], limits["matmul_limit_seconds"], **LIMIT, zorder=2, label="the products alone")
    label_batch_sizes(axes, given["local_batch"], most=5)
    axes.set_xlabel("batch size of a rank")
    axes.grid(False, which="minor")
    if label:
        label_log_rows(axes, label, *((format_seconds, 10) if value == "seconds" else (format_bytes, 4)))
    return axes


def capacity(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The largest batch in a given memory, a bar for each implementation of one loss; '≥' where more was not tried."""
    axes = new_axes(ax)
    rows = table[table["batch_size"] > 0].sort_values("batch_size")
    colours = [FAMILIES.get(family(name), INK) for name in rows["implementation"]]
    places = range(len(rows))
    axes.barh(places, rows["batch_size"], 0.6, color=colours)
    axes.set_yticks(places, list(rows["implementation"]))
    beside = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 7.5}
    for place, row in zip(places, rows.itertuples(), strict=True):
        axes.annotate(largest_size(row.batch_size, row.status), (row.batch_size, place), **beside)
    axes.set_xscale("log", base=2)
    smallest, largest = rows["batch_size"].min(), rows["batch_size"].max()
    label_batch_sizes(axes, [smallest // 2, smallest, largest])
    axes.set_xlim(smallest / 2, largest * 2.2)
    axes.set_xlabel("largest batch size")
    axes.grid(False, axis="y")
    return axes


def largest_size(batch_size: float, status: str) -> str:
    """'≥ 4k' where larger ones were not tried."""
    return ("≥ " if status == "at least" else "") + format_batch_size(int(batch_size))


def format_seconds(value: float) -> str:
    """0.0021 → 2.1 ms."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:.1g} s"
