"""Start what of a launch is missing, and say so on the terminal: what `repro sweep` and `repro retry` share."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from repro.launch import Launch


def start(launch: "Launch", retry: bool, detach: bool, runs: Path) -> int:
    """By the chosen executor; returns the command's exit code."""
    if launch.profile is not None:
        return _submit(launch, retry, runs)
    return _detach(launch, runs) if detach else _run_here(launch, retry, runs)


def _submit(launch: "Launch", retry: bool, runs: Path) -> int:
    from repro.launch import submit
    from repro.launch.scheduler import options_left_out

    if warning := launch.profile.too_short():
        _say(warning)
    if left_out := options_left_out():
        _say(f"not used: {', '.join(left_out)}; the cluster's profile and --job say what a job asks for")
    submitted = submit(launch, retry, _say)
    _say_what_is_left_alone(launch, sum(len(group.runs) for group in submitted))
    for group in submitted:
        click.echo(f"Submitted job {group.job_id} ({group.name}): {len(group.runs)} runs")
    click.echo(f"\nNext: repro status {launch.sweep}{_where(runs)} --watch")
    return 0


def _run_here(launch: "Launch", retry: bool, runs: Path) -> int:
    from rich.console import Console

    from repro.cli.progress import Progress, print_results, sentence, summarise
    from repro.launch import launch as run_cells
    from repro.launch import needs_a_job, states

    console, cells = Console(), launch.cells
    to_do = [cell for cell, state, _ in states(cells) if needs_a_job(state, retry)]
    _say_what_is_left_alone(launch, len(to_do))
    jobs = launch.side_by_side([cell.spec for cell in to_do])
    if to_do:
        click.echo(f"{len(to_do)} runs to do, {jobs} at a time; Ctrl-C stops, typed again goes on.")
    try:
        with Progress(cells, console) as progress:
            run_cells(cells, launch.settings, launch.options.executor, jobs, retry, progress.update, progress.say)
    except KeyboardInterrupt:
        left = sum(cell.state() != "finished" for cell in cells)
        click.echo(f"Stopped; {left} of {len(cells)} runs are not finished. Typed again, the command goes on.")
        return 130
    print_results(cells, console)
    unfinished = [cell for cell in cells if cell.state() != "finished"]
    for cell in unfinished:
        click.echo(sentence(summarise(cell)), err=True)
    click.echo(f"\nNext: repro report {launch.sweep}{_where(runs)}")
    return 1 if unfinished else 0


def _detach(launch: "Launch", runs: Path) -> int:
    """The same command again, in a session of its own, which outlives the terminal."""
    from repro.launch.records import FOLDER, new_token

    log = runs.resolve() / launch.sweep / FOLDER / f"{new_token()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "repro", *(argument for argument in sys.argv[1:] if argument != "--detach")]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603  this very command
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    click.echo(f"Detached as process {process.pid}; it writes to {log}")
    named = f"{launch.sweep}{_where(runs)}"
    click.echo(f"\nNext: repro status {named} --watch, or repro cancel {named}")
    return 0


def _where(runs: Path) -> str:
    """The option that the next command needs to find these runs."""
    return "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"


def _say_what_is_left_alone(launch: "Launch", started: int) -> None:
    if count := len(launch.cells) - started:
        states = {cell.state() for cell in launch.cells}
        failed = states - {"finished", "running", "queued", "pending", "interrupted", "cancelled", "corrupt"}
        again = "; --retry runs failed ones again" if failed else ""
        click.echo(f"{count} of {len(launch.cells)} runs are done or under way and not run again{again}.")


def _say(text: str) -> None:
    click.echo(text, err=True)
