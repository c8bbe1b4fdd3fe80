"""Tables on the terminal: what a sweep would run, what that takes on a cluster, and what its runs found."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from repro.cli.status import MOST_LINES
from repro.config.spec import differing, told_value
from repro.config.units import format_batch_size, format_bytes, format_examples, format_seconds
from repro.data.eval_sets import but_languages

if TYPE_CHECKING:
    import pandas as pd

    from repro.config.cluster import ClusterProfile
    from repro.config.layout import JobGroup
    from repro.config.spec import RunSpec
    from repro.launch import Cell


def plan_table(specs: "Sequence[RunSpec]") -> Table:
    """Runs with their steps, and what they hold beside the towers; of weights that are only evaluated, which."""
    from repro.estimate.needs import BYTES_AN_EMBEDDING
    from repro.models.sizes import model_size

    if all(not spec.trains for spec in specs):
        return _released_table(specs)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    told = [name for name in differing([dict(spec) for spec in specs]) if name not in ("setup", "examples_seen")]
    columns = ("steps", "forward passes", "embeddings")
    for column in ("setup", "loss", "batch size", "seed", "examples", *(n.replace("_", " ") for n in told), *columns):
        shown.add_column(column, justify="left" if column in ("setup", "loss") else "right")
    dims = {model: model_size(model).embed_dim for model in {spec.model for spec in specs}}
    for spec in specs:
        passes = -(-spec.batch_size // spec.micro_batch)
        shown.add_row(
            spec.setup,
            spec.loss,
            format_batch_size(spec.batch_size),
            str(spec.seed),
            format_examples(spec.examples_seen),
            *(told_value(name, getattr(spec, name)) for name in told),
            f"{spec.steps:,}",
            "1" if passes == 1 else f"2 × {passes}",
            format_bytes(BYTES_AN_EMBEDDING * dims[spec.model] * spec.batch_size),
        )
    return shown


def _released_table(specs: "Sequence[RunSpec]") -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "pretrained", "loss", "batch size"):
        shown.add_column(column, justify="right" if column == "batch size" else "left", overflow="fold")
    for spec in specs:
        shown.add_row(spec.model, spec.pretrained, spec.loss, format_batch_size(spec.batch_size))
    return shown


def plan_notes(specs: "Sequence[RunSpec]") -> list[str]:
    """What all runs of a model or on some data need: sentences under the table."""
    from repro.estimate.needs import BYTES_A_PARAMETER
    from repro.models.sizes import model_size

    notes = []
    if released := [spec for spec in specs if not spec.trains]:
        evals = dict.fromkeys(name for spec in released for name in spec.evals)
        notes.append(f"released weights are evaluated and not trained: on {', '.join(evals)}")
    if len(released) == len(specs):
        return notes
    specs = [spec for spec in specs if spec.trains]
    for model, optimizer, setup in sorted({(spec.model, spec.optimizer, spec.setup) for spec in specs}):
        size = model_size(model)
        learns = size.parameters - (size.image_parameters if setup == "siglit" else 0)
        of_them = f", {format_examples(learns)} of them trained" if learns < size.parameters else ""
        memory = format_bytes(BYTES_A_PARAMETER[optimizer] * learns)
        shown = format_examples(size.parameters)
        notes.append(f"model {model}: {shown} parameters{of_them}, {memory} with gradients and {optimizer}")
    for data in sorted({spec.data for spec in specs}):
        notes.append(f"data: {data or 'none of its own; name shards with --data PATTERN'}")
    notes.append(
        "embeddings: with their gradients; N ranks share them. The loss adds a few blocks of them and one tile"
    )
    return notes


def jobs_table(groups: "Sequence[JobGroup]", profile: "ClusterProfile") -> Table:
    """One row an array of jobs: what its runs take on the cluster. Raises InputError."""
    from repro.estimate.needs import needs_of

    unit = _processor(profile)
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))  # fits 80 columns
    columns = ("batch\nsize", "\nruns", "\nnodes", "\nranks", "local\nbatch", "micro-\nbatches", "memory\na rank")
    for column in (*columns, f"\n{unit}s", f"{unit}-\nhours", "most an\nattempt"):
        shown.add_column(column, justify="right")
    for group, needs in zip(groups, needs_of(groups, profile), strict=True):
        ranks = group.layout.ranks
        micro_batches = [-(-spec.batch_size // (ranks * spec.micro_batch)) for spec in group.specs]
        shown.add_row(
            _range([spec.batch_size for spec in group.specs], format_batch_size),
            f"{len(group.specs):,}",
            f"{group.layout.nodes:,}",
            f"{ranks:,}",
            _range([spec.batch_size // ranks for spec in group.specs], format_batch_size),
            _range(micro_batches, str),
            f"≥ {format_bytes(needs.memory_bytes)}",
            f"{needs.processors:,}",
            "" if needs.estimated_hours is None else written_hours(needs.estimated_hours),
            written_hours(needs.most_hours),
        )
    return shown


def jobs_notes(groups: "Sequence[JobGroup]", profile: "ClusterProfile") -> list[str]:
    """What all jobs together take: sentences under the table. Raises InputError."""
    from repro.estimate.needs import needs_of

    jobs, unit, needs = sum(len(group.specs) for group in groups), _processor(profile), needs_of(groups, profile)
    at_once = sum(min(len(group.specs), profile.array_parallelism) * group.layout.nodes for group in groups)
    time, most = format_seconds(profile.time_seconds), written_hours(sum(each.most_hours for each in needs))
    notes = [
        f"{jobs:,} jobs in {len(groups):,} arrays, each one call of sbatch; at most {at_once:,} nodes at once "
        f"(array_parallelism {profile.array_parallelism:,})",
        f"at most {most} {unit}-hours per attempt of all jobs (time {time})",
    ]
    if profile.tflops_per_rank is None:
        notes.append(f"tflops_per_rank in the cluster's profile gives an estimate of the {unit}-hours")
    elif groups:
        longest = max(each.longest_seconds for each in needs)
        attempts = math.ceil(longest / (profile.time_seconds - profile.grace_seconds))
        estimated = written_hours(sum(each.estimated_hours for each in needs))
        notes.append(
            f"about {estimated} {unit}-hours at {profile.tflops_per_rank:g} "
            f"TFLOP/s a rank; the longest run takes {format_seconds(longest)}, {attempts:,} attempts of {time}"
        )
    if warning := profile.too_short():
        notes.append(warning)
    threads = max((spec.threads for group in groups for spec in group.specs), default=0)
    if threads > profile.cpus_per_rank:
        notes.append(f"a rank computes with {threads} threads and has {profile.cpus_per_rank} cores (cpus_per_rank)")
    return notes


def _processor(profile: "ClusterProfile") -> str:
    return "GPU" if profile.gpus_per_node else "CPU"


def _range(values: Sequence[int], written: Callable[[int], str]) -> str:
    """'512–64k', or '512' where all are the same."""
    return "–".join(dict.fromkeys((written(min(values)), written(max(values)))))


def written_hours(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def print_results(cells: "Sequence[Cell]", console: Console) -> None:
    """The cells' rows: loss, batch size, state, metrics, speed, memory."""
    import pandas as pd

    from repro import results

    table = pd.DataFrame([results.row(cell.directory) for cell in cells[:MOST_LINES]])
    console.print(results_table(table))
    if len(cells) > MOST_LINES:
        console.print(f"… and {len(cells) - MOST_LINES:,} more; repro collect {cells[0].sweep} writes all to a file")


