"""What each sweep reproduces, and what it costs at each scale: quick, since it only counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from repro.config.cluster import load_profile
from repro.config.errors import InputError
from repro.config.layout import Layout, plan_jobs
from repro.config.spec import SCALES, RunSpec
from repro.config.sweep import Overrides, Sweep, expand, load_sweep, local_batches, sweep_names
from repro.estimate.machine import Machine, assumed, calibrated_or_ours
from repro.estimate.run import RunPlan, plan_groups, plan_run, this_place
from repro.models.sizes import ModelSize, known_size

CLUSTER = "gpu8"
"""The profile that stands in for a GPU and a cluster where none is named."""
ONE_GPU = ("ranks_per_node=1", "gpus_per_node=1", "max_nodes=1")


@dataclass(frozen=True)
class Cost:
    """Of a sweep at one scale."""

    runs: int
    hours: float | None
    """Of cores at laptop scale, of GPUs at the others; None where it cannot be said."""
    problem: str = ""
    """Why there is no number of runs, or none of hours."""
    measurement: bool = False
    """A command of repro bench in the place of runs."""


@dataclass(frozen=True)
class Listed:
    """One sweep, with its costs by scale, for its default setups; or why its file cannot be read."""

    name: str
    title: str = ""
    reproduces: str = ""
    costs: dict[str, Cost] = field(default_factory=dict)
    problem: str = ""


def list_costs() -> list[Listed]:
    """Of every sweep. Problems are told, not raised: one sweep that is wrong, or lacks its recipe, hides no other."""
    return [_listed(name) for name in sweep_names()]


def _listed(name: str) -> Listed:
    try:
        sweep = load_sweep(name)
    except InputError as error:
        return Listed(name, problem=str(error))
    costs = {scale: cost(sweep, scale) for scale in SCALES if scale in sweep.scales}
    return Listed(name, sweep.title, sweep.reproduces, costs)


def cost(sweep: Sweep, scale: str) -> Cost:
    if sweep.bench(scale) is not None:
        return Cost(0, None, measurement=True)
    try:
        specs = expand(sweep, scale, Overrides())
    except InputError as error:
        return Cost(0, None, str(error))
    try:
        sizes = {model: known_size(model) for model in {spec.model for spec in specs}}
        if unknown := sorted(model for model, size in sizes.items() if size is None):
            return Cost(len(specs), None, f"model {unknown[0]} is not measured yet; repro plan {sweep.name} does so")
        plans = plan_by_default(sweep, scale, specs, sizes)
    except InputError as error:
        return Cost(len(specs), None, str(error))
    hours = [plan.processor_hours for plan in plans]
    return Cost(len(specs), None if None in hours else sum(hours))


def plan_by_default(sweep: Sweep, scale: str, specs: Sequence[RunSpec], sizes: dict[str, ModelSize]) -> list[RunPlan]:
    """At laptop scale on this machine, at the others on our example of a cluster. Raises InputError."""
    if scale == "laptop":
        machine: Machine = calibrated_or_ours()
        return [
            plan_run(spec, Layout(1, 1), sizes[spec.model], this_place(machine, spec.threads, 1, None))
            for spec in specs
        ]
    profile = load_profile(CLUSTER, ONE_GPU if scale == "gpu" else ())
    groups = plan_jobs(specs, local_batches(sweep, specs), profile)
    return plan_groups(groups, profile, CLUSTER, assumed(profile, CLUSTER), sizes)
