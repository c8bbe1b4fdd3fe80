"""What `repro plan` shows: runs, of which those that take the same share a line, and sentences on them all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from repro.cli.tables import written_hours
from repro.config.spec import differing, told_value
from repro.config.units import format_batch_size, format_bytes, format_examples, format_seconds

if TYPE_CHECKING:
    from repro.estimate.run import RunPlan
    from repro.models.sizes import ModelSize

TOLD = {
    "setup": "\nsetup",
    "examples_seen": "exam-\nples",
    "model": "\nmodel",
    "optimizer": "opti-\nmizer",
    "negatives": "nega-\ntives",
    "token_bottleneck": "bottle-\nneck",
    "exchange": "ex-\nchange",
    "precision": "preci-\nsion",
}
"""Fields that change what a run takes, and their headings; shown where they differ."""
MOST_TOLD = 2
"""For which there is room."""


def plans_table(plans: "Sequence[RunPlan]") -> Table:
    """At most 100 columns."""
    told = _told(plans)
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    shown.add_column("\nloss", no_wrap=True)
    shown.add_column("batch\nsize", justify="right", no_wrap=True)
    for name in told:
        shown.add_column(TOLD[name], justify="right", overflow="fold", min_width=6)
    unit = plans[0].place.processor if plans else "core"
    columns = ("\nruns", "\nsteps", "\nranks", "micro-\nbatch", "GiB\na rank", "\nfits", "\nFLOPs", "loss'\nshare")
    for column in (*columns, "GB sent\na step", "\ntime", f"{unit}-\nhours"):
        shown.add_column(column, justify="right", no_wrap=True)
    lines: dict[tuple[str, ...], int] = {}
    for plan in plans:
        cells = _cells(plan, told)
        lines[cells] = lines.get(cells, 0) + 1
    place = 2 + len(told)
    for cells, count in lines.items():
        shown.add_row(*cells[:place], f"{count:,}", *cells[place:])
    return shown


def _told(plans: "Sequence[RunPlan]") -> list[str]:
    """Fields that differ and change what a run takes, before those that differ only."""
    rows = [dict(plan.spec) for plan in plans]
    named = differing([row | {"loss": "", "batch_size": 0, "seed": 0} for row in rows])
    return [name for name in TOLD if name in named][:MOST_TOLD]


def _cells(plan: "RunPlan", told: Sequence[str]) -> tuple[str, ...]:
    """All but the number of runs. Time and hours are of each run."""
    spec, local = plan.spec, plan.spec.batch_size // plan.layout.ranks
    sent = sum(plan.sent_bytes.values())
    return (
        spec.loss,
        format_batch_size(spec.batch_size),
        *(_model_name(spec.model) if name == "model" else told_value(name, getattr(spec, name)) for name in told),
        format_examples(spec.steps),
        f"{plan.layout.ranks:,}",
        format_batch_size(min(local, spec.micro_batch)),
        f"{plan.memory_bytes / 2**30:,.3g}",
        fits_in_words(plan),
        flops_in_words(plan.tower_flops + plan.loss_flops),
        _percent(plan.loss_share),
        f"{sent / 1e9:,.2g}" if sent else "–",
        "?" if plan.seconds is None else _time(plan.seconds),
        "?" if plan.processor_hours is None else written_hours(plan.processor_hours),
    )


def fits_in_words(plan: "RunPlan") -> str:
    if plan.fits is None:
        return "?"
    if plan.fits:
        return "yes"
    if plan.largest_micro_batch is None:
        return "no"
    return f"{'with' if plan.place.auto_micro_batch else 'no;'} {format_batch_size(plan.largest_micro_batch)}"


def flops_in_words(count: float) -> str:
    """1.2e21 → 1.2e21: FLOPs of runs span too much for units."""
    return f"{count:.1e}".replace("e+", "e") if count else "–"


def notes(plans: "Sequence[RunPlan]", sizes: "Mapping[str, ModelSize]") -> "Iterator[str]":
    yield from _of_the_place(plans)
    yield from _of_parameters(plans)
    yield from _of_memory(plans)
    yield from _of_messages(plans)
    yield from _of_the_loss(plans, sizes)
    yield from _of_evaluations(plans)
    yield from _of_totals(plans, sizes)


def _of_the_place(plans: "Sequence[RunPlan]") -> "Iterator[str]":
    place = plans[0].place
    machine = place.machine
    if machine is None:
        yield f"place: {place.name}; time unknown: tflops_per_rank in the profile, or --calibration, gives one"
        return
    yield f"place: {place.name}; speed of {machine.name}, {machine.origin}"
    speeds = [plan.sustained_flops for plan in plans if plan.sustained_flops]
    if speeds and machine.measured:
        least, most = min(speeds) / 1e9, max(speeds) / 1e9
        yield f"  that is {least:,.0f} to {most:,.0f} GFLOP/s a rank in these runs, towers and loss together"


def _of_parameters(plans: "Sequence[RunPlan]") -> "Iterator[str]":
    kinds = {(p.spec.model, p.spec.setup, p.parameters_learning, p.parameters_frozen) for p in plans}
    for model, setup, learning, frozen in sorted(kinds):
        counts = f"{format_examples(learning)} learn, {format_examples(frozen)} do not"
        yield f"parameters of {_model_name(model)}, {setup}: {counts}"


def _of_memory(plans: "Sequence[RunPlan]") -> "Iterator[str]":
    most = max(plans, key=lambda plan: plan.memory_bytes)
    parts = ", ".join(f"{name} {format_bytes(count)}" for name, count in most.memory_parts.items() if count >= 1 << 20)
    there = most.place.memory_bytes
    of = f" of {format_bytes(there)}" if there is not None else ""
    yield f"memory of the largest ({most.spec.label}): {format_bytes(most.memory_bytes)}{of} a rank: {parts}"
    tight = [plan for plan in plans if plan.fits is False]
    if tight:
        fitting = {plan.largest_micro_batch for plan in tight}
        would = f"micro_batch {min(fitting)} would" if None not in fitting else "for some no micro-batch would"
        yield f"{len(tight)} of {len(plans)} runs do not fit; {would}"


def _of_messages(plans: "Sequence[RunPlan]") -> "Iterator[str]":
    talking = [plan for plan in plans if sum(plan.sent_bytes.values())]
    if not talking:
        return
    most = max(talking, key=lambda plan: sum(plan.sent_bytes.values()) / (plan.step_seconds or 1.0))
    parts = (
        f"{format_bytes(most.sent_bytes['loss'])} of the loss, {format_bytes(most.sent_bytes['gradients'])} gradients"
    )
    rate = ""
    if most.step_seconds:
        count = sum(most.sent_bytes.values()) / most.step_seconds / 1e9
        rate = f"; to hide them in a step of {most.step_seconds:.3g} s a rank sends {count:.2g} GB/s"
    yield f"messages of a rank in a step, at most ({most.spec.label}): {parts}{rate}. Time does not count them"


def _of_the_loss(plans: "Sequence[RunPlan]", sizes: "Mapping[str, ModelSize]") -> "Iterator[str]":
    """Where it stops being small beside the towers, for each kind of run."""
    from repro.estimate.run import SMALL_SHARES, crossover

    largest: dict[tuple, RunPlan] = {}
    for plan in plans:
        if plan.tower_flops:
            spec = plan.spec
            key = spec.setup, spec.model, spec.loss, spec.negatives
            if key not in largest or spec.batch_size > largest[key].spec.batch_size:
                largest[key] = plan
    for (setup, model, loss, negatives), plan in largest.items():
        at = [crossover(plan.spec, sizes[model], plan.layout.ranks, share) for share in SMALL_SHARES]
        grows = " and ".join(
            f"{share:.0%} at a batch of {format_examples(batch)}" for share, batch in zip(SMALL_SHARES, at, strict=True)
        )
        which = f"{loss} loss" + (f" with {negatives} negatives" if negatives != "all" else "")
        beside = f"{which} beside {_model_name(model)} ({setup})"
        here = _percent(plan.loss_flops / plan.tower_flops)
        largest_here = format_batch_size(plan.spec.batch_size)
        yield f"{beside}: {here} of the towers' FLOPs at {largest_here}; it would be {grows}"


def _of_evaluations(plans: "Sequence[RunPlan]") -> "Iterator[str]":
    from repro.estimate.seconds import unknown_evals

    if unknown := sorted({name for plan in plans for name in unknown_evals(plan.spec)}):
        yield f"time of evaluations on {', '.join(unknown)} is not counted: their size is not known"


def _of_totals(plans: "Sequence[RunPlan]", sizes: "Mapping[str, ModelSize]") -> "Iterator[str]":
    from repro.estimate.disk import PAIR_BYTES
    from repro.estimate.run import totals

    found, unit = totals(plans, sizes), plans[0].place.processor
    shards = f"{format_bytes(found.shard_bytes)} of shards"
    if found.shards_assumed:
        shards += f" (assumed: {PAIR_BYTES:,} bytes a pair, each seen once in the longest run)"
    disk = [
        f"{format_bytes(found.final_bytes)} of weights that stay",
        f"{format_bytes(found.checkpoint_bytes)} of checkpoints while runs train",
        shards,
    ]
    if found.embeddings_bytes:
        disk.append(f"{format_bytes(found.embeddings_bytes)} of image embeddings and tokens")
    yield f"disk: {', '.join(disk)}"
    if found.embedded_images:
        hours = "" if found.embedding_hours is None else f", about {written_hours(found.embedding_hours)} {unit}-hours"
        yield f"beside the runs: embedding {format_examples(found.embedded_images)} images once{hours}"
    taken = ""
    if found.processor_hours is not None:
        at_once = plans[0].place.at_once
        taken = (
            f", {written_hours(found.processor_hours)} {unit}-hours; {_time(found.seconds)} by the clock "
            f"with {at_once:,} at a time"
        )
    yield f"total: {found.runs:,} runs, {flops_in_words(found.flops)} FLOPs{taken}"


def _model_name(model: str) -> str:
    """Of a file its name."""
    return model.rpartition("/")[2].removesuffix(".json") if model.endswith(".json") else model


def _percent(share: float) -> str:
    """Two figures at most: shares of a hundredth of a percent are among them."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.1g}%" if share < 0.001 else f"{share:.1%}"


def _time(seconds: float) -> str:
    """Days where hours are many."""
    return f"{seconds / 86_400:,.1f} d" if seconds >= 2 * 86_400 else format_seconds(seconds)
