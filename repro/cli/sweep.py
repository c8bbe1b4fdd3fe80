"""repro sweep: a sweep's runs, those that are missing; alone, the sweeps there are. repro retry and repro cancel."""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import (
    JOB_OPTIONS,
    SPEC_OPTIONS,
    CommandWithSeveral,
    overrides,
    runs_option,
    select,
    with_options,
)

if TYPE_CHECKING:
    from repro.launch import Launch


@click.command(cls=CommandWithSeveral)
@click.argument("name", required=False)
@with_options(*SPEC_OPTIONS)
@runs_option
@with_options(*JOB_OPTIONS)
@click.option("--retry", is_flag=True, help="Run failed runs again.")
@click.option("--dry-run", is_flag=True, help="Check all that a launch checks; say what would run, and what it needs.")
def sweep(name: str | None, runs: Path, dry_run: bool, **options: Any) -> None:
    """Expand sweep NAME (or a YAML file) into runs, and run those that are missing; or measure, where it says so.

    Several values may follow an option; repeating it and commas work too. Without NAME: the sweeps there are.
    """
    if name is None:
        _print_sweeps()
        return
    from repro.cli.progress import lines_on_stderr
    from repro.config.hardware import cores
    from repro.config.sweep import load_sweep
    from repro.launch.complete import prepare_data
    from repro.launch.prepare import Options, prepare

    loaded = load_sweep(name)
    if loaded.bench(options["scale"]):
        from repro.cli.bench_tables import measure

        measure(loaded, options, dry_run)
        return
    changes = overrides(options)
    asked = loaded, options["scale"], changes, runs
    how = Options.chosen(options | {"sweep": str(loaded.file.resolve())})
    if changes.values.get("evals") == ():
        click.echo("No --eval given with --data: runs are trained and timed, but not evaluated.", err=True)
    if dry_run:
        _print_outline(prepare(*asked, how, dry=True))
        return
    launch = prepare(*asked, how)
    for unusable in prepare_data(launch.specs, how.jobs or cores(), lines_on_stderr("preparing the data")):
        click.echo(f"cannot be used: {unusable}", err=True)
    sys.exit(start(launch, options["retry"], options["detach"], runs))


def _print_outline(launch: "Launch") -> None:
    from rich.console import Console

    from repro.cli.predictions import arrays_notes, arrays_table, notes, predictions_table
    from repro.launch.complete import evaluations_notes
    from repro.launch.scheduler import SchedulerError, largest_array

    predictions = launch.predictions()
    if launch.profile is None:
        shown, sentences = predictions_table(predictions, Console().width), list(notes(predictions))
    else:
        largest = None
        with contextlib.suppress(SchedulerError):  # away from the cluster the profile alone decides
            largest = largest_array()
        arrays = launch.arrays(launch.specs, largest)
        shown, sentences = (each(arrays, predictions, launch.profile) for each in (arrays_table, arrays_notes))
    Console().print(shown)
    click.echo()
    for sentence in [*sentences, *evaluations_notes(launch.specs)]:
        click.echo(sentence)
    click.echo(f"{len(launch.cells)} runs; nothing was started (--dry-run).")


def _print_sweeps() -> None:
    from rich.console import Console
    from rich.table import Table

    from repro.config.spec import SCALES
    from repro.config.sweep import sweep_names
    from repro.launch.prepare import CLUSTER

    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))  # fits 100 columns
    for column in ("sweep", "what it shows", "reproduces"):
        shown.add_column(f"\n{column}", overflow="fold", no_wrap=column == "sweep")
    for scale in SCALES:
        shown.add_column(f"{scale}\nruns", justify="right", no_wrap=True)
        shown.add_column("core-\nhours" if scale == "laptop" else "GPU-\nhours", justify="right", no_wrap=True)
    problems: list[str] = []
    for name in sweep_names():
        shown.add_row(*_sweep_cells(name, problems))
    Console().print(shown)
    click.echo()
    for note in (
        f"hours: at laptop scale as our machine was measured, at the others as the profile {CLUSTER} assumes; "
        "repro plan NAME --scale SCALE says more",
        *problems,
    ):
        click.echo(note)
    click.echo("\nNext: repro sweep NAME")


def _sweep_cells(name: str, problems: list[str]) -> Iterator[str]:
    """A sweep's title, what it reproduces, and at each scale its runs and their hours.

    What is wrong with one sweep, or keeps it from having hours, becomes a line of `problems` and hides no other.
    """
    from repro.config.errors import InputError
    from repro.config.spec import SCALES
    from repro.config.sweep import load_sweep

    yield name
    try:
        loaded = load_sweep(name)
    except InputError as error:
        problems.append(f"{name}: {error}")
        yield from ("", "", *["–"] * 2 * len(SCALES))
        return
    yield from (loaded.title, loaded.reproduces)
    for scale in SCALES:
        if scale not in loaded.scales:
            yield from ("–", "–")
        elif loaded.bench(scale):
            yield from ("bench", "–")
        else:
            yield from _runs_and_hours(loaded, scale, problems)


def _runs_and_hours(loaded: Any, scale: str, problems: list[str]) -> tuple[str, str]:
    from repro.cli.predictions import written_hours
    from repro.config.errors import InputError
    from repro.config.sweep import Overrides
    from repro.launch.prepare import outline, usual_options
    from repro.models.sizes import known_size

    runs = "?"
    try:
        launch = outline(loaded, scale, Overrides(), Path("runs"), usual_options(scale))
        runs = f"{len(launch.cells):,}"
        if unknown := sorted(model for model in {spec.model for spec in launch.specs} if known_size(model) is None):
            raise InputError(f"model {unknown[0]} is not measured yet; repro plan {loaded.name} does so")
        hours = [prediction.processor_hours for prediction in launch.predictions()]
        return runs, "?" if None in hours else written_hours(sum(hours))
    except InputError as error:
        problems.append(f"{loaded.name} at scale {scale}: {error}")
        return runs, "?"


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


@click.command(cls=CommandWithSeveral)
@click.argument("targets", metavar="[SWEEP|RUN]...", nargs=-1)
@runs_option
@with_options(*JOB_OPTIONS)
def retry(targets: tuple[str, ...], runs: Path, detach: bool, **options: Any) -> None:
    """Run the failed runs of SWEEP (default: the most recent), or the named runs, again; and those that never ended.

    On the executor and with the settings of their last launch, but for what is given here. Each goes on from its last
    good checkpoint.
    """
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


@click.command()
@click.argument("targets", metavar="[SWEEP|RUN]...", nargs=-1)
@runs_option
def cancel(targets: tuple[str, ...], runs: Path) -> None:
    """Stop the queued and running runs of SWEEP (default: the most recent), or the named runs.

    Running ones leave a checkpoint. The sweep typed again goes on with them.
    """
    from repro.launch import cancel as cancel_cells

    for sweep, cells in select(targets, runs).items():
        stopped = cancel_cells(cells)
        others = "; the others had ended" if len(stopped) < len(cells) else ""
        click.echo(f"{sweep}: {len(stopped)} of {len(cells)} runs cancelled{others}")
