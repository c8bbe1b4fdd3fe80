"""Predictions on the terminal: as `repro plan` and `repro sweep --dry-run` show them."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from repro.config.spec import differing, told_value
from repro.config.units import format_batch_size, format_bytes, format_examples, format_seconds

if TYPE_CHECKING:
    from repro.config.cluster import ClusterProfile, JobGroup
    from repro.estimate import Prediction

HEADINGS = {
    "setup": "\nsetup",
    "examples_seen": "exam-\nples",
    "model": "\nmodel",
    "optimizer": "opti-\nmizer",
    "negatives": "nega-\ntives",
    "token_bottleneck": "bottle-\nneck",
    "exchange": "ex-\nchange",
    "precision": "preci-\nsion",
}
"""Fields that change what a run takes, and their headings; the first two that differ are shown."""
FIELD_WIDTH = 10
"""Longer values are folded."""
NO_ROOM = ("\nFLOPs", "loss'\nshare", "GB sent\na step", "micro-\nbatch")
"""Columns that narrow terminals do without, the first to go first."""
SMALL_SHARES = (0.1, 0.5)
"""Shares of the towers' FLOPs at which the loss is no longer small."""


def predictions_table(predictions: "Sequence[Prediction]", width: int = 80) -> Table:
    """Runs that take the same share a line; in so many columns of a terminal, without what there is no room for."""
    rows = [dict(each.spec) for each in predictions]
    differ = differing([row | {"loss": "", "batch_size": 0, "seed": 0} for row in rows])
    fields = [name for name in HEADINGS if name in differ][:2]
    lines: dict[tuple[str, ...], int] = {}
    for each in predictions:
        cells = _cells(each, fields)
        lines[cells] = lines.get(cells, 0) + 1
    place = 2 + len(fields)
    columns = ["\nloss", "batch\nsize", *(HEADINGS[name] for name in fields), "\nruns", "\nsteps", "\nranks"]
    columns += ["micro-\nbatch", "GiB\na rank", "\nfits", "\nFLOPs", "loss'\nshare", "GB sent\na step", "\ntime"]
    columns += [f"{predictions[0].place.processor}-\nhours"]
    table = [(*cells[:place], f"{count:,}", *cells[place:]) for cells, count in lines.items()]
    shown = _fitting(columns, table, 2, place, width)
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for number in shown:
        folded = {"overflow": "fold", "max_width": FIELD_WIDTH} if 2 <= number < place else {"no_wrap": True}
        made.add_column(columns[number], justify="right" if number else "left", **folded)
    for cells in table:
        made.add_row(*(cells[number] for number in shown))
    absent = (columns[number] for number in range(len(columns)) if number not in shown)
    if lacking := [name.replace("-\n", "-").replace("\n", " ").strip() for name in absent]:
        made.caption = f"no room for {', '.join(lacking)}: a wider terminal, or repro plan --csv"
        made.caption_justify = "left"
    return made


def _fitting(columns: Sequence[str], table: Sequence[Sequence[str]], first: int, last: int, width: int) -> list[int]:
    """Numbers of the columns that fit, when those of NO_ROOM are left out in their order. first to last: folded."""

    def wide(number: int) -> int:
        longest = max(len(text) for text in (*columns[number].split("\n"), *(cells[number] for cells in table)))
        return 1 + (min(longest, FIELD_WIDTH) if first <= number < last else longest)

    shown = list(range(len(columns)))
    for name in NO_ROOM:
        if sum(map(wide, shown)) <= width:
            break
        shown.remove(columns.index(name))
    return shown


def _cells(each: "Prediction", fields: Sequence[str]) -> tuple[str, ...]:
    """All but the number of runs. Time and hours are of each run."""
    spec, local, sent = each.spec, each.spec.batch_size // each.layout.ranks, sum(each.sent_bytes)
    return (
        spec.loss,
        format_batch_size(spec.batch_size),
        *(_model_name(spec.model) if name == "model" else told_value(name, getattr(spec, name)) for name in fields),
        format_examples(spec.steps),
        f"{each.layout.ranks:,}",
        format_batch_size(min(local, spec.micro_batch)),
        f"{each.memory_bytes / 2**30:,.3g}",
        fits_in_words(each),
        _flops(each.tower_flops + each.loss_flops),
        _percent(each.loss_share),
        f"{sent / 1e9:,.2g}" if sent else "–",
        "?" if each.seconds is None else _time(each.seconds),
        "?" if each.processor_hours is None else written_hours(each.processor_hours),
    )


def fits_in_words(each: "Prediction") -> str:
    if each.fits is not False:
        return "?" if each.fits is None else "yes"
    if each.largest_micro_batch is None:
        return "no"
    return f"{'with' if each.place.auto_micro_batch else 'no;'} {format_batch_size(each.largest_micro_batch)}"


