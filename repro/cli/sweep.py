"""repro sweep: a sweep's runs, those that are missing."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import CommandWithSeveral, Several, runs_option

if TYPE_CHECKING:
    from repro.launch import Cell
    from repro.spec import RunSpec

AXES = {"loss": "loss", "batch_size": "batch_size", "seed": "seed", "setup": "setup", "examples": "examples_seen"}
"""Options that are axes → fields of the spec."""


@click.command(cls=CommandWithSeveral)
@click.argument("name", required=False)
@click.option("--loss", cls=Several, help="sigmoid, softmax.")
@click.option("--batch-size", cls=Several, help="Global batch sizes: 512 1k 32k (k = 1,024).")
@click.option("--seed", cls=Several, help="Seeds: 0 1 2.")
@click.option("--setup", cls=Several, help="siglip, siglit, msiglip, finetune.")
@click.option("--examples", cls=Several, help="Training lengths: 65k 3B (k = 1,000).")
@click.option("--scale", default="laptop", show_default=True, help="laptop, gpu or paper.")
@click.option("--set", "settings", cls=Several, paths=True, metavar="KEY=VALUE", help="Any other field of the spec.")
@click.option("--data", metavar="PATTERN", help="Shards: 'cc12m/{00000..01242}.tar', pipe: or http(s): URLs.")
@click.option("--eval", "evals", cls=Several, paths=True, metavar="DIR|NAME", help="clip-benchmark folders or names.")
@runs_option
@click.option("--jobs", type=click.IntRange(1), help="Runs side by side.  [default: cores ÷ threads of a run]")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Data workers of each run.")
@click.option("--executor", default="local", show_default=True, help="local (processes) or inline (this process).")
@click.option("--retry", is_flag=True, help="Run failed runs again.")
@click.option("--dry-run", is_flag=True, help="Only say what would run, and what it would need.")
def sweep(name: str | None, dry_run: bool, **options: Any) -> None:
    """Expand sweep NAME (or a YAML file) into runs, and run those that are missing.

    Several values may follow an option; repeating it and commas work too. Without NAME: the sweeps there are.
    """
    from repro.sweep import expand, list_sweeps, load_sweep

    if name is None:
        for known in list_sweeps():
            click.echo(f"{known.name}: {known.title}; reproduces {known.reproduces}; at {', '.join(known.scales)}")
        click.echo("\nNext: repro sweep NAME")
        return
    loaded = load_sweep(name)
    specs = expand(loaded, options["scale"], _overrides(options))
    if dry_run:
        _print_plan(specs)
        return
    cells = _prepare(specs, loaded.name, options)
    sys.exit(0 if _launch(cells, options) else 1)


def _overrides(options: dict[str, Any]) -> Any:
    from repro.sweep import Overrides, parse_setting

    axes = {field: list(options[option]) for option, field in AXES.items() if options[option]}
    values = dict(parse_setting(text) for text in options["settings"])
    if options["data"]:
        values |= {"data": options["data"], "evals": ()}
        if not options["evals"]:
            click.echo("No --eval given with --data: runs are trained and timed, but not evaluated.", err=True)
    if options["evals"]:
        values["evals"] = options["evals"]
    return Overrides(axes, values)


def _prepare(specs: "list[RunSpec]", sweep_name: str, options: dict[str, Any]) -> "list[Cell]":
    """Everything is checked, and the data are made, before the first run starts."""
    from repro import check
    from repro.cli.progress import lines_on_stderr
    from repro.errors import InputError, nearest
    from repro.launch import EXECUTORS, Cell

    if options["executor"] not in EXECUTORS:
        raise InputError(f"unknown executor '{options['executor']}'{nearest(options['executor'], EXECUTORS)}")
    specs = check.complete(specs)
    check.check_evals(specs)
    check.check_runs_folder(options["runs"], sweep_name)
    check.prepare_data(specs, _processes(options), lines_on_stderr("preparing the data"))
    return [Cell.of(spec, options["runs"], sweep_name) for spec in specs]


def _processes(options: dict[str, Any]) -> int:
    from repro.launch import default_jobs

    return options["jobs"] or default_jobs(threads=1)


def _launch(cells: "list[Cell]", options: dict[str, Any]) -> bool:
    """Whether every run finished."""
    from rich.console import Console

    from repro.cli.progress import Progress, glance, sentence
    from repro.cli.tables import print_results
    from repro.launch import JobSettings, default_jobs, launch, needs_a_job

    console = Console()
    to_do = [cell for cell in cells if needs_a_job(cell, options["retry"])]
    if done := len(cells) - len(to_do):
        again = "; --retry runs failed ones again" if any(cell.state() != "finished" for cell in cells) else ""
        click.echo(f"{done} of {len(cells)} runs are done and not run again{again}.")
    if to_do:
        jobs = options["jobs"] or default_jobs(max(cell.spec.threads for cell in to_do))
        click.echo(f"{len(to_do)} runs to do, {jobs} at a time; Ctrl-C stops, typed again goes on.")
        try:
            with Progress(cells, console) as progress:
                settings = JobSettings(options["workers"])
                launch(to_do, settings, options["executor"], jobs, options["retry"], progress.update)
        except KeyboardInterrupt:
            left = sum(cell.state() != "finished" for cell in cells)
            click.echo(f"Stopped; {left} of {len(cells)} runs are not finished. Typed again, the command goes on.")
            sys.exit(130)
    print_results(options["runs"], cells, console)
    unfinished = [glance(cell) for cell in cells if cell.state() != "finished"]
    for not_finished in unfinished:
        click.echo(sentence(not_finished), err=True)
    sweep_name = cells[0].directory.path.parent.name
    where = "" if options["runs"] == Path("runs") else f" --runs {options['runs']}"
    click.echo(f"\nNext: repro report {sweep_name}{where}")
    return not unfinished


def _print_plan(specs: "list[RunSpec]") -> None:
    from rich.console import Console

    from repro.cli.tables import plan_notes, plan_table

    Console().print(plan_table(specs))
    click.echo()
    for note in plan_notes(specs):
        click.echo(note)
    click.echo(f"{len(specs)} runs; nothing was started (--dry-run).")
