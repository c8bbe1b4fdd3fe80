"""Cost of runs: speed, step time, the loss's share and memory by batch size; accuracy by compute and hours."""

import functools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.estimate.counts import training_flops
from repro.models.sizes import known_size
from repro.report.draw import STEP_PARTS, by_batch_size, pareto, pareto_front, parts_of, step_parts, step_time
from repro.report.draw.axes import INK, PAPER
from repro.report.exhibits import exhibit as ex
from repro.report.exhibits.batch_size import MOST_SERIES
from repro.report.exhibits.exhibit import Exhibit
from repro.report.figures import Panel, loss_looks, panel
from repro.report.inputs import Inputs
from repro.results import tables

SPLITS = (*tables.MACHINE, "ranks")
"""Columns that tell costs apart, beside all that tell accuracies apart."""
LOSS_PARTS = ("loss_seconds", "exchange_seconds")
COUNTED = (
    *("setup", "model", "loss", "negatives", "batch_size", "micro_batch", "examples_seen", "token_bottleneck"),
    *("image_learning_rate_multiplier", "text_learning_rate_multiplier"),
)
"""Fields of a run that decide its floating-point operations."""
WHOLE = ("batch_size", "micro_batch", "examples_seen", "token_bottleneck")


def _trained(inputs: Inputs) -> pd.DataFrame:
    return tables.placed(inputs.ours[inputs.ours["setup"] != "released"])


def _measured(inputs: Inputs) -> pd.DataFrame:
    """Our runs of sweeps whose batch size varies, and in few enough series to be drawn; of all where there is none."""
    chosen = []
    for _, runs in _trained(inputs).groupby("sweep"):
        series = tables.series_columns(runs)
        parts = [part for _, part in tables.split(runs, series)]
        if max(part["batch_size"].nunique() for part in parts) > 1 and len(parts) <= MOST_SERIES:
            chosen.append(runs)
    return pd.concat(chosen) if chosen else _trained(inputs)


def throughput(inputs: Inputs) -> Iterator[Exhibit]:
    yield from _against_batch_size(_measured(inputs), "cost-throughput", "examples_per_second", 1, "examples/s")


def memory(inputs: Inputs) -> Iterator[Exhibit]:
    runs = _measured(inputs)
    unit, size = memory_unit(runs)
    yield from _against_batch_size(runs, "cost-memory", "peak_memory_bytes", 1 / size, f"peak memory ({unit})")


def memory_unit(table: pd.DataFrame) -> tuple[str, int]:
    largest = tables.column(tables.finished(table), "peak_memory_bytes").max()
    return ("GiB", 2**30) if largest >= 4 * 2**30 else ("MiB", 2**20)


def loss_share(inputs: Inputs) -> Iterator[Exhibit]:
    """The share of a step that the loss and its exchange take."""
    runs = _measured(inputs)
    parts = [part for part in LOSS_PARTS if part in parts_of(runs)]
    if not parts:
        return
    seconds = runs[parts].apply(tables.numbers)
    share = seconds.sum(axis=1, min_count=1) / tables.column(runs, "step_seconds")
    runs = runs.assign(loss_share=share)
    yield from _against_batch_size(runs, "cost-loss-share", "loss_share", 100, "share of the step (%)")


def _against_batch_size(runs: pd.DataFrame, name: str, value: str, factor: float, label: str) -> Iterator[Exhibit]:
    """A panel for each setup and scale, a line for each loss and series; nothing where no run has the value."""
    panels = []
    for key, part in tables.split(runs, ["setup", "scale"]):
        if tables.column(tables.finished(part), value).isna().all():
            continue
        by = tables.series_columns(part, SPLITS)
        options = {"by": by, "singles": ex.are_drawn(runs), "from_zero": True}
        means = tables.summarise(part, value, ["setup", "scale", *(c for c in by if c not in key)])
        scaled = {column: factor * means[column] for column in ("mean", "std", "low", "high")}
        data = means.assign(what=label, **scaled)
        panels.append(panel(data, [ex.panel_name(key)], by_batch_size, part, value, factor, label, **options))
    if not panels:
        return
    machines = ", ".join(map(str, tables.values_of(runs, "machine")))
    caption = ex.sentences(
        ex.intro(name),
        ex.described(runs),
        f"Machine: {machines}." if machines else "",
        ex.points(runs, value, tables.series_columns(runs, SPLITS)),
        ex.unfinished(runs, value),
    )
    yield ex.figure(name, panels, min(3, len(panels)), caption, loss_looks(runs), row_cm=4.8)


