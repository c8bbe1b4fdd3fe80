"""Tables of the loss benchmarks on the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from repro.cli.results_table import is_number
from repro.config.units import format_batch_size, format_bytes

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("implementation", "exchange", "loss")


def loss_tables(table: "pd.DataFrame") -> "Iterator[Table | str]":
    """One for each setting, an implementation a row; under it what was not measured, and why."""
    by = ["loss", "ranks", "local_batch", "dim", "dtype", "device", "threads"]
    for key, part in table.groupby(by, sort=False):
        loss, ranks, local_batch, dim, dtype, device, threads = key
        place = f"{dtype} on {device}" + f", {threads} threads a rank" * (device == "cpu")
        title = f"{loss}: {ranks} × {format_batch_size(local_batch)}, dim {dim}, {place}"
        shown = _table(["implementation", "time", "least", "most", "ratio", "of torch.mm", "memory", "error"], title)
        for row in part[part["status"] != "not run"].to_dict("records"):
            errors = [row[name] for name in row if name.startswith("error_") and is_number(row[name])]
            shown.add_row(
                row["implementation"],
                *(_seconds(row.get(name)) for name in ("seconds", "seconds_least", "seconds_most")),
                f"{row['ratio']:.2f}" if is_number(row.get("ratio")) else "",
                f"{row['share_of_matmul_rate']:.0%}" if is_number(row.get("share_of_matmul_rate")) else "",
                _bytes(row.get("peak_memory_bytes")),
                f"{max(errors):.0e}" if errors else "",
            )
        yield shown
        yield notes(part, "implementation")


def capacity_table(table: "pd.DataFrame") -> Table:
    shown = _table(["loss", "implementation", "ranks", "memory", "largest a rank", "batch size", "held"])
    for row in table[table["status"] != "not run"].to_dict("records"):
        at_least = "≥ " if row["status"] == "at least" else ""
        sizes = [at_least + format_batch_size(row[name]) for name in ("local_batch", "batch_size")]
        shown.add_row(
            row["loss"],
            row["implementation"],
            str(row["ranks"]),
            format_bytes(row["memory_limit_bytes"]),
            *(sizes if row["local_batch"] else ("none", "none")),
            _bytes(row["peak_memory_bytes"]),
        )
    return shown


def notes(table: "pd.DataFrame", name: str) -> str:
    """What is to be said of rows: those of one reason in one line."""
    lines = []
    for (status, reason), part in table[table["reason"] != ""].groupby(["status", "reason"], sort=False):
        says = reason if status in ("ok", "not run") else f"{status}, {reason}"
        lines.append(f"{', '.join(part[name].unique())}: {says}")
    return "\n".join(lines) + "\n"


def exchange_table(table: "pd.DataFrame") -> Table:
    shown = _table(["exchange", "ranks", "b", "dim", "steps", "bytes sent", "counted", "time alone", "whole loss"])
    for row in table.to_dict("records"):
        shown.add_row(
            row["exchange"],
            str(row["ranks"]),
            format_batch_size(row["local_batch"]),
            str(row["dim"]),
            str(row["steps"]),
            _bytes(row["bytes_sent"]),
            _bytes(row.get("bytes_counted_exchange")),
            _seconds(row.get("exchange_seconds")),
            _seconds(row.get("loss_seconds")),
        )
    return shown


def _table(columns: list[str], title: str | None = None) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="left" if column in NAMES else "right", no_wrap=column in NAMES)
    return shown


def _seconds(value: object) -> str:
    if not is_number(value):
        return ""
    return f"{1e3 * value:,.3g} ms" if value < 1 else f"{value:,.3g} s"


def _bytes(value: object) -> str:
    return format_bytes(value) if is_number(value) else ""
