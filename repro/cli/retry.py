"""repro retry: run failed runs again, where and how they were run before."""

import sys
from pathlib import Path
from typing import Any

import click

from repro.cli.jobs import check_jobs, chosen, job_options, start
from repro.cli.options import CommandWithSeveral, runs_option


@click.command(cls=CommandWithSeveral)
@click.argument("targets", metavar="[SWEEP|RUN]...", nargs=-1)
@runs_option
@job_options
def retry(targets: tuple[str, ...], runs: Path, **options: Any) -> None:
    """Run the failed runs of SWEEP (default: the most recent), or the named runs, again; and those that never ended.

    On the executor and with the settings of their last launch, but for what is given here. Each goes on from its last
    good checkpoint.
    """
    from repro.cli.select import select
    from repro.config.errors import InputError
    from repro.launch.records import launches

    selected = select(targets, runs)
    if len(selected) > 1:
        raise InputError(f"runs of several sweeps ({', '.join(selected)}): retry one sweep at a time")
    (cells,) = selected.values()
    known = launches(cells[0].directory.path.parent)
    before = {"sweep": cells[0].sweep} | (known[-1].settings if known else {})
    values = chosen(options, before)
    check_jobs([cell.spec for cell in cells], values)
    sys.exit(start(cells, values, retry=True, detach=options["detach"], runs=runs))
