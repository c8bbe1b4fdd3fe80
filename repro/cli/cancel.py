"""repro cancel: stop runs, wherever they are."""

from pathlib import Path

import click

from repro.cli.options import runs_option


@click.command()
@click.argument("targets", metavar="[SWEEP|RUN]...", nargs=-1)
@runs_option
def cancel(targets: tuple[str, ...], runs: Path) -> None:
    """Stop the queued and running runs of SWEEP (default: the most recent), or the named runs.

    Running ones leave a checkpoint. The sweep typed again goes on with them.
    """
    from repro.cli.select import select
    from repro.launch import cancel as cancel_cells

    for sweep, cells in select(targets, runs).items():
        stopped = cancel_cells(cells)
        others = "; the others had ended" if len(stopped) < len(cells) else ""
        click.echo(f"{sweep}: {len(stopped)} of {len(cells)} runs cancelled{others}")
