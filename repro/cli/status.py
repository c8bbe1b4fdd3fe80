"""repro status: every run of a sweep, from its directories and one question to the scheduler. repro logs: one run's."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import Number, one_run, runs_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from repro.launch import Cell

MOST_LINES = 40
"""Runs shown of a longer sweep: those that run, failed or need attention come first; --all shows every run."""
OVER = ("finished", "pending", "queued")
POLL_SECONDS = 0.5


@click.command()
@click.argument("sweep", required=False)
@runs_option
@click.option("--watch", is_flag=True, help="Refresh until nothing runs or waits any more.")
@click.option("--every", type=Number(1), default=10.0, show_default=True, help="Seconds between refreshes.")
@click.option("--all", "every_run", is_flag=True, help=f"All runs, where there are more than {MOST_LINES}.")
def status(sweep: str | None, runs: Path, watch: bool, every: float, every_run: bool) -> None:
    """Show the runs of SWEEP (default: the most recent): state, progress, speed, loss, time left, where, reason."""
    from rich.console import Console
    from rich.live import Live

    from repro import results

    name = results.choose_sweep(runs, sweep)
    console = Console()
    shown, under_way = look(runs, name, every_run)
    if not watch or not console.is_terminal:
        console.print(shown)
        while watch and under_way:
            time.sleep(every)
            shown, under_way = look(runs, name, every_run)
            console.print(shown)
        return
    with Live(shown, console=console, auto_refresh=False) as live:
        while under_way:
            time.sleep(every)
            shown, under_way = look(runs, name, every_run)
            live.update(shown, refresh=True)


def look(runs: Path, sweep: str, every_run: bool) -> "tuple[RenderableType, bool]":
    """Return what to show, and whether anything is still queued or running."""
    from rich.console import Group

    from repro.cli.progress import summarise, table
    from repro.launch.records import unreadable_launches

    cells, corrupt = read_cells(runs, sweep)
    found, warning = _states(cells)
    summaries = [summarise(cell, state, place) for cell, state, place in found]
    states = [one.state for one in summaries] + ["corrupt"] * len(corrupt)
    chosen, left_out = summaries, 0
    if len(summaries) > MOST_LINES and not every_run:
        chosen = sorted(summaries, key=lambda one: one.state in OVER)[:MOST_LINES]
        left_out = len(summaries) - len(chosen)
    lines = [f"{one.label}: {one.state}: {one.reason}" for one in chosen if one.reason]
    lines += [f"corrupt: {message}" for message in corrupt]
    lines += [f"… and {left_out} more; --all shows them"] if left_out else []
    lines += [warning] if warning else []
    lines += unreadable_launches(runs / sweep)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines += ["", f"{sweep}: {counts}"]
    under_way = any(one.state in ("queued", "running") for one in summaries)
    return Group(table(chosen), *(_plain(line) for line in lines)), under_way


def read_cells(runs: Path, sweep: str) -> "tuple[list[Cell], list[str]]":
    """The runs of a sweep, and what is wrong with those that cannot be read."""
    from repro.config.files import CorruptRun
    from repro.launch import Cell, labelled
    from repro.runs.directory import run_directories

    cells, corrupt = [], []
    for directory in run_directories(runs, sweep):
        try:
            cells.append(Cell(directory.read_spec(), directory))
        except CorruptRun as error:
            corrupt.append(str(error))
    return labelled(cells), corrupt


def _states(cells: "list[Cell]") -> tuple[list, str]:
    """States and places; where the scheduler does not answer, what the files say, and a warning."""
    from repro.launch import states
    from repro.launch.scheduler import SchedulerError

    try:
        return states(cells), ""
    except SchedulerError as error:
        return [(cell, cell.state(), None) for cell in cells], f"what is queued is not known: {error}"


def _plain(line: str) -> "RenderableType":
    from rich.text import Text

    return Text(line)


@click.command()
@click.argument("target", metavar="RUN")
@runs_option
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each file.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until the run ends.")
def logs(target: str, runs: Path, lines: int, follow: bool) -> None:
    """Show what RUN (its id, a part of it, or its directory) logged: training, its own output, its jobs' output."""
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