def results_table(table: "pd.DataFrame") -> Table:
    metrics = main_metrics(sorted(column for column in table.columns if "/" in column))
    rows = table.to_dict("records")
    told = differing(rows)
    columns = [
        "loss",
        "batch size",
        "seed",
        *(name.replace("_", " ") for name in told),
        "state",
        *map(short_name, metrics),
        "examples/s",
        "peak memory",
    ]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        words = column in ("loss", "state")
        shown.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=words)
    for row in rows:
        rate, memory = row.get("examples_per_second"), row.get("peak_memory_bytes")
        shown.add_row(
            row["loss"] if isinstance(row.get("loss"), str) else "",
            format_batch_size(int(row["batch_size"])) if is_number(row.get("batch_size")) else "",
            f"{row['seed']:.0f}" if is_number(row.get("seed")) else "",
            *(told_value(name, row.get(name)) for name in told),
            str(row["status"]),
            *(f"{row[metric]:.1%}" if is_number(row.get(metric)) else "" for metric in metrics),
            f"{rate:,.0f}" if is_number(rate) else "",
            format_bytes(memory) if is_number(memory) else "",
        )
    return shown


def main_metrics(metrics: Sequence[str]) -> list[str]:
    """What fits a terminal: accuracy of classifications and probes, recall at 1 of retrievals (languages: the mean)."""
    found = [m for m in metrics if m.endswith(("acc1", "retrieval_recall@1"))] or list(metrics)
    return but_languages(found)[:4]


def short_name(metric: str) -> str:
    """'wds_emoji_en/image_retrieval_recall@1' → 'emoji_en image R@1', to fit a column."""
    dataset, _, name = metric.rpartition("/")
    return f"{dataset.removeprefix('wds_')} {name.replace('_retrieval_recall', ' R')}".strip()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value
