"""Measurements of results/bench: the largest batch in a given memory, implementations of the loss, the exchange."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from repro.config.units import format_bytes
from repro.report import draw
from repro.report.draw.axes import label_log_rows, title
from repro.report.draw.benchmark import LIMIT, format_seconds, in_order, styles
from repro.report.exhibits.exhibit import Exhibit, listed, sentences
from repro.report.figures import Draw, full_and_column
from repro.report.found import Found

PANELS_BY = ["ranks", "dim", "dtype", "device", "threads"]


def capacity(found: Found) -> Iterator[Exhibit]:
    """A panel for each loss, model and memory, a bar for each implementation."""
    needed = {"loss", "implementation", "batch_size", "status", "memory_limit_bytes", "model"}
    table = _numbers(found.bench.get("capacity"), needed, ["batch_size", "memory_limit_bytes"])
    table = table[table["batch_size"] > 0] if len(table) else table
    if table.empty:
        return
    draws = []
    for (limit, model, loss), part in table.groupby(["memory_limit_bytes", "model", "loss"]):
        draws.append(_panel(part, draw.capacity, (f"{loss}, {model}", f"in {_memory(limit)}")))
    full, column = full_and_column(draws, min(2, len(draws)), None, row_cm=3.8)
    text = sentences(
        "The largest batch that fits, by implementation of the loss; ≥ where larger ones were not tried.",
        "Of the loss alone, without towers." if (table["model"] == "loss alone").all() else "",
        _machine(table),
        "The paper's claim (section 4.2): on four chips a Base model fits a batch of 4,096 with the sigmoid, and of "
        "2,048 with the softmax.",
    )
    yield Exhibit("cost-capacity", "The largest batch in a given memory", text, full, column, None, table)


def loss(found: Found) -> Iterator[Exhibit]:
    """Time and memory of each implementation, a column of panels for each loss."""
    needed = {"loss", "implementation", "local_batch", "seconds", "peak_memory_bytes", *PANELS_BY}
    table = _numbers(found.bench.get("loss"), needed, ["local_batch", "seconds", "peak_memory_bytes"])
    table = table.dropna(subset=["seconds", "local_batch"]) if len(table) else table
    if table.empty:
        return
    several = table.groupby(PANELS_BY)["local_batch"].transform("nunique") > 1
    shown = table[several] if several.any() else table
    draws: list[Draw] = []
    losses, names = sorted(shown["loss"].unique()), in_order(shown["implementation"])
    for key, block in shown.groupby(PANELS_BY, sort=True):
        for value, label in (("seconds", "forward + backward"), ("peak_memory_bytes", "peak extra memory")):
            for name in losses:
                part = block[block["loss"] == name]
                heads = (name, place(dict(zip(PANELS_BY, key, strict=True))))
                draws.append(_cost(part, value, label, heads, names) if len(part) else None)
    looks_of = {name: {k: v for k, v in style.items() if k != "zorder"} for name, style in styles(names).items()}
    full, column = full_and_column(draws, len(losses), looks_of | {"the products by torch.mm": LIMIT}, row_cm=5.0)
    text = sentences(
        "Time and extra memory of one loss with its gradients, by implementation, against the batch of a rank. Bars "
        "are the least and the most that was measured; the dashed line is torch.mm on the matrix products.",
        _machine(shown),
    )
    yield Exhibit("cost-loss", "Implementations of the loss", text, full, column, None, shown)


def exchange(found: Found) -> Iterator[Exhibit]:
    """Time of each exchange alone and of the whole loss with it, a row of panels for each setting."""
    columns = [f"{what}_seconds{end}" for what in ("exchange", "loss") for end in ("", "_least", "_most")]
    table = _numbers(found.bench.get("exchange"), {"exchange", *PANELS_BY, "local_batch", *columns}, columns)
    table = table.dropna(subset=["exchange_seconds", "loss_seconds"]) if len(table) else table
    if table.empty:
        return
    table = table.assign(implementation="repro-" + table["exchange"])
    draws: list[Draw] = []
    names = in_order(table["implementation"])
    for key, block in table.groupby(PANELS_BY, sort=True):
        for what, label in (("exchange", "the exchange alone"), ("loss", "forward + backward")):
            seconds = {f"seconds{end}": block[f"{what}_seconds{end}"] for end in ("", "_least", "_most")}
            heads = (label, place(dict(zip(PANELS_BY, key, strict=True))))
            draws.append(_cost(block.assign(**seconds), "seconds", label, heads, names))
    looks_of = {name: {k: v for k, v in style.items() if k != "zorder"} for name, style in styles(names).items()}
    full, column = full_and_column(draws, 2, looks_of, row_cm=5.0)
    text = sentences(
        "Seconds that a step's exchange takes alone, and the loss with it, forward and backward. Bars are the least "
        "and the most that was measured.",
        _machine(table),
        "The paper's claim (section 3.3): permuting texts around the ring costs less than gathering all of them twice.",
    )
    yield Exhibit("cost-exchange", "The exchange between ranks", text, full, column, None, table)


def place(key: dict[str, object]) -> str:
    """'1 rank × 2 threads, d 512, fp32'."""
    ranks = f"{key['ranks']} rank" + "s" * (key["ranks"] > 1)
    threads = f" × {key['threads']} thread" + "s" * (key["threads"] > 1) if key["device"] == "cpu" else ""
    device = "" if key["device"] == "cpu" else f", {key['device']}"
    return f"{ranks}{threads}, d {key['dim']}, {key['dtype']}{device}"


def _cost(part: pd.DataFrame, value: str, label: str, heads: tuple[str, str], order: list[str]) -> Draw:
    def drawn(axes: Axes) -> None:
        draw.loss_cost(part, value, axes, order)
        write, base = (format_seconds, 10) if value == "seconds" else (format_bytes, 4)
        label_log_rows(axes, label, write, base)
        title(axes, *heads)

    return drawn


def _panel(part: pd.DataFrame, function: object, heads: tuple[str, str]) -> Draw:
    def drawn(axes: Axes) -> None:
        function(part, axes)
        title(axes, *heads)

    return drawn


def _numbers(table: pd.DataFrame | None, needed: set[str], columns: list[str]) -> pd.DataFrame:
    """The table with numbers in these columns; empty where it, or a column that is needed, is not there."""
    if table is None or not needed <= set(table.columns):
        return pd.DataFrame()
    return table.assign(**{column: pd.to_numeric(table[column], errors="coerce") for column in columns})


def _machine(table: pd.DataFrame) -> str:
    names = [str(name) for name in table["machine"].dropna().unique()] if "machine" in table else []
    return f"Measured on {listed(names)}." if names else ""


def _memory(limit: float) -> str:
    """2,000,000,000 → 2 GB, as it was asked for; 32 · 2³⁰ → 32.0 GiB."""
    return f"{limit / 1e9:g} GB" if limit % 1e8 == 0 else format_bytes(limit)
