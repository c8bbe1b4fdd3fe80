"""repro bench gpu: all that only a GPU can tell, in minutes; on a CPU a rehearsal of it."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import CommandWithSeveral, Number, Several
from repro.config.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

DEFAULT_OUT = {"cuda": Path("results/bench/gpu"), "cpu": Path("build/bench-gpu")}
"""A rehearsal's figures are no results, and must not take the place of any."""
DEFAULT_MINUTES = {"cuda": 6.0, "cpu": 15.0}
"""At most: a rehearsal takes two on two idle cores, and may take longer on busy ones."""
SECTIONS = "machine, correct, loss, resume, step, feed, curve"


@click.command(cls=CommandWithSeveral, short_help="All that only a GPU can tell, in minutes: docs/gpu.md.")
@click.option("--minutes", type=Number(0, min_open=True), help="For all.  [default: 6; a rehearsal: 15]")
@click.option("--only", cls=Several, default=[], metavar="SECTION", help=f"Of {SECTIONS}.  [default: all]")
@click.option(
    "--device",
    type=click.Choice(["cuda", "cpu"]),
    default="cuda",
    show_default=True,
    help="cpu: a rehearsal at toy sizes.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder.  [default: results/bench/gpu; a rehearsal: build/bench-gpu]",
)
def gpu(minutes: float | None, only: tuple[str, ...], device: str, out: Path | None) -> None:
    """Kernels and losses against float64, the loss beside peers', resuming, steps, feeding, a curve; on one GPU.

    Each section has a process and a share of the minutes of its own; what one leaves the next ones get. Rows are in
    OUT/SECTION.csv as soon as they are measured, and all of them in OUT/summary.csv. Exit code 1 if a section failed.
    """
    from rich.console import Console

    from repro.bench.gpu import driver

    sections = driver.select(only)
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError("--device cuda: torch finds no GPU here; --device cpu rehearses all sections at toy sizes")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the section ends, too
    minutes, out = minutes or DEFAULT_MINUTES[device], out or DEFAULT_OUT[device]
    table = driver.run(sections, minutes, out, device, lambda line: click.echo(line, err=True))
    table = table[table["section"].isin([section.name for section in sections])]
    Console().print(_shown(table), markup=False, highlight=False)
    click.echo(f"Recorded in {out / driver.SUMMARY}")
    sys.exit(1 if driver.failed(table, sections) else 0)


def _shown(table: "pd.DataFrame") -> "Table":
    """How each section ended, and under it what was predicted, limited or not measured."""
    from rich.table import Table

    shown = Table("", "measured", "expected", "status")
    for row in table.to_dict("records"):
        if row["quantity"] == "section":
            shown.add_section()
        expected = ", ".join(part for part in (row["predicted"], row["limit"]) if part)
        if not expected and row["status"] == "ok":
            continue
        named = (row["section"],) if row["quantity"] == "section" else (row["case"], row["quantity"])
        reason = f": {row['reason']}" if row["status"] != "ok" and row["reason"] else ""
        measured = f"{_number(row['measured'])} {row['unit']}"
        shown.add_row(": ".join(filter(None, named)), measured, expected, (row["verdict"] or row["status"]) + reason)
    return shown


def _number(measured: Any) -> str:
    """Four digits of a number; text as it is."""
    try:
        return f"{float(measured):.4g}"
    except ValueError:
        return str(measured)
