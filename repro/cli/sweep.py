"""repro sweep: a sweep's runs, those that are missing."""

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from repro.cli.jobs import as_the_cluster_allows, check_jobs, chosen, job_options, plan, profile_of, start
from repro.cli.options import CommandWithSeveral, runs_option
from repro.cli.specs import overrides, spec_options

if TYPE_CHECKING:
    from repro.config.spec import RunSpec
    from repro.launch import Cell


@click.command(cls=CommandWithSeveral)
@click.argument("name", required=False)
@spec_options
@runs_option
@job_options
@click.option("--retry", is_flag=True, help="Run failed runs again.")
@click.option("--dry-run", is_flag=True, help="Only say what would run, and what it would need.")
def sweep(name: str | None, dry_run: bool, **options: Any) -> None:
    """Expand sweep NAME (or a YAML file) into runs, and run those that are missing; or measure, where it says so.

    Several values may follow an option; repeating it and commas work too. Without NAME: the sweeps there are.
    """
    from repro.config.sweep import expand, load_sweep

    if name is None:
        _print_sweeps()
        return
    loaded = load_sweep(name)
    if loaded.bench(options["scale"]):
        from repro.cli.bench_sweep import measure

        measure(loaded, options, dry_run)
        return
    values = chosen(options | {"sweep": str(loaded.file.resolve())})
    specs = expand(loaded, options["scale"], overrides(options))
    if options["data"] and not options["evals"]:
        click.echo("No --eval given with --data: runs are trained and timed, but not evaluated.", err=True)
    if dry_run:
        _print_plan(specs, values)
        return
    cells = _prepare(specs, loaded.name, options, values)
    sys.exit(start(cells, values, options["retry"], options["detach"], options["runs"]))


def _print_sweeps() -> None:
    from rich.console import Console

    from repro.cli.sweeps import sweeps_notes, sweeps_table
    from repro.estimate.listing import list_costs

    sweeps = list_costs()
    Console().print(sweeps_table(sweeps))
    click.echo()
    for note in sweeps_notes(sweeps):
        click.echo(note)
    click.echo("\nNext: repro sweep NAME")


def _prepare(specs: "list[RunSpec]", sweep: str, options: dict[str, Any], values: dict[str, Any]) -> "list[Cell]":
    """Everything is checked, and the data are made, before the first run starts."""
    from repro.cli.progress import lines_on_stderr
    from repro.config.hardware import cores
    from repro.launch import Cell, labelled
    from repro.launch.complete import check_evals, check_runs_folder, complete, prepare_data

    specs = complete(specs)
    check_evals(specs)
    check_runs_folder(options["runs"], sweep)
    cells = labelled([Cell.of(spec, options["runs"], sweep) for spec in specs])
    check_jobs(specs, values)
    processes = values["jobs"] or cores()
    for unusable in prepare_data(specs, processes, lines_on_stderr("preparing the data")):
        click.echo(f"cannot be used: {unusable}", err=True)
    return cells


def _print_plan(specs: "list[RunSpec]", values: dict[str, Any]) -> None:
    from rich.console import Console

    from repro.cli.tables import jobs_notes, jobs_table, plan_notes, plan_table
    from repro.launch.scheduler import SchedulerError

    if values["executor"] == "slurm":
        profile = profile_of(values)
        with contextlib.suppress(SchedulerError):  # away from the cluster a plan follows the profile alone
            profile = as_the_cluster_allows(profile)
        groups = plan(specs, values, profile)
        shown, notes = jobs_table(groups, profile), [*plan_notes(specs), *jobs_notes(groups, profile)]
    else:
        check_jobs(specs, values)
        shown, notes = plan_table(specs), plan_notes(specs)
    Console().print(shown)
    click.echo()
    for note in notes:
        click.echo(note)
    click.echo(f"{len(specs)} runs; nothing was started (--dry-run).")
