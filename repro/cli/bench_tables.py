"""Tables of the loss benchmarks on the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from repro.cli.tables import is_number
from repro.counts import format_batch_size, format_bytes

if TYPE_CHECKING:
    import pandas as pd

TEXT = ("implementation", "note", "exchange", "loss", "status")


def loss_tables(table: "pd.DataFrame") -> "Iterator[Table]":
    """One for each setting: an implementation a row."""
    by = ["loss", "ranks", "local_batch", "dim", "dtype", "device", "threads"]
    for key, part in table.groupby(by, sort=False):
        loss, ranks, local_batch, dim, dtype, device, threads = key
        place = f"{dtype} on {device}" + f", {threads} threads a rank" * (device == "cpu")
        title = f"\n{loss}: {ranks} × {format_batch_size(local_batch)}, dim {dim}, {place}"
        shown = _table(["implementation", "time", "least–most", "ratio", "of matmul", "memory", "error", "note"], title)
        for row in part.to_dict("records"):
            errors = [row[name] for name in row if name.startswith("error_") and is_number(row[name])]
            shown.add_row(
                row["implementation"],
                _seconds(row.get("seconds")),
                f"{_seconds(row.get('seconds_least'))}–{_seconds(row.get('seconds_most'))}"
                if is_number(row.get("seconds"))
                else "",
                _number(row.get("ratio"), "{:.2f}"),
                _number(row.get("share_of_matmul_rate"), "{:.0%}"),
                _bytes(row.get("peak_memory_bytes")),
                f"{max(errors):.0e}" if errors else "",
                _note(row),
            )
        yield shown


def capacity_table(table: "pd.DataFrame") -> Table:
    columns = ["loss", "implementation", "ranks", "memory", "largest local batch", "batch size", "held", "note"]
    shown = _table(columns)
    for row in table.to_dict("records"):
        found = row["local_batch"] > 0
        at_least = "≥ " if row["status"] == "at least" else ""
        shown.add_row(
            row["loss"],
            row["implementation"],
            str(row["ranks"]),
            format_bytes(row["memory_limit_bytes"]),
            at_least + format_batch_size(row["local_batch"]) if found else "",
            at_least + format_batch_size(row["batch_size"]) if found else "",
            _bytes(row["peak_memory_bytes"]),
            _note(row),
        )
    return shown


def exchange_table(table: "pd.DataFrame") -> Table:
    columns = ["exchange", "ranks", "local batch", "dim", "dtype", "steps", "bytes sent", "counted"]
    shown = _table([*columns, "time alone", "whole loss", "note"])
    for row in table.to_dict("records"):
        shown.add_row(
            row["exchange"],
            str(row["ranks"]),
            format_batch_size(row["local_batch"]),
            str(row["dim"]),
            row["dtype"],
            str(row["steps"]),
            _bytes(row["bytes_sent"]),
            _bytes(row.get("bytes_counted_exchange")),
            _seconds(row.get("exchange_seconds")),
            _seconds(row.get("loss_seconds")),
            _note(row),
        )
    return shown


def foretold_table(table: "pd.DataFrame") -> "Iterator[Table]":
    """One for each exchange, under the fit and how far off it was."""
    for exchange, part in table.groupby("exchange", sort=False):
        first = part.iloc[0]
        title = f"\n{exchange}: {_seconds(first['latency_seconds'])} a step, {first['bytes_per_second'] / 1e9:.2g} GB/s"
        if "held_out" in part:
            off = f"{first['held_out_error_median']:.0%} (at most {first['held_out_error_most']:.0%})"
            title += f"\nfitted to {first['points_fitted']:.0f} measurements; off by {off} on {first['held_out']}"
        shown = _table(["devices", "batch size", "bytes sent", "exchange", "products", "loss", "hidden"], title)
        for row in part.to_dict("records"):
            shown.add_row(
                f"{row['devices']:,}",
                format_batch_size(row["batch_size"]),
                _bytes(row["bytes_sent"]),
                *(_seconds(row[f"{name}_seconds"]) for name in ("exchange", "compute", "loss")),
                f"{row['share_hidden']:.0%}",
            )
        yield shown


def _table(columns: list[str], title: str | None = None) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="left" if column in TEXT else "right", overflow="fold")
    return shown


def _note(row: dict) -> str:
    status = "" if row["status"] in ("ok", "not run") else row["status"]
    return ": ".join(text for text in (status, str(row["reason"])) if text)


def _seconds(value: object) -> str:
    if not is_number(value):
        return ""
    return f"{1e3 * value:,.3g} ms" if value < 1 else f"{value:,.3g} s"


def _bytes(value: object) -> str:
    return format_bytes(value) if is_number(value) else ""


def _number(value: object, form: str) -> str:
    return form.format(value) if is_number(value) else ""
