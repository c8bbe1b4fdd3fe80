"""repro sweep: a sweep's runs, those that are missing; without a name, the sweeps there are."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import JOB_OPTIONS, SPEC_OPTIONS, CommandWithSeveral, overrides, runs_option, with_options
from repro.cli.start import start

if TYPE_CHECKING:
    from repro.launch import Launch


@click.command(cls=CommandWithSeveral)
@click.argument("name", required=False)
@with_options(*SPEC_OPTIONS)
@runs_option
@with_options(*JOB_OPTIONS)
@click.option("--retry", is_flag=True, help="Run failed runs again.")
@click.option("--dry-run", is_flag=True, help="Only say what would run, and what it would need.")
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
    from repro.launch.prepare import Options, outline, prepare

    loaded = load_sweep(name)
    if loaded.bench(options["scale"]):
        from repro.cli.bench_tables import measure

        measure(loaded, options, dry_run)
        return
    asked = loaded, options["scale"], overrides(options), runs
    how = Options.chosen(options | {"sweep": str(loaded.file.resolve())})
    if options["data"] and not options["evals"]:
        click.echo("No --eval given with --data: runs are trained and timed, but not evaluated.", err=True)
    if dry_run:
        _print_outline(outline(*asked, how))
        return
    launch = prepare(*asked, how)
    for unusable in prepare_data(launch.specs, how.jobs or cores(), lines_on_stderr("preparing the data")):
        click.echo(f"cannot be used: {unusable}", err=True)
    sys.exit(start(launch, options["retry"], options["detach"], runs))


def _print_outline(launch: "Launch") -> None:
    from rich.console import Console

    from repro.cli.predictions import arrays_notes, arrays_table, notes, predictions_table
    from repro.launch.scheduler import SchedulerError, largest_array

    predictions = launch.predictions()
    if launch.profile is None:
        shown, sentences = predictions_table(predictions), list(notes(predictions))
    else:
        largest = None
        with contextlib.suppress(SchedulerError):  # away from the cluster the profile alone decides
            largest = largest_array()
        arrays = launch.arrays(launch.specs, largest)
        shown, sentences = (each(arrays, predictions, launch.profile) for each in (arrays_table, arrays_notes))
    Console().print(shown)
    click.echo()
    for sentence in sentences:
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
