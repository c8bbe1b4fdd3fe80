"""repro plan: what a sweep's runs take, before any of them starts."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import CommandWithSeveral, Several
from repro.cli.specs import overrides, spec_options

if TYPE_CHECKING:
    from repro.config.spec import RunSpec
    from repro.config.sweep import Sweep
    from repro.estimate.run import RunPlan
    from repro.models.sizes import ModelSize


@click.command(cls=CommandWithSeveral)
@click.argument("name", required=False)
@spec_options
@click.option("--cluster", metavar="NAME", help="Profile of the cluster, by name or YAML file.")
@click.option("--job", "job", cls=Several, paths=True, metavar="KEY=VALUE", help="Change the profile's keys.")
@click.option("--local-batch", metavar="N", help="Examples a rank holds at most.  [default: the recipe's]")
@click.option("--ranks", type=click.IntRange(1), default=1, help="Without --cluster: processes of each run.")
@click.option("--jobs", type=click.IntRange(1), help="Without --cluster: runs side by side.")
@click.option("--calibration", type=click.Path(path_type=Path), help="File of a machine calibrated elsewhere.")
@click.option("--csv", "--out", "out", type=click.Path(path_type=Path), metavar="FILE", help="Every run, a row each.")
@click.option("--calibrate", is_flag=True, help="Measure this machine with a few short runs (minutes).")
def plan(name: str | None, calibrate: bool, out: Path | None, **options: Any) -> None:
    """Predict what the runs of sweep NAME take: FLOPs, memory and the micro-batch that fits, messages, time, disk.

    At laptop scale for this machine, at the others for a cluster. Nothing is started, read or written (--csv aside).
    """
    from repro.config.errors import InputError

    if calibrate:
        _calibrate(name, options)
        return
    if name is None:
        raise InputError("name a sweep: repro plan NAME (repro sweep lists them), or --calibrate")
    from repro.config.sweep import expand, load_sweep

    sweep = load_sweep(name)
    specs = expand(sweep, options["scale"], overrides(options))
    plans, sizes = _plan(sweep, specs, options)
    _print(plans, sizes)
    if out is not None:
        _write(plans, out)


def _plan(
    sweep: "Sweep", specs: "list[RunSpec]", options: dict[str, Any]
) -> "tuple[list[RunPlan], dict[str, ModelSize]]":
    """Raises InputError."""
    from repro.config.cluster import load_profile
    from repro.config.errors import InputError
    from repro.config.layout import Layout, plan_jobs
    from repro.config.sweep import local_batches
    from repro.estimate import listing
    from repro.estimate import machine as machines
    from repro.estimate.run import plan_groups, plan_run, this_place
    from repro.models.sizes import model_size

    scale, cluster, file = options["scale"], options["cluster"], options["calibration"]
    if scale == "laptop" and not cluster:
        if options["job"] or options["local_batch"]:
            raise InputError("--job and --local-batch are for a cluster; name one with --cluster")
        for spec in specs:
            spec.check_ranks(options["ranks"])
        sizes = {model: model_size(model) for model in {spec.model for spec in specs}}
        machine = machines.calibrated(file=file) if file else machines.calibrated_or_ours()
        layout = Layout(1, options["ranks"])
        places = {s.threads: this_place(machine, s.threads, layout.ranks, options["jobs"]) for s in specs}
        return [plan_run(spec, layout, sizes[spec.model], places[spec.threads]) for spec in specs], sizes
    if options["ranks"] != 1 or options["jobs"]:
        raise InputError("--ranks and --jobs are for this machine; on a cluster ranks follow from --local-batch")
    one_gpu = listing.ONE_GPU if scale == "gpu" and not cluster else ()
    cluster = cluster or listing.CLUSTER
    profile = load_profile(cluster, [*one_gpu, *options["job"]])
    groups = plan_jobs(specs, local_batches(sweep, specs, options["local_batch"]), profile)
    sizes = {model: model_size(model) for model in {spec.model for spec in specs}}
    machine = machines.calibrated(file=file) if file else machines.assumed(profile, cluster)
    if machine is None and not profile.gpus_per_node:
        machine = machines.calibrated_or_ours()
    return plan_groups(groups, profile, cluster, machine, sizes), sizes


def _print(plans: "list[RunPlan]", sizes: "dict[str, ModelSize]") -> None:
    from rich.console import Console

    from repro.cli.plan_tables import notes, plans_table

    Console().print(plans_table(plans))
    click.echo()
    for note in notes(plans, sizes):
        click.echo(note)


def _write(plans: "list[RunPlan]", out: Path) -> None:
    import csv

    from repro.estimate.run import row

    rows = [row(plan) for plan in plans]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    click.echo(f"\nEvery run in {out}")


def _calibrate(name: str | None, options: dict[str, Any]) -> None:
    from repro.bench.calibrate import calibrate
    from repro.config.errors import InputError
    from repro.estimate.machine import keep, own_file

    given = [key for key in ("data", "cluster", "settings", "job", "batch_size", "loss", "setup") if options[key]]
    if name is not None or given:
        raise InputError("--calibrate measures this machine, and takes no sweep and no other option but --calibration")
    file = options["calibration"] or own_file()
    keep(calibrate(lambda line: click.echo(line, err=True)), file)
    click.echo(f"Calibrated; kept in {file}. Next, in a checkout: python -m benchmarks plan")
    sys.exit(0)
