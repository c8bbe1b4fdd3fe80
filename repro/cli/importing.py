"""repro import: results from elsewhere → results/imported/<name>.csv."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import CommandWithSeveral, Several

if TYPE_CHECKING:
    import pandas as pd


@click.command("import", cls=CommandWithSeveral)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "form", help="clip-benchmark, open_clip, big_vision or csv.  [default: told from each file]")
@click.option("--name", help="Whose results these are: the column origin.  [default: the first file's name]")
@click.option("--map", "mapping", cls=Several, paths=True, metavar="OURS=THEIRS", help="Columns of a CSV.")
@click.option("--set", "values", cls=Several, paths=True, metavar="KEY=VALUE", help="What the files do not say.")
@click.option("--units", metavar="percent|share", help="Of all metrics.  [default: told from each column's values]")
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: results/imported/<name>.csv]")
def import_(
    files: tuple[Path, ...],
    form: str | None,
    name: str | None,
    mapping: tuple[str, ...],
    values: tuple[str, ...],
    units: str | None,
    out: Path | None,
) -> None:
    """Make FILES of other projects rows of a results table, to draw and compare like a sweep's.

    FILES are clip-benchmark's JSON or CSV, log folders of open_clip, big_vision's metrics, or CSV files; a folder
    stands for what is in it. Loss and batch size have to be given where a file does not say them:

    \b
      repro import evals/*.json --name laion --set loss=softmax batch_size=32k
      repro import theirs.csv --map imagenet1k/acc1=top1 --set loss=sigmoid

    Typed again, it replaces its rows. A file that cannot be read is named, the others are imported, and the exit code
    is 1; it is 2, and nothing is written, where none can.
    """
    from repro.config.reading import split_setting
    from repro.results import importers as imported

    read = imported.read(
        files,
        form,
        name,
        dict(split_setting(text, "--map", "imagenet1k/acc1=top1") for text in mapping),
        dict(split_setting(text, "--set", "batch_size=32k") for text in values),
        units,
    )
    file = out or Path("results") / "imported" / f"{read.name}.csv"
    counts = imported.write(read, file)
    _print(read.table)
    for note in read.notes:
        click.echo(f"note: {note}")
    for problem in read.problems:
        click.echo(f"not imported: {problem}", err=True)
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    click.echo(f"\n{file}: {told}")
    sys.exit(1 if read.problems else 0)


def _print(table: "pd.DataFrame") -> None:
    """What tells the rows apart, and their accuracies, as many as fit."""
    from rich.console import Console
    from rich.table import Table

    from repro.cli.progress import is_number, main_metrics, short_name
    from repro.cli.status import MOST_LINES
    from repro.config.units import format_batch_size, format_examples

    metrics = main_metrics([column for column in table.columns if "/" in column])[:3]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "loss", "batch size", "examples", "status", *map(short_name, metrics)):
        words = column in ("run", "loss", "status")
        shown.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=column == "loss")
    for row in table[:MOST_LINES].to_dict("records"):
        examples = format_examples(row["examples_seen"]) if is_number(row["examples_seen"]) else ""
        accuracies = [f"{row[metric]:.1%}" if is_number(row[metric]) else "" for metric in metrics]
        run, size = row["run_id"].removeprefix(f"{row['origin']}-"), format_batch_size(int(row["batch_size"]))
        shown.add_row(run, row["loss"], size, examples, row["status"], *accuracies)
    Console().print(shown)
    if len(table) > MOST_LINES:
        click.echo(f"the first {MOST_LINES} of {len(table):,} rows are shown")
