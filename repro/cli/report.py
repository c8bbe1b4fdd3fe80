"""repro report: a sweep's runs → reports/<sweep>/ with the page, figures and tables."""

import shlex
from pathlib import Path

import click

from repro.cli.options import CommandWithSeveral, Several, runs_option


@click.command(cls=CommandWithSeveral)
@click.argument("sweep", required=False)
@runs_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: reports/<sweep>]")
@click.option("--metric", "metrics", cls=Several, metavar="COLUMN", help="Metrics to draw.  [default: each data set's]")
def report(sweep: str | None, runs: Path, out: Path | None, metrics: tuple[str, ...]) -> None:
    """Draw SWEEP (default: the most recent) beside the paper's curves: figures, tables and one page.

    A metric is a column of the results table, such as wds_shapes_objects/acc1.
    """
    from repro import results

    name = results.choose_sweep(runs, sweep)
    table = results.load(runs, name)
    from repro.report import page

    command = ["repro", "report", name]
    command += ["--runs", str(runs)] if runs != Path("runs") else []
    command += ["--out", str(out)] if out else []
    command += ["--metric", *metrics] if metrics else []
    file = page.write(table, results.published(), out or Path("reports") / name, name, metrics, shlex.join(command))
    done = int((table["status"] == "finished").sum())
    click.echo(f"{done} of {len(table)} runs finished; figures and tables in {file.parent}")
    click.echo(f"Open {file}")
