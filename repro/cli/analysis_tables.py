"""Tables on the terminal of what repro saturation and repro compare find."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from repro.counts import format_batch_size

if TYPE_CHECKING:
    import pandas as pd

    from repro.analysis.saturation import Saturation


def saturation_table(found: "Sequence[Saturation]") -> Table:
    """A row for each series: peak, saturation point with its interval, the fit's, margin and noise."""
    from repro.series import series_label

    shown = _table()
    for column in ("series", "peak", "%", "saturates", "95 %", "by the fit", "margin", "noise", "from"):
        shown.add_column(column, justify="left" if column in ("series", "from") else "right", overflow="fold")
    for each in found:
        noise = "?" if each.noise_points is None else f"{each.noise_points:.2f}"
        shown.add_row(
            series_label(known(each.series)),
            format_batch_size(each.peak),
            f"{each.peak_percent:.1f}",
            _place(each),
            _interval(each),
            _fit(each),
            f"{each.margin_points:.2f}",
            noise,
            each.noise_source,
        )
    return shown


def comparison_table(rows: "pd.DataFrame", by: Sequence[str]) -> Table:
    """A row for each pair: what it was matched on, both percents, the difference and its interval."""
    from repro.series import series_label, signed

    shown = _table()
    names = (*(column.replace("_", " ") for column in by), "A %", "B %", "B − A", "95 %", "p (Holm)", "seeds", "")
    for column in names:
        shown.add_column(column, justify="right", overflow="fold")
    for row in rows.to_dict("records"):
        interval = (
            f"{signed(row['low_points'])} to {signed(row['high_points'])}" if is_known(row["low_points"]) else "–"
        )
        p = f"{row['p_holm']:.3f}" if is_known(row["p_holm"]) else "–"
        cells = [series_label({column: row[column]}) if is_known(row[column]) else "" for column in by]
        cells = [
            format_batch_size(int(row[column])) if column == "batch_size" else cell
            for column, cell in zip(by, cells, strict=True)
        ]
        numbers = (f"{row['a_percent']:.1f}", f"{row['b_percent']:.1f}", signed(row["difference_points"]))
        shown.add_row(*cells, *numbers, interval, p, str(row["seeds"]), row["verdict"])
    return shown


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


def _fit(each: "Saturation") -> str:
    if each.fit_point is None:
        return "–"
    text = _between(each.fit_point)
    return text if each.fit_low is None else f"{text} ({_between(each.fit_low)} to {_between(each.fit_high)})"


def _between(size: float) -> str:
    """20,700 → 20k, 181.3 → 181: batch sizes between those that were run."""
    return f"{size / 1024:.3g}k" if size >= 1024 else f"{size:.0f}"
