"""repro plan: what a sweep's runs take, before any of them starts."""

import csv
from pathlib import Path
from typing import Any

import click

from repro.cli.options import CLUSTER_OPTIONS, HERE_OPTIONS, SPEC_OPTIONS, CommandWithSeveral, overrides, with_options


@click.command(cls=CommandWithSeveral)
@click.argument("name")
@with_options(*SPEC_OPTIONS, *CLUSTER_OPTIONS, *HERE_OPTIONS)
@click.option("--csv", "--out", "out", type=click.Path(path_type=Path), metavar="FILE", help="Every run, a row each.")
def plan(name: str, out: Path | None, **options: Any) -> None:
    """Predict what the runs of sweep NAME take: FLOPs, memory and the micro-batch that fits, messages, time, disk.

    At laptop scale for this machine, at the others for a cluster. Nothing is started, read or written (--csv aside).
    """
    from rich.console import Console

    from repro.cli.predictions import notes, predictions_table
    from repro.config.sweep import load_sweep
    from repro.launch.prepare import outline, usual_options

    how = {key: options[key] for key in ("cluster", "job", "local_batch", "ranks", "jobs")}
    loaded, scale = load_sweep(name), options["scale"]
    loaded.bench(scale)  # names the scales that there are
    predictions = outline(loaded, scale, overrides(options), Path("runs"), usual_options(scale, **how)).predictions()
    console = Console()
    console.print(predictions_table(predictions, console.width))
    click.echo()
    for note in notes(predictions):
        click.echo(note)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = [prediction.row() for prediction in predictions]
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        click.echo(f"\nEvery run in {out}")
