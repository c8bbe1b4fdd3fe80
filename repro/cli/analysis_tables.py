"""Tables on the terminal of what repro saturation and repro compare find."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from repro.config.units import format_batch_size

if TYPE_CHECKING:
    import pandas as pd

    from repro.results.stats.saturation import Saturation

FOLLOWING = ("data_fingerprint", "model", "scale")


def saturation_table(found: "Sequence[Saturation]") -> Table:
    """A row for each series: peak, saturation point with its interval, margin and noise."""
    shown = _table()
    shown.add_column("series", overflow="fold", min_width=16)
    for column in ("peak", "%", "saturates", "95 %", "margin", "noise"):
        shown.add_column(column, justify="right", no_wrap=True)
    for each, label in zip(found, labels([each.series for each in found]), strict=True):
        noise = "?" if each.noise_points is None else f"{each.noise_points:.2f}"
        shown.add_row(
            label,
            format_batch_size(each.peak),
            f"{each.peak_percent:.1f}",
            _place(each),
            _interval(each),
            f"{each.margin_points:.2f}",
            noise,
        )
    return shown


def comparison_table(rows: "pd.DataFrame", by: Sequence[str]) -> Table:
    """A row for each pair: what tells the pairs apart, both percents, the difference and its interval."""
    from repro.results.series import series_label, signed

    named = [name for name in by if name != "batch_size"]
    told = [name for name in _telling(rows[list(by)].to_dict("records")) if name in named]
    told = [name for name in told if rows[name].nunique(dropna=False) > 1] or named[:1]
    shown = _table()
    shown.add_column("pair", overflow="fold", min_width=14)
    for column in ("batch size", "A %", "B %", "B − A", "95 %", "seeds"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("ahead", no_wrap=True)
    for row in rows.to_dict("records"):
        interval = (
            f"{signed(row['low_points'])} to {signed(row['high_points'])}" if is_known(row["low_points"]) else "–"
        )
        numbers = (f"{row['a_percent']:.1f}", f"{row['b_percent']:.1f}", signed(row["difference_points"]))
        pair = series_label(known({name.removesuffix("_a").removesuffix("_b"): row[name] for name in told}))
        size = format_batch_size(int(row["batch_size"]))
        shown.add_row(pair, size, *numbers, interval, str(row["seeds"]), row["verdict"])
    return shown


def value_of(column: str, value: Any) -> str:
    """A column's value as people write it, without the column's name."""
    from repro.results.series import series_label

    if not is_known(value):
        return ""
    if column == "batch_size":
        return format_batch_size(int(value))
    return series_label({column: value}).removeprefix(f"{column.replace('_', ' ')} ").removeprefix(f"{column} ")


def labels(found: Sequence[dict[str, Any]]) -> list[str]:
    """Each series by what tells it from the others."""
    from repro.results.series import series_label

    kept = _telling(found)
    return [series_label(known({name: series[name] for name in kept})) for series in found]


def _telling(found: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of these rows without those that follow from the others, such as the model of a setup."""
    kept = list(found[0]) if found else []
    for column in FOLLOWING:
        fewer = [name for name in kept if name != column]
        if len({tuple(str(row[name]) for name in fewer) for row in found}) == len(found):
            kept = fewer
    return kept


def known(series: dict[str, Any]) -> dict[str, Any]:
    """Without what a series does not have, such as a published row's learning rate."""
    return {name: value for name, value in series.items() if is_known(value)}


def is_known(value: Any) -> bool:
    return value is not None and value == value


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows for JSON: what is not known is null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def _place(each: "Saturation") -> str:
    if each.point is None:
        return f"≥ {format_batch_size(each.sizes[-1])}"
    return f"{'≤ ' if each.point == each.sizes[0] else ''}{format_batch_size(each.point)}"


def _interval(each: "Saturation") -> str:
    if each.low is None:
        return "–"
    below = "≤ " if each.low == each.sizes[0] else ""
    if each.high is None:
        return f"from {below}{format_batch_size(each.low)}"
    if each.low == each.high:
        return f"{below}{format_batch_size(each.low)}"
    return f"{below}{format_batch_size(each.low)} to {format_batch_size(each.high)}"
