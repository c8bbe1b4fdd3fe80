"""From results: repro collect (run directories → results/<sweep>.csv), repro report (reports/<name>/), repro publish
(results/ as a data set, and to the hub), repro import (others' results → results/imported/<name>.csv).
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import CommandWithSeveral, Several, runs_option

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("sweep", required=False)
@runs_option
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: results/<sweep>.csv]")
def collect(sweep: str | None, runs: Path, out: Path | None) -> None:
    """Write the results table of SWEEP (default: the most recent), one row a run.

    Beside it <sweep>-evaluations.csv, where runs were evaluated on the way, and <sweep>-curves.csv, where the sweep
    names columns of the logs that belong to its result.
    """
    from rich.console import Console

    from repro import results
    from repro.cli.progress import results_table
    from repro.cli.status import MOST_LINES

    name = results.choose_sweep(runs, sweep)
    tables = results.tables_of(runs, name)
    table = tables.pop("")
    file = out or Path("results") / f"{name}.csv"
    results.write_csv(table, file)
    Console().print(results_table(table[:MOST_LINES]))
    for row in table[table["status"] == "corrupt"].itertuples():
        click.echo(f"corrupt: {row.reason}", err=True)
    shown = f"; the first {MOST_LINES} are shown" if len(table) > MOST_LINES else ""
    click.echo(f"\n{len(table):,} runs in {file}{shown}")
    for kind, more in tables.items():
        beside = file.with_name(f"{file.stem}{kind}.csv")
        results.write_csv(more, beside)
        click.echo(f"{len(more):,} rows of {kind.removeprefix('-')} in {beside}")


@click.command(cls=CommandWithSeveral)
@click.argument("names", nargs=-1, metavar="[SWEEP|TABLE.csv]…")
@runs_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: below reports/]")
@click.option("--metric", "metrics", cls=Several, metavar="COLUMN", help="Metrics to draw.  [default: each data set's]")
@click.option(
    "--results",
    "tables",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder of tables: those imported and of benchmarks join.",
)
def report(names: tuple[str, ...], runs: Path, out: Path | None, metrics: tuple[str, ...], tables: Path) -> None:
    """Set runs beside the paper: claims and verdicts, its figures and tables redrawn, where growing stops paying, cost.

    SWEEP is one that has runs (default: every one), TABLE.csv what repro collect or repro import wrote. One sweep's
    report goes to reports/<sweep>/, that of several to reports/<scale>/. A metric is a column of the results table,
    such as wds_shapes_objects/acc1.
    """
    from repro import results
    from repro.report import page, words
    from repro.report.inputs import name_and_title, read

    inputs = read(names, runs, tables, metrics)
    command = ["repro", "report", *names]
    command += ["--runs", str(runs)] if runs != Path("runs") else []
    command += ["--out", str(out)] if out else []
    command += ["--metric", *metrics] if metrics else []
    command += ["--results", str(tables)] if tables != Path("results") else []
    name, title = name_and_title(inputs, names)
    shown = shlex.join(map(results.without_place, command))
    file = page.write(inputs, out or Path("reports") / name, title, shown)
    done = int((inputs.ours["status"] == "finished").sum())
    counts = [f"{done} of {len(inputs.ours)} runs finished"] if len(inputs.ours) else []
    counts += [words.count(len(inputs.imported), "imported row")] if len(inputs.imported) else []
    click.echo(f"{', and '.join(counts) or 'no runs'}; figures and tables in {file.parent}")
    click.echo(f"Open {file}")


@click.command()
@click.argument("sweeps", metavar="[SWEEP]...", nargs=-1)
@runs_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder to write."
)
@click.option(
    "--repo", metavar="USER/NAME", help="Push the folder to this data set repository of the Hugging Face hub."
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def publish(sweeps: tuple[str, ...], runs: Path, out: Path, repo: str | None, dry_run: bool) -> None:
    """Write all tables, in CSV, Markdown and LaTeX, with a data card and citations; say what changed.

    Tables of SWEEP (default: of every sweep that has runs) are rebuilt; those that are in the folder already and
    have no runs here stay, and are described too. Nothing else in the folder is touched. Typed
    again, it changes nothing.

    --repo needs a token that may write, in HF_TOKEN or from `hf auth login`; $HF_ENDPOINT names another hub.
    """
    from repro import publish as publishing

    if repo:
        publishing.check_name(repo)
    publication = publishing.prepare(out, runs, sweeps)
    for line in [*publication.sources, *publication.changes()]:
        click.echo(line)
    for note in publication.notes:
        click.echo(f"note: {note}", err=True)
    count, changed = len(publication.files), len(publication.changed)
    unchanged = f"{count - changed} of {count} files unchanged" if changed else "nothing has changed"
    if dry_run:
        pushed = f", nothing pushed to {repo}" if repo else ""
        click.echo(f"{out}: {unchanged}; nothing was written{pushed} (--dry-run)")
        return
    publishing.write(publication)
    click.echo(f"{out}: {unchanged}")
    if repo:
        click.echo(f"pushed: {publishing.push(repo, out, sorted(publication.files))}")


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
