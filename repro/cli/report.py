"""repro report: runs or tables → reports/<name>/ with the page, figures and tables."""

import shlex
from pathlib import Path

import click

from repro.cli.options import CommandWithSeveral, Several, runs_option


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
