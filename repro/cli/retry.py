"""repro retry: run failed runs again, where and how they were run before."""

import sys
from pathlib import Path
from typing import Any

import click

from repro.cli.options import JOB_OPTIONS, CommandWithSeveral, runs_option, with_options
from repro.cli.start import start


@click.command(cls=CommandWithSeveral)
@click.argument("targets", metavar="[SWEEP|RUN]...", nargs=-1)
@runs_option
@with_options(*JOB_OPTIONS)
def retry(targets: tuple[str, ...], runs: Path, detach: bool, **options: Any) -> None:
    """Run the failed runs of SWEEP (default: the most recent), or the named runs, again; and those that never ended.

    On the executor and with the settings of their last launch, but for what is given here. Each goes on from its last
    good checkpoint.
    """
    from repro.cli.select import select
    from repro.config.errors import InputError
    from repro.launch.prepare import Options, prepare_again
    from repro.launch.records import launches

    selected = select(targets, runs)
    if len(selected) > 1:
        raise InputError(f"runs of several sweeps ({', '.join(selected)}): retry one sweep at a time")
    (cells,) = selected.values()
    known = launches(cells[0].directory.path.parent)
    launch = prepare_again(cells, Options.chosen(options, known[-1].settings if known else {}))
    sys.exit(start(launch, True, detach, runs))
