"""Tables of `repro bench` on the terminal, and sweeps that are a measurement: a command of `repro bench`."""

import contextlib
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from repro.cli.progress import is_number
from repro.config.errors import InputError, nearest
from repro.config.units import format_batch_size, format_bytes

if TYPE_CHECKING:
    import pandas as pd

    from repro.config.sweep import Sweep

Cell = Callable[[dict[str, Any]], str]
WORDS = ("implementation", "exchange", "loss")
"""Columns that stand on the left."""


def _as(form: Callable[[Any], str], column: str) -> Cell:
    """A number of a row as people read it; nothing where it was not measured."""
    return lambda row: form(row[column]) if is_number(row.get(column)) else ""


def _seconds(value: float) -> str:
    return f"{1e3 * value:,.3g} ms" if value < 1 else f"{value:,.3g} s"


def _size(column: str) -> Cell:
    """The largest batch size that fits."""
    more = {"at least": "≥ "}
    return lambda row: (more.get(row["status"], "") + format_batch_size(row[column])) if row["local_batch"] else "none"


def _error(row: dict[str, Any]) -> str:
    errors = [row[name] for name in row if name.startswith("error_") and is_number(row[name])]
    return f"{max(errors):.0e}" if errors else ""


LOSSES: dict[str, Cell] = {
    "implementation": lambda row: row["implementation"],
    "time": _as(_seconds, "seconds"),
    "least": _as(_seconds, "seconds_least"),
    "most": _as(_seconds, "seconds_most"),
    "ratio": _as("{:.2f}".format, "ratio"),
    "of torch.mm": _as("{:.0%}".format, "share_of_matmul_rate"),
    "memory": _as(format_bytes, "peak_memory_bytes"),
    "error": _error,
}
CAPACITY: dict[str, Cell] = {
    "loss": lambda row: row["loss"],
    "implementation": lambda row: row["implementation"],
    "ranks": _as(str, "ranks"),
    "memory": _as(format_bytes, "memory_limit_bytes"),
    "largest a rank": _size("local_batch"),
    "batch size": _size("batch_size"),
    "held": _as(format_bytes, "peak_memory_bytes"),
}
EXCHANGES: dict[str, Cell] = {
    "exchange": lambda row: row["exchange"],
    "ranks": _as(str, "ranks"),
    "b": _as(format_batch_size, "local_batch"),
    "dim": _as(str, "dim"),
    "steps": _as(str, "steps"),
    "bytes sent": _as(format_bytes, "bytes_sent"),
    "counted": _as(format_bytes, "bytes_counted_exchange"),
    "time alone": _as(_seconds, "exchange_seconds"),
    "whole loss": _as(_seconds, "loss_seconds"),
}


def show_losses(table: "pd.DataFrame") -> None:
    """One for each setting, an implementation a row."""
    by = ["loss", "ranks", "local_batch", "dim", "dtype", "device", "threads"]
    for (loss, ranks, local_batch, dim, dtype, device, threads), part in table.groupby(by, sort=False):
        place = f"{dtype} on {device}" + f", {threads} threads a rank" * (device == "cpu")
        show(part, LOSSES, f"{loss}: {ranks} × {format_batch_size(local_batch)}, dim {dim}, {place}")


def show(table: "pd.DataFrame", columns: Mapping[str, Cell], title: str | None = None) -> None:
    """Print what was measured, and under it what was not and why: rows of one reason in one line."""
    shown = Table(box=None, pad_edge=False, header_style="dim", title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="left" if column in WORDS else "right", no_wrap=column in WORDS)
    for row in table[table["status"] != "not run"].to_dict("records"):
        shown.add_row(*(cell(row) for cell in columns.values()))
    Console().print(shown, markup=False, highlight=False)
    name = "exchange" if "exchange" in table else "implementation"
    for (status, reason), part in table[table["reason"] != ""].groupby(["status", "reason"], sort=False):
        says = reason if status in ("ok", "not run") else f"{status}, {reason}"
        click.echo(f"{', '.join(part[name].unique())}: {says}")
    click.echo("")


def show_sections(table: "pd.DataFrame") -> None:
    """How each section of `repro bench gpu` ended, and under it what was predicted, limited or not measured."""
    shown = Table("", "measured", "expected", "status")
    for row in table.to_dict("records"):
        if row["quantity"] == "section":
            shown.add_section()
        expected = ", ".join(part for part in (row["predicted"], row["limit"]) if part)
        if not expected and row["status"] == "ok":
            continue
        named = (row["section"],) if row["quantity"] == "section" else (row["case"], row["quantity"])
        reason = f": {row['reason']}" if row["status"] != "ok" and row["reason"] else ""
        measured = row["measured"]
        with contextlib.suppress(ValueError):  # text stays as it is
            measured = f"{float(measured):.4g}"
        end = (row["verdict"] or row["status"]) + reason
        shown.add_row(": ".join(filter(None, named)), f"{measured} {row['unit']}", expected, end)
    Console().print(shown, markup=False, highlight=False)


NOT_FOR_THESE = ("batch_size", "seed", "setup", "examples", "data", "evals", "executor", "ranks", "detach")
"""Options of `repro sweep` that are about runs."""


def measure(sweep: "Sweep", options: dict[str, Any], dry_run: bool) -> None:
    """Measure, or say what would be measured. The table goes to results/<sweep>.csv. Raises InputError."""
    from repro.cli.bench import bench
    from repro.config.reading import split_setting

    name, given = sweep.bench(options["scale"])
    where = f"{sweep.file}: scales.{options['scale']}.bench"
    if name not in bench.commands:
        raise InputError(f"{where}: unknown command '{name}'{nearest(name, bench.commands)}")
    for option in NOT_FOR_THESE:
        if options[option]:
            raise InputError(
                f"--{option.replace('_', '-')} is for sweeps of runs, and '{sweep.name}' is a measurement; "
                f"change it with --loss and --set OPTION=VALUE, of the options of repro bench {name}"
            )
    given = given | {"loss": list(options["loss"])} if options["loss"] else given
    for text in options["settings"]:
        key, value = split_setting(text, "--set", "memory=2GB")
        given = given | {key.replace("_", "-"): value}
    arguments: list[str] = []
    for option, value in ({"out": f"results/{sweep.name}.csv"} | given).items():
        arguments += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    click.echo(f"{sweep.title}: repro bench {name} {shlex.join(arguments)}")
    if dry_run:
        click.echo("nothing was measured (--dry-run).")
        return
    try:
        bench.commands[name].main(arguments, prog_name=f"repro bench {name}", standalone_mode=False)
    except click.UsageError as error:
        raise InputError(f"{where}.{name}: {error.format_message()}") from None