def notes(predictions: "Sequence[Prediction]") -> Iterator[str]:
    """Sentences under the table, on all runs."""
    yield from _speed(predictions)
    if evals := dict.fromkeys(name for each in predictions if not each.spec.trains for name in each.spec.evals):
        yield f"released weights are evaluated and not trained: on {', '.join(evals)}"
    kinds = {(p.spec.model, p.spec.setup, p.parameters.trained, p.parameters.all) for p in predictions}
    for model, setup, trained, all_parameters in sorted(kinds):
        parts = f"{format_examples(trained)} learn, {format_examples(all_parameters - trained)} do not"
        yield f"parameters of {_model_name(model)}, {setup}: {parts}"
    yield from _memory(predictions)
    yield from _messages(predictions)
    yield from _share_of_the_loss(predictions)
    yield from _totals(predictions)


def _speed(predictions: "Sequence[Prediction]") -> Iterator[str]:
    place = predictions[0].place
    if not place.speed_is_known:
        yield f"place: {place.name}; time unknown: tflops_per_rank in the profile gives one"
        return
    yield f"place: {place.name}; speed of {place.machine.name}, {place.machine.origin}"
    speeds = [each.sustained_flops / 1e9 for each in predictions if each.sustained_flops]
    if speeds and place.machine.origin.startswith("measured"):
        rates = f"{min(speeds):,.0f} to {max(speeds):,.0f} GFLOP/s a rank"
        yield f"  that is {rates} in these runs, towers and loss together"


def _memory(predictions: "Sequence[Prediction]") -> Iterator[str]:
    most = max(predictions, key=lambda each: each.memory_bytes)
    parts = ", ".join(f"{name} {format_bytes(count)}" for name, count in most.memory_parts.items() if count >= 1 << 20)
    there = most.place.memory_bytes
    of = f" of {format_bytes(there)}" if there is not None else ""
    yield f"memory of the largest ({most.spec.label}): {format_bytes(most.memory_bytes)}{of} a rank: {parts}"
    if tight := [each for each in predictions if each.fits is False]:
        fitting = {each.largest_micro_batch for each in tight}
        would = f"micro_batch {min(fitting)} would" if None not in fitting else "for some no micro-batch would"
        yield f"{len(tight)} of {len(predictions)} runs do not fit; {would}"


def _messages(predictions: "Sequence[Prediction]") -> Iterator[str]:
    if not (sending := [each for each in predictions if sum(each.sent_bytes)]):
        return
    most = max(sending, key=lambda each: sum(each.sent_bytes) / (each.step_seconds or 1.0))
    of_loss, of_gradients = map(format_bytes, most.sent_bytes)
    rate = ""
    if most.step_seconds:
        count = sum(most.sent_bytes) / most.step_seconds / 1e9
        rate = f"; to hide them in a step of {most.step_seconds:.3g} s a rank sends {count:.2g} GB/s"
    parts = f"{of_loss} of the loss, {of_gradients} gradients"
    yield f"messages of a rank in a step, at most ({most.spec.label}): {parts}{rate}. Time does not count them"


def _share_of_the_loss(predictions: "Sequence[Prediction]") -> Iterator[str]:
    """Where the loss stops being small beside the towers, for each kind of run."""
    from repro.estimate import crossover

    largest: dict[tuple, Prediction] = {}
    for each in sorted(predictions, key=lambda each: -each.spec.batch_size):
        if each.tower_flops:
            largest.setdefault((each.spec.setup, each.spec.model, each.spec.loss, each.spec.negatives), each)
    for (setup, model, loss, negatives), each in largest.items():
        at = [format_examples(crossover(each.spec, each.size, each.layout.ranks, share)) for share in SMALL_SHARES]
        grows = " and ".join(
            f"{share:.0%} at a batch of {batch}" for share, batch in zip(SMALL_SHARES, at, strict=True)
        )
        which = f"{loss} loss" + (f" with {negatives} negatives" if negatives != "all" else "")
        here, batch = _percent(each.loss_flops / each.tower_flops), format_batch_size(each.spec.batch_size)
        beside = f"{which} beside {_model_name(model)} ({setup})"
        yield f"{beside}: {here} of the towers' FLOPs at {batch}; it would be {grows}"


def _totals(predictions: "Sequence[Prediction]") -> Iterator[str]:
    from repro.estimate import totals
    from repro.estimate.counts import PAIR_BYTES, unknown_evals

    if unknown := sorted({name for each in predictions for name in unknown_evals(each.spec)}):
        yield f"time of evaluations on {', '.join(unknown)} is not counted: their size is not known"
    total, unit = totals(predictions), predictions[0].place.processor
    assumed = f" (assumed: {PAIR_BYTES / 1000:.0f} kB a pair, each seen once)" if total.shards_assumed else ""
    disk = [
        f"{format_bytes(total.final_bytes)} of final weights",
        f"{format_bytes(total.checkpoint_bytes)} of checkpoints while runs train",
        f"{format_bytes(total.shard_bytes)} of shards{assumed}",
    ]
    if total.embeddings_bytes:
        disk.append(f"{format_bytes(total.embeddings_bytes)} of image embeddings and tokens")
    yield f"disk: {', '.join(disk)}"
    if total.embedded_images:
        hours = "" if total.embedding_hours is None else f", about {written_hours(total.embedding_hours)} {unit}-hours"
        yield f"beside the runs: embedding {format_examples(total.embedded_images)} images once{hours}"
    taken = ""
    if total.processor_hours is not None:
        hours, at_once = written_hours(total.processor_hours), predictions[0].place.at_once
        taken = f", {hours} {unit}-hours; {_time(total.seconds)} by the clock with {at_once:,} at a time"
    yield f"total: {total.runs:,} runs, {_flops(total.flops)} FLOPs{taken}"


