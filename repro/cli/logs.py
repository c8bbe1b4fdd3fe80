"""repro logs: what a run and its job printed, and its training log."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from repro.cli.options import runs_option

POLL_SECONDS = 0.5


@click.command()
@click.argument("target", metavar="RUN")
@runs_option
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each file.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until the run ends.")
def logs(target: str, runs: Path, lines: int, follow: bool) -> None:
    """Show what RUN (its id, a part of it, or its directory) logged: training, its own output, its jobs' output."""
    from repro.cli.select import one_run
    from repro.rundir import UNFINISHED

    cell = one_run(target, runs)
    shown: dict[Path, int] = {}
    while True:
        over = cell.state() not in UNFINISHED  # looked at first, so that its last lines are not missed
        for file in files_of(cell.directory):
            _show(file, shown, lines)
        if not follow or over:
            break
        time.sleep(POLL_SECONDS)
    if not shown:
        click.echo(f"{cell.directory.path}: nothing logged yet ({cell.state()})", err=True)


def files_of(directory: Any) -> Iterator[Path]:
    """The run's own files, then those of its jobs: what went wrong before the run began is there."""
    from repro import attempts
    from repro.launch.records import launches

    candidates = [directory.log_file, directory.output_file, *sorted(directory.job.glob("error-*.txt"))]
    job_ids = {attempt.job_id for attempt in attempts.all_attempts(directory.attempts)}
    for launch in launches(directory.path.parent):
        for group in launch.groups:
            if group.job_id and directory.path.name in group.runs:
                place = f"_{group.runs.index(directory.path.name)}" if len(group.runs) > 1 else ""
                job_ids.add(f"{group.job_id}{place}")
        for job_id in sorted(job_ids - {""}):
            candidates += [launch.folder / f"{job_id}_0_log.{kind}" for kind in ("out", "err")]
    yield from (file for file in candidates if file.is_file() and file.stat().st_size)


def _show(file: Path, shown: dict[Path, int], lines: int) -> None:
    """What was added to a file since it was last shown; at first its last lines."""
    with file.open(errors="replace") as stream:
        if file not in shown:
            click.echo(f"==> {file}", err=True)
            text = "".join(stream.readlines()[-lines:] if lines else [])
        else:
            stream.seek(shown[file])
            text = stream.read()
        shown[file] = stream.tell()
    click.echo(text, nl=False)
