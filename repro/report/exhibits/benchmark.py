"""Measurements of results/bench: the largest batch in a given memory, implementations of the loss, the exchange."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from repro.config.units import format_bytes
from repro.report import draw
from repro.report.draw.benchmark import LIMIT, in_order, styles
from repro.report.exhibits.exhibit import Exhibit, figure, intro, listed, sentences
from repro.report.figures import Look, Panel, panel
from repro.report.inputs import Inputs

PANELS_BY = ["ranks", "dim", "dtype", "device", "threads"]


def capacity(inputs: Inputs) -> Iterator[Exhibit]:
    """A panel for each loss, model and memory, a bar for each implementation."""
    needed = ("loss", "implementation", "status", "model")
    table = _table(inputs, "capacity", needed, ["batch_size", "memory_limit_bytes"])
    table = table[table["batch_size"] > 0]
    if table.empty:
        return
    panels = [
        panel(part, (f"{loss}, {model}", f"in {_memory(limit)}"), draw.capacity, part)
        for (limit, model, loss), part in table.groupby(["memory_limit_bytes", "model", "loss"])
    ]
    caption = sentences(
        intro("cost-capacity"),
        "Of the loss alone, without towers." if (table["model"] == "loss alone").all() else "",
        _machine(table),
        "The paper's claim (section 4.2): on four chips a Base model fits a batch of 4,096 with the sigmoid, and of "
        "2,048 with the softmax.",
    )
    yield figure("cost-capacity", panels, min(2, len(panels)), caption, row_cm=3.8, data=table)


def loss(inputs: Inputs) -> Iterator[Exhibit]:
    """Time and memory of each implementation, a column of panels for each loss."""
    needed = ("loss", "implementation", *PANELS_BY)
    table = _table(inputs, "loss", needed, ["local_batch", "seconds", "peak_memory_bytes"])
    table = table.dropna(subset=["seconds", "local_batch"])
    if table.empty:
        return
    several = table.groupby(PANELS_BY)["local_batch"].transform("nunique") > 1
    shown = table[several] if several.any() else table
    panels: list[Panel | None] = []
    losses, names = sorted(shown["loss"].unique()), in_order(shown["implementation"])
    for key, block in tables_of_panels(shown):
        for value, label in (("seconds", "forward + backward"), ("peak_memory_bytes", "peak extra memory")):
            for name in losses:
                part = block[block["loss"] == name]
                made = panel(part, (name, key), draw.loss_cost, part, value, order=names, label=label)
                panels.append(made if len(part) else None)
    caption = sentences(intro("cost-loss"), _machine(shown))
    legend = _legend(names) | {"the products by torch.mm": LIMIT}
    yield figure("cost-loss", panels, len(losses), caption, legend, 5.0, shown)


def exchange(inputs: Inputs) -> Iterator[Exhibit]:
    """Time of each exchange alone and of the whole loss with it, a row of panels for each setting."""
    columns = [f"{what}_seconds{end}" for what in ("exchange", "loss") for end in ("", "_least", "_most")]
    table = _table(inputs, "exchange", ("exchange", *PANELS_BY, "local_batch"), columns)
    table = table.dropna(subset=["exchange_seconds", "loss_seconds"])
    if table.empty:
        return
    table = table.assign(implementation="repro-" + table["exchange"])
    panels = []
    names = in_order(table["implementation"])
    for key, block in tables_of_panels(table):
        for what, label in (("exchange", "the exchange alone"), ("loss", "forward + backward")):
            seconds = {f"seconds{end}": block[f"{what}_seconds{end}"] for end in ("", "_least", "_most")}
            part = block.assign(**seconds)
            panels.append(panel(part, (label, key), draw.loss_cost, part, "seconds", order=names, label=label))
    caption = sentences(
        intro("cost-exchange"),
        _machine(table),
        "The paper's claim (section 3.3): permuting texts around the ring costs less than gathering all of them twice.",
    )
    yield figure("cost-exchange", panels, 2, caption, _legend(names), 5.0, table)


def tables_of_panels(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(place(dict(zip(PANELS_BY, key, strict=True))), part) for key, part in table.groupby(PANELS_BY, sort=True)]


def place(key: Mapping[str, object]) -> str:
    """'1 rank × 2 threads, d 512, fp32'."""
    ranks = f"{key['ranks']} rank" + "s" * (key["ranks"] > 1)
    threads = f" × {key['threads']} thread" + "s" * (key["threads"] > 1) if key["device"] == "cpu" else ""
    device = "" if key["device"] == "cpu" else f", {key['device']}"
    return f"{ranks}{threads}, d {key['dim']}, {key['dtype']}{device}"


def _legend(names: Sequence[str]) -> dict[str, Look]:
    return {name: {k: v for k, v in style.items() if k != "zorder"} for name, style in styles(names).items()}


def _table(inputs: Inputs, name: str, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """A table of repro bench with numbers in those columns; no rows where it, or a column, is not there."""
    table = inputs.bench.get(name, pd.DataFrame())
    table = table if {*texts, *numbers} <= set(table.columns) else pd.DataFrame(columns=[*texts, *numbers])
    return table.assign(**{column: pd.to_numeric(table[column], errors="coerce") for column in numbers})


def _machine(table: pd.DataFrame) -> str:
    names = [str(name) for name in table["machine"].dropna().unique()] if "machine" in table else []
    return f"Measured on {listed(names)}." if names else ""


def _memory(limit: float) -> str:
    """2,000,000,000 → 2 GB, as it was asked for; 32 · 2³⁰ → 32.0 GiB."""
    return f"{limit / 1e9:g} GB" if limit % 1e8 == 0 else format_bytes(limit)
