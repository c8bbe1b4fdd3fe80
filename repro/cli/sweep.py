"""repro sweep: a sweep's runs, those that are missing."""

import sys
from typing import TYPE_CHECKING, Any

import click

from repro.cli.jobs import check_jobs, chosen, job_options, plan, profile_of, start
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
@job_options
@click.option("--retry", is_flag=True, help="Run failed runs again.")
@click.option("--dry-run", is_flag=True, help="Only say what would run, and what it would need.")
def sweep(name: str | None, dry_run: bool, **options: Any) -> None:
    """Expand sweep NAME (or a YAML file) into runs, and run those that are missing; or measure, where it says so.

    Several values may follow an option; repeating it and commas work too. Without NAME: the sweeps there are.
    """
    from repro.sweep import expand, list_sweeps, load_sweep

    if name is None:
        for known in list_sweeps():
            click.echo(f"{known.name}: {known.title}; reproduces {known.reproduces}; at {', '.join(known.scales)}")
        click.echo("\nNext: repro sweep NAME")
        return
    loaded = load_sweep(name)
    if loaded.bench(options["scale"]):
        from repro.cli.bench_sweep import measure

        measure(loaded, options, dry_run)
        return
    values = chosen(options | {"sweep": str(loaded.file.resolve())})
    specs = expand(loaded, options["scale"], _overrides(options))
    if dry_run:
        _print_plan(specs, values)
        return
    cells = _prepare(specs, loaded.name, options, values)
    sys.exit(start(cells, values, options["retry"], options["detach"], options["runs"]))


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


def _prepare(specs: "list[RunSpec]", sweep: str, options: dict[str, Any], values: dict[str, Any]) -> "list[Cell]":
    """Everything is checked, and the data are made, before the first run starts."""
    from repro import check
    from repro.cli.progress import lines_on_stderr
    from repro.launch import Cell, default_jobs, labelled

    specs = check.complete(specs)
    check.check_evals(specs)
    check.check_runs_folder(options["runs"], sweep)
    cells = labelled([Cell.of(spec, options["runs"], sweep) for spec in specs])
    check_jobs(specs, values)
    processes = values["jobs"] or default_jobs(threads=1)
    for unusable in check.prepare_data(specs, processes, lines_on_stderr("preparing the data")):
        click.echo(f"cannot be used: {unusable}", err=True)
    return cells


def _print_plan(specs: "list[RunSpec]", values: dict[str, Any]) -> None:
    from rich.console import Console

    from repro.cli.tables import jobs_notes, jobs_table, plan_notes, plan_table

    if values["executor"] == "slurm":
        groups, profile = plan(specs, values), profile_of(values)
        shown, notes = jobs_table(groups, profile), [*plan_notes(specs), *jobs_notes(groups, profile)]
    else:
        shown, notes = plan_table(specs), plan_notes(specs)
    Console().print(shown)
    click.echo()
    for note in notes:
        click.echo(note)
    click.echo(f"{len(specs)} runs; nothing was started (--dry-run).")