def step_split(inputs: Inputs) -> Iterator[Exhibit]:
    """Parts of a step's time: a bar for each batch size and loss, a panel for each series."""
    runs = _measured(inputs)
    panels: list[Panel] = []
    for place, same_place in tables.split(runs, ["setup", "scale"]):
        for key, part in tables.split(same_place, tables.series_columns(same_place, SPLITS)):
            means = step_parts(part) if parts_of(part) else pd.DataFrame()
            if len(means) and len(panels) < MOST_SERIES:
                heads = (ex.panel_name(place), tables.series_label(key))
                panels.append(panel(means.assign(**place, **key), heads, step_time, part))
    if not panels:
        return
    caption = ex.sentences(ex.intro("cost-step-time"), ex.described(runs))
    made = ex.figure("cost-step-time", panels, min(3, len(panels)), caption, row_cm=5.2)
    parts = [STEP_PARTS[part] for part in parts_of(runs)]
    handles = [Patch(facecolor=c, hatch=h, edgecolor=PAPER, label=name) for name, c, h in parts]
    for each, columns in ((made.figure, len(handles) if made.figure.get_figwidth() > 5 else 2), (made.column, 2)):
        each.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)
    yield made


def compute(inputs: Inputs) -> Iterator[Exhibit]:
    """Accuracy against training FLOPs."""
    runs = _trained(inputs)
    flops = training_flops_of(runs)
    lacking = int(flops.isna().sum())
    text = f"{lacking} runs of models whose size is not known are left out." if lacking else ""
    named = ("pareto-compute", "training_flops", "training compute (FLOPs)")
    yield from _pareto(inputs, runs.assign(training_flops=flops), *named, text)


def hours(inputs: Inputs) -> Iterator[Exhibit]:
    """Accuracy against hours of GPUs, or of cores."""
    runs = _trained(inputs)
    on_gpu = runs["gpu"].fillna("").astype(str) != ""
    ranks, cores = runs["ranks"].fillna(1), runs["threads"].fillna(1)
    seconds = tables.numbers(runs["step_seconds"]) * runs["steps"]
    runs = runs.assign(hours=seconds * ranks * np.where(on_gpu, 1, cores) / 3600)
    for is_gpu, word in ((True, "GPU"), (False, "core")):
        named = (f"pareto-{word.lower()}-hours", "hours", f"{word}-hours")
        yield from _pareto(inputs, runs[on_gpu == is_gpu], *named)


def training_flops_of(runs: pd.DataFrame) -> pd.Series:
    """FLOPs of each run; NaN where its model's size is not known here, or a field that decides them is missing."""
    return runs.apply(_flops, axis=1) if len(runs) else pd.Series(dtype=float)


def _flops(run: pd.Series) -> float:
    """Ask repro.estimate.counts, which reads these fields of a spec only: absent ones have their defaults."""
    given = run[list(COUNTED)].dropna().to_dict()
    given |= {name: int(given[name]) for name in WHOLE if name in given}
    given = {"micro_batch": given.get("batch_size"), **given}
    ranks = 1 if pd.isna(run["ranks"]) else max(1, int(run["ranks"]))
    try:
        return float(training_flops(RunSpec.model_construct(**given), _size(str(run["model"])), ranks))
    except (AttributeError, InputError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan  # a field that is missing, an unknown loss or model, a size of 0


_size = functools.cache(known_size)


def _pareto(inputs: Inputs, runs: pd.DataFrame, name: str, cost: str, label: str, text: str = "") -> Iterator[Exhibit]:
    """A panel for each setup and scale."""
    panels, shown = [], []
    done = tables.finished(runs)
    for key, part in tables.split(done, ["setup", "scale"]) if len(done) else ():
        metric = ex.main_metric(part, inputs.metrics)
        given = part[(tables.column(part, cost) > 0) & tables.column(part, metric).notna()]
        if len(given) < 2:
            continue
        on_front = pareto_front(given, cost, metric)
        kept = given if ex.are_drawn(done) else given[on_front]
        numbers = {cost: kept[cost], "metric": metric, "percent": 100 * kept[metric], "on_front": on_front[kept.index]}
        data = kept[["run_id", "setup", "scale", "loss", "batch_size", "examples_seen"]].assign(**numbers)
        shown.append((key, given))
        heads = (ex.panel_name(key), ex.dataset_title(metric))
        panels.append(panel(data, heads, pareto, given, cost, metric, label=label, singles=ex.are_drawn(done)))
    if not panels:
        return
    legend = {loss: {**style, "linestyle": "none"} for loss, style in loss_looks(*(part for _, part in shown)).items()}
    legend["the front"] = {"marker": "o", "markerfacecolor": "none", "color": INK, "linewidth": 1, "markersize": 7}
    caption = ex.sentences(
        ex.intro(name),
        text,
        "Ringed runs are on the Pareto front: no other is as good for as little.",
        "Runs of all sweeps, those with corrupted data or fewer negatives among them.",
        "" if ex.are_drawn(done) else "Runs off the front are too many to be drawn.",
        ex.stand_ins([key for key, _ in shown]),
    )
    yield ex.figure(name, panels, min(3, len(panels)), caption, legend)
