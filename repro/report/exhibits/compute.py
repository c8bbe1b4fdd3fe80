"""Accuracy against what training cost: floating-point operations, and hours of processors."""

import contextlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.estimate.counts import training_flops
from repro.models.sizes import ModelSize, known_size
from repro.report import tables
from repro.report.draw import pareto, pareto_front
from repro.report.draw.axes import title
from repro.report.exhibits.batch_size import dataset_title, panel_name
from repro.report.exhibits.exhibit import Exhibit, are_drawn, main_metric, sentences, stand_ins
from repro.report.figures import Draw, full_and_column, loss_looks
from repro.report.found import Found
from repro.report.style import INK

COUNTED = (
    *("setup", "model", "loss", "negatives", "batch_size", "micro_batch", "examples_seen", "token_bottleneck"),
    *("image_learning_rate_multiplier", "text_learning_rate_multiplier"),
)
"""Fields of a run that decide its floating-point operations."""


def compute(found: Found) -> Iterator[Exhibit]:
    """Accuracy against training FLOPs."""
    runs = _trained(found)
    flops = training_flops_of(runs)
    lacking = int(flops.isna().sum())
    text = sentences(
        "Each run's accuracy against the floating-point operations of its training, counted from towers, loss and "
        "length (forward and backward passes; a locked tower's embeddings, made once, are not counted).",
        f"{lacking} runs of models whose size is not known are left out." if lacking else "",
    )
    named = ("pareto-compute", "Accuracy against compute", "training_flops", "training compute (FLOPs)")
    yield from _pareto(found, runs.assign(training_flops=flops), *named, text)


def hours(found: Found) -> Iterator[Exhibit]:
    """Accuracy against hours of GPUs, or of cores."""
    runs = _trained(found)
    seconds = _column(runs, "step_seconds") * _column(runs, "steps")
    ranks = _column(runs, "ranks").fillna(1)
    on_gpu = runs["gpu"].fillna("").astype(str) != "" if "gpu" in runs else pd.Series(False, runs.index)
    cores = _column(runs, "threads").fillna(1)
    spent = seconds * ranks * np.where(on_gpu, 1, cores) / 3600
    for is_gpu, word in ((True, "GPU"), (False, "core")):
        part = runs[on_gpu == is_gpu]
        text = f"Each run's accuracy against the {word}-hours of its training, evaluation not counted"
        text += "." if is_gpu else ": on CPUs, hours times ranks times threads."
        named = (f"pareto-{word.lower()}-hours", f"Accuracy against {word}-hours", "hours", f"{word}-hours")
        yield from _pareto(found, part.assign(hours=spent[on_gpu == is_gpu]), *named, text)


def training_flops_of(runs: pd.DataFrame) -> pd.Series:
    """Of each run; NaN where its model's size is not known here, or a field that decides them is missing."""
    fields = [field for field in COUNTED if field in runs]
    if not {"setup", "model", "loss", "batch_size", "examples_seen"} <= set(fields):
        return pd.Series(math.nan, runs.index)
    ranks = _column(runs, "ranks").fillna(1).clip(lower=1)
    sizes = {name: _size(name) for name in runs["model"].dropna().astype(str).unique()}
    kinds = runs[fields].assign(ranks_=ranks)
    counted = kinds.drop_duplicates()
    counted = counted.assign(flops_=[_flops(row, sizes.get(str(row["model"]))) for row in counted.to_dict("records")])
    return kinds.merge(counted, how="left", on=[*fields, "ranks_"])["flops_"].set_axis(runs.index)


def _flops(row: Mapping[str, object], size: ModelSize | None) -> float:
    """By repro.estimate.counts, which asks of a spec these fields only: what is not there has its default."""
    given = {name: row[name] for name in COUNTED if name in row and not pd.isna(row[name])}
    if size is None or not {"batch_size", "examples_seen", "loss", "setup"} <= set(given):
        return math.nan
    whole = ("batch_size", "micro_batch", "examples_seen", "token_bottleneck")
    given |= {name: int(given[name]) for name in whole if name in given}
    given.setdefault("micro_batch", given["batch_size"])
    try:
        return float(training_flops(RunSpec.model_construct(**given), size, int(row["ranks_"])))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # a loss or a size that is none
        return math.nan


def _size(model: str) -> ModelSize | None:
    with contextlib.suppress(InputError, OSError, KeyError, TypeError, ValueError):  # a file that is no longer here
        return known_size(model)
    return None


def _pareto(
    found: Found, runs: pd.DataFrame, name: str, heading: str, cost: str, label: str, text: str
) -> Iterator[Exhibit]:
    """A panel for each setup and scale."""
    draws: list[Draw] = []
    drawn, shown = [], []
    done = tables.finished(runs)
    for key, part in tables.split(done, ["setup", "scale"]) if len(done) else ():
        metric = main_metric(part, found.metrics)
        if not metric:
            continue
        given = part[(_column(part, cost) > 0) & tables.numbers(part[metric]).notna()]
        if len(given) < 2:
            continue
        on_front = pareto_front(given, cost, metric)
        columns = ["run_id", "setup", "scale", "loss", "batch_size", "examples_seen"]
        kept = given if are_drawn(done) else given[on_front]
        numbers = {cost: kept[cost], "metric": metric, "percent": 100 * kept[metric], "on_front": on_front[kept.index]}
        drawn.append(kept[columns].assign(**numbers))
        shown.append((key, given))
        head = (panel_name(key), dataset_title(metric))
        draws.append(_panel(given, cost, metric, label, head, are_drawn(done)))
    if not draws:
        return
    ringed = {"marker": "o", "markerfacecolor": "none", "color": INK, "linewidth": 1, "markersize": 7}
    legend = loss_looks(*(part for _, part in shown)) | {"the front": ringed}
    legend = {name: {**style, "linestyle": "none"} if name != "the front" else style for name, style in legend.items()}
    full, column = full_and_column(draws, min(3, len(draws)), legend)
    caption = sentences(
        text,
        "Ringed runs are on the Pareto front: no other is as good for as little.",
        "Runs of all sweeps, those with corrupted data or fewer negatives among them.",
        "" if are_drawn(done) else "Runs off the front are too many to be drawn.",
        stand_ins(shown),
    )
    yield Exhibit(name, heading, caption, full, column, None, pd.concat(drawn, ignore_index=True))


def _panel(part: pd.DataFrame, cost: str, metric: str, label: str, heads: tuple[str, str], singles: bool) -> Draw:
    def draw(axes: Axes) -> None:
        pareto(part, cost, metric, axes, label, singles)
        title(axes, *heads)

    return draw


def _trained(found: Found) -> pd.DataFrame:
    return tables.placed(found.ours[found.ours["setup"] != "released"]).copy()


def _column(runs: pd.DataFrame, name: str) -> pd.Series:
    return tables.numbers(runs[name]) if name in runs else pd.Series(math.nan, runs.index)
