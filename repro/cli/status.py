"""repro status: every run of a sweep, from its run directories."""

from pathlib import Path

import click

from repro.cli.options import runs_option


@click.command()
@click.argument("sweep", required=False)
@runs_option
def status(sweep: str | None, runs: Path) -> None:
    """Show the runs of SWEEP (default: the most recent): state, progress, speed, loss, time left, reason."""
    from rich.console import Console

    from repro import results
    from repro.cli.progress import glance, table
    from repro.launch import Cell
    from repro.rundir import CorruptRun, run_directories

    name = results.choose_sweep(runs, sweep)
    glances, corrupt = [], []
    for directory in run_directories(runs, name):
        try:
            glances.append(glance(Cell(directory.read_spec(), directory)))
        except CorruptRun as error:
            corrupt.append(str(error))
    Console().print(table(glances))
    for shown in glances:
        if shown.reason:
            click.echo(f"{shown.label}: {shown.state}: {shown.reason}")
    for message in corrupt:
        click.echo(f"corrupt: {message}")
    states = [shown.state for shown in glances] + ["corrupt"] * len(corrupt)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    click.echo(f"\n{name}: {counts}")
