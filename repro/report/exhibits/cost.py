"""What runs cost against the batch size: speed, where a step's time goes, the loss's share of it, memory."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from repro.report import tables
from repro.report.draw import by_batch_size, step_time
from repro.report.draw.axes import title
from repro.report.draw.costs import PARTS, parts_of, step_parts
from repro.report.exhibits.batch_size import MOST_SERIES, panel_name, varies
from repro.report.exhibits.exhibit import Exhibit, are_drawn, points, sentences, unfinished, whose
from repro.report.figures import Draw, full_and_column, loss_looks, memory_unit
from repro.report.found import Found
from repro.report.style import PAPER

SPLITS = (*tables.MACHINE, "ranks")
"""What tells costs apart beside all that tells accuracies apart."""
LOSS_PARTS = ("loss_seconds", "exchange_seconds")


def measured(found: Found) -> pd.DataFrame:
    """Our runs of sweeps whose batch size varies, and in few enough series to be drawn; of all where there is none."""
    chosen = []
    for _, runs in found.ours[found.ours["setup"] != "released"].groupby("sweep"):
        placed = tables.placed(runs)
        series = tables.series_columns(placed) if len(placed) else []
        if len(placed) and varies(placed) and (not series or len(placed.drop_duplicates(series)) <= MOST_SERIES):
            chosen.append(placed)
    return pd.concat(chosen) if chosen else tables.placed(found.ours[found.ours["setup"] != "released"])


def throughput(found: Found) -> Iterator[Exhibit]:
    runs = measured(found)
    text = "Training speed in examples per second, evaluation not counted."
    yield from _against_batch_size(runs, "cost-throughput", "Throughput", "examples_per_second", 1, "examples/s", text)


def memory(found: Found) -> Iterator[Exhibit]:
    runs = measured(found)
    unit, size = memory_unit(runs)
    text = "The most memory that a rank held; on CPUs of its process, with the data's cache, on GPUs of the device."
    label = f"peak memory ({unit})"
    yield from _against_batch_size(runs, "cost-memory", "Peak memory", "peak_memory_bytes", 1 / size, label, text)


def loss_share(found: Found) -> Iterator[Exhibit]:
    """The share of a step that the loss and its exchange take."""
    runs = measured(found)
    parts = [part for part in LOSS_PARTS if part in parts_of(runs)]
    if not parts or "step_seconds" not in runs:
        return
    seconds = sum(tables.numbers(runs[part]).fillna(0) for part in parts)
    known = pd.concat([tables.numbers(runs[part]) for part in parts], axis=1).notna().any(axis=1)
    share = (seconds / tables.numbers(runs["step_seconds"])).where(known)
    text = "The share of a step's time that goes to the loss, the exchange between ranks counted to it."
    named = ("cost-loss-share", "The loss's share of a step", "loss_share", 100, "share of the step (%)")
    yield from _against_batch_size(runs.assign(loss_share=share), *named, text)


def _against_batch_size(
    runs: pd.DataFrame, name: str, heading: str, value: str, factor: float, label: str, text: str
) -> Iterator[Exhibit]:
    """A panel for each setup and scale, a line for each loss and series; nothing where no run has the value."""
    done = tables.finished(runs)
    if value not in done or tables.numbers(done[value]).dropna().empty:
        return
    draws, drawn = [], []
    for key, part in tables.split(tables.placed(runs), ["setup", "scale"]):
        if tables.numbers(tables.finished(part)[value]).dropna().empty:
            continue
        by = tables.series_columns(part, SPLITS)
        draws.append(_panel(part, value, factor, label, by, panel_name(key), are_drawn(runs)))
        found = tables.summarise(part, value, ["setup", "scale", *(c for c in by if c not in key)])
        scaled = {column: factor * found[column] for column in ("mean", "std", "low", "high")}
        drawn.append(found.assign(what=label, **scaled))
    full, column = full_and_column(draws, min(3, len(draws)), loss_looks(runs), row_cm=4.8)
    placed = tables.placed(runs)
    caption = sentences(
        text,
        whose(placed),
        f"Machine: {', '.join(str(each) for each in tables.values_of(placed, 'machine'))}."
        if "machine" in placed
        else "",
        points(placed, value, tables.series_columns(placed, SPLITS)),
        unfinished(placed, value),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit(name, f"{heading} against batch size", caption, full, column, None, data)


def step_split(found: Found) -> Iterator[Exhibit]:
    """Where the time of a step goes: a bar for each batch size and loss, a panel for each series."""
    runs = measured(found)
    parts = parts_of(runs)
    if not parts:
        return
    draws: list[Draw] = []
    drawn = []
    for place, of_place in tables.split(tables.placed(runs), ["setup", "scale"]):
        for key, part in tables.split(of_place, tables.series_columns(of_place, SPLITS)):
            means = step_parts(part) if parts_of(part) else pd.DataFrame()
            if len(means) and len(draws) < MOST_SERIES:
                draws.append(_bars(part, (panel_name(place), tables.series_label(key))))
                drawn.append(means.assign(**place, **key))
    full, column = full_and_column(draws, min(3, len(draws)), None, row_cm=5.2)
    for figure in (full, column):
        _parts_legend(figure, parts)
    caption = sentences(
        "Mean seconds of a training step by what they went to; at each batch size sigmoid at the left and softmax at "
        "the right, marked above. Exchange is what ranks wait for each other's embeddings; "
        "evaluation and checkpoints are not counted. Seeds are averaged.",
        whose(runs),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("cost-step-time", "Where a step's time goes", caption, full, column, None, data)


def _panel(part: pd.DataFrame, value: str, factor: float, label: str, by: list[str], head: str, singles: bool) -> Draw:
    def draw(axes: Axes) -> None:
        by_batch_size(part, value, factor, label, axes, by, singles, from_zero=True)
        title(axes, head)

    return draw


def _bars(part: pd.DataFrame, heads: tuple[str, str]) -> Draw:
    def draw(axes: Axes) -> None:
        step_time(part, axes)
        title(axes, *filter(None, heads))

    return draw


def _parts_legend(figure: Figure, parts: list[str]) -> None:
    handles = [Patch(facecolor=c, hatch=h, edgecolor=PAPER, label=name) for name, c, h in (PARTS[p] for p in parts)]
    columns = len(handles) if figure.get_figwidth() > 5 else 2
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)
