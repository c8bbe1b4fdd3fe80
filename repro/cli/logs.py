"""repro logs: what a run and its job printed, and its training log."""

import json
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
    from repro.runs.directory import UNFINISHED

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
    from repro.launch.records import launches
    from repro.runs import ownership

    candidates = [directory.log_file, directory.output_file, *sorted(directory.job.glob("error-*.txt"))]
    job_ids = {attempt.job_id for attempt in ownership.all_attempts(directory.attempts)}
    for launch in launches(directory.path.parent):
        job_ids |= {group.job_of(directory.path.name) for group in launch.groups if directory.path.name in group.runs}
        for job_id in sorted(job_ids - {""}):
            candidates += launch.logs(job_id)
    yield from (file for file in candidates if file.is_file() and file.stat().st_size)


def _show(file: Path, shown: dict[Path, int], lines: int) -> None:
    """Show what was added to a file since it was last shown; at first its last lines. A log cut back is shown again."""
    with file.open(errors="replace") as stream:
        first = file not in shown
        stream.seek(0 if first or file.stat().st_size < shown[file] else shown[file])
        added = stream.readlines()
        shown[file] = stream.tell()
    added = added[-lines:] if first and lines else [] if first else added
    if first:
        click.echo(f"==> {file}")
    for line in added:
        click.echo(_readable(line.rstrip("\n")) if file.suffix == ".jsonl" else line.rstrip("\n"))


def _readable(line: str) -> str:
    """One line of log.jsonl: 'step 12  768 examples  loss 6.372  learning rate 2.60e-03  1,022 examples/s'."""
    try:
        values = json.loads(line)
        parts = [f"step {values['step']:,}", f"{values['examples_seen']:,} examples"]
    except (ValueError, TypeError, KeyError):
        return line
    forms = {
        **{"loss": "loss {:.4f}", "learning_rate": "learning rate {:.2e}", "gradient_norm": "|gradient| {:.3g}"},
        **{"logit_scale": "t {:.2f}", "logit_bias": "b {:.2f}", "examples_per_second": "{:,.0f} examples/s"},
    }
    return "  ".join(
        [*parts, *(form.format(values[key]) for key, form in forms.items() if values.get(key) is not None)]
    )