def _model_name(model: str) -> str:
    return model.rpartition("/")[2].removesuffix(".json") if model.endswith(".json") else model


def _flops(count: float) -> str:
    """1.2e21: FLOPs of runs span too much for units."""
    return f"{count:.1e}".replace("e+", "e") if count else "–"


def _percent(share: float) -> str:
    """Two figures at most: shares of a hundredth of a percent are among them."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.1g}%" if share < 0.001 else f"{share:.1%}"


def _time(seconds: float) -> str:
    """Days where hours are many."""
    return f"{seconds / 86_400:,.1f} d" if seconds >= 2 * 86_400 else format_seconds(seconds)


def arrays_table(arrays: "Sequence[JobGroup]", predictions: "Sequence[Prediction]", profile: "ClusterProfile") -> Table:
    """One row an array of jobs: what its runs take on the cluster."""
    of_runs = {each.spec.run_id: each for each in predictions}
    unit = "GPU" if profile.gpus_per_node else "CPU"
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))  # fits 80 columns
    columns = ("batch\nsize", "\nruns", "\nnodes", "\nranks", "local\nbatch", "micro-\nbatches", "memory\na rank")
    for column in (*columns, f"\n{unit}s", f"{unit}-\nhours", "most an\nattempt"):
        shown.add_column(column, justify="right")
    for array in arrays:
        each, ranks = [of_runs[spec.run_id] for spec in array.specs], array.layout.ranks
        shown.add_row(
            _range([spec.batch_size for spec in array.specs], format_batch_size),
            f"{len(array.specs):,}",
            f"{array.layout.nodes:,}",
            f"{ranks:,}",
            _range([spec.batch_size // ranks for spec in array.specs], format_batch_size),
            _range([-(-spec.batch_size // (ranks * spec.micro_batch)) for spec in array.specs], str),
            format_bytes(max(one.memory_bytes for one in each)),
            f"{each[0].processors:,}",
            written_hours(sum(one.processor_hours for one in each)) if each[0].place.speed_is_known else "",
            written_hours(most_hours(array, each[0].processors, profile)),
        )
    return shown


def most_hours(array: "JobGroup", processors: int, profile: "ClusterProfile") -> float:
    """Processor-hours if each of its jobs takes its whole time limit once."""
    return len(array.specs) * processors * profile.time_seconds / 3600


def arrays_notes(
    arrays: "Sequence[JobGroup]", predictions: "Sequence[Prediction]", profile: "ClusterProfile"
) -> list[str]:
    """Sentences under the table, on what all jobs together take."""
    jobs, unit = sum(len(array.specs) for array in arrays), "GPU" if profile.gpus_per_node else "CPU"
    at_once = sum(min(len(array.specs), profile.array_parallelism) * array.layout.nodes for array in arrays)
    a_rank = 1 if profile.gpus_per_node else profile.cpus_per_rank
    most = sum(most_hours(array, a_rank * array.layout.ranks, profile) for array in arrays)
    time = format_seconds(profile.time_seconds)
    notes = [
        f"{jobs:,} jobs in {len(arrays):,} arrays, each one call of sbatch; at most {at_once:,} nodes at once "
        f"(array_parallelism {profile.array_parallelism:,})",
        f"at most {written_hours(most)} {unit}-hours per attempt of all jobs (time {time})",
    ]
    if not all(each.place.speed_is_known for each in predictions):
        notes.append(f"tflops_per_rank in the cluster's profile gives an estimate of the {unit}-hours")
    elif predictions:
        longest = max(each.seconds for each in predictions)
        attempts = math.ceil(longest / (profile.time_seconds - profile.grace_seconds))
        notes.append(
            f"about {written_hours(sum(each.processor_hours for each in predictions))} {unit}-hours (speed "
            f"{predictions[0].place.machine.origin}); the longest run takes {format_seconds(longest)}, {attempts:,} "
            f"attempts of {time}"
        )
    if warning := profile.too_short():
        notes.append(warning)
    threads = max((spec.threads for array in arrays for spec in array.specs), default=0)
    if threads > profile.cpus_per_rank:
        notes.append(f"a rank computes with {threads} threads and has {profile.cpus_per_rank} cores (cpus_per_rank)")
    return [*notes, "repro plan says more: FLOPs, memory by parts, messages, disk"]


def _range(values: Sequence[int], written: Callable[[int], str]) -> str:
    """'512–64k', or '512' where all are the same."""
    return "–".join(dict.fromkeys((written(min(values)), written(max(values)))))


def written_hours(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"
