"""Tables on the terminal: what a sweep would run, and what its runs found."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from repro.counts import format_batch_size, format_bytes, format_examples

if TYPE_CHECKING:
    import pandas as pd

    from repro.launch import Cell
    from repro.spec import RunSpec

BYTES_A_PARAMETER = 16
"""Weight, gradient and two moments, in fp32."""
BYTES_AN_EMBEDDING = 16
"""A number of an image's and a text's embedding and of their gradients, in fp32."""


def plan_table(specs: "Sequence[RunSpec]") -> Table:
    """Runs with their steps, and what they hold beside the towers."""
    from repro.model_config import read_config

    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("setup", "loss", "batch size", "seed", "examples", "steps", "forward passes", "embeddings"):
        shown.add_column(column, justify="left" if column in ("setup", "loss") else "right")
    dims = {model: read_config(model)[0]["model_cfg"]["embed_dim"] for model in {spec.model for spec in specs}}
    for spec in specs:
        passes = -(-spec.batch_size // spec.micro_batch)
        shown.add_row(
            spec.setup,
            spec.loss,
            format_batch_size(spec.batch_size),
            str(spec.seed),
            format_examples(spec.examples_seen),
            f"{spec.steps:,}",
            "1" if passes == 1 else f"2 × {passes}",
            format_bytes(BYTES_AN_EMBEDDING * dims[spec.model] * spec.batch_size),
        )
    return shown


def plan_notes(specs: "Sequence[RunSpec]") -> list[str]:
    """What all runs of a model or on some data need: sentences under the table."""
    from repro.model import count_parameters

    notes = []
    for model in sorted({spec.model for spec in specs}):
        parameters = count_parameters(model)
        size = format_bytes(BYTES_A_PARAMETER * parameters)
        notes.append(f"model {model}: {format_examples(parameters)} parameters, {size} with gradients and optimizer")
    for data in sorted({spec.data for spec in specs}):
        notes.append(f"data: {data or 'none of its own; name shards with --data PATTERN'}")
    notes.append(
        "embeddings: with their gradients; N ranks share them. The loss adds a few blocks of them and one tile"
    )
    return notes


def print_results(cells: "Sequence[Cell]", console: Console) -> None:
    """The cells' rows: loss, batch size, state, metrics, speed, memory."""
    import pandas as pd

    from repro import results

    table = pd.DataFrame([results.row(cell.directory) for cell in cells])
    console.print(results_table(table))


def results_table(table: "pd.DataFrame") -> Table:
    metrics = main_metrics(sorted(column for column in table.columns if "/" in column))
    columns = ["loss", "batch size", "seed", "state", *map(short_name, metrics), "examples/s", "peak memory"]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        shown.add_column(column, justify="left" if column in ("loss", "state") else "right", overflow="fold")
    for row in table.to_dict("records"):
        rate, memory = row.get("examples_per_second"), row.get("peak_memory_bytes")
        shown.add_row(
            str(row.get("loss", "")),
            format_batch_size(row["batch_size"]) if is_number(row.get("batch_size")) else "",
            str(row.get("seed", "")),
            str(row["status"]),
            *(f"{row[metric]:.1%}" if is_number(row.get(metric)) else "" for metric in metrics),
            f"{rate:,.0f}" if is_number(rate) else "",
            format_bytes(memory) if is_number(memory) else "",
        )
    return shown


def main_metrics(metrics: Sequence[str]) -> list[str]:
    """What fits a terminal: accuracy of classifications, recall at 1 of retrievals."""
    return [m for m in metrics if m.endswith(("/acc1", "retrieval_recall@1"))] or list(metrics[:4])


def short_name(metric: str) -> str:
    """'wds_emoji_en/image_retrieval_recall@1' → 'emoji_en image R@1', to fit a column."""
    dataset, _, name = metric.rpartition("/")
    return f"{dataset.removeprefix('wds_')} {name.replace('_retrieval_recall', ' R')}".strip()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value
