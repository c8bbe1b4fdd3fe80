"""Results of runs, on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from repro.cli.status import MOST_LINES
from repro.config.spec import differing, told_value
from repro.config.units import format_batch_size, format_bytes
from repro.data.eval_sets import but_languages

if TYPE_CHECKING:
    import pandas as pd

    from repro.launch import Cell


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
    """Metrics that fit a terminal: accuracy, and recall at 1 of retrievals (the mean of languages)."""
    found = [m for m in metrics if m.endswith(("acc1", "retrieval_recall@1"))] or list(metrics)
    return but_languages(found)[:4]


def short_name(metric: str) -> str:
    """'wds_emoji_en/image_retrieval_recall@1' → 'emoji_en image R@1', to fit a column."""
    dataset, _, name = metric.rpartition("/")
    return f"{dataset.removeprefix('wds_')} {name.replace('_retrieval_recall', ' R')}".strip()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value
