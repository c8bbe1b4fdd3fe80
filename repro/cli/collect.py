"""repro collect: run directories → results/<sweep>.csv."""

from pathlib import Path

import click

from repro.cli.options import runs_option


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
