"""Along training: figure 4 (fine-tuning), figure 5 (β2), other curves. Robustness: figure 6 (negatives), 7 (noise)."""

from collections.abc import Iterator, Sequence

import pandas as pd

from repro.config.spec import CORRUPTIONS, RunSpec
from repro.report.draw import (
    ALL_STYLE,
    accuracy_along_training,
    by_noise,
    by_ratio,
    kind_styles,
    training_curves,
    with_ratios,
)
from repro.report.draw.axes import looks, metric_label
from repro.report.exhibits import exhibit as ex
from repro.report.exhibits.exhibit import Exhibit, Study
from repro.report.figures import Panel, loss_looks, panel, share_heights
from repro.report.inputs import Inputs, stem
from repro.results import tables

POINT = "examples_seen_at"
CURVES = ("training_loss", "gradient_norm", "update_norm")
LOGITS = {
    "final_logit_bias": ("final bias", "b"),
    "final_positive_logit": ("mean logit of positives", "logit"),
    "final_negative_logit": ("mean logit of negatives", "logit"),
}
CORRUPTED = {
    "image": "image: uniform noise",
    "text": "text: random tokens",
    "batch": "batch: shuffled pairs",
    "image-text": "image and text",
    "image-text-batch": "image, text and batch",
}


def figure_4(inputs: Inputs) -> Iterator[Exhibit]:
    """0-shot and few-shot accuracy along training: with decay on the pretrained weights, without, from scratch."""
    study = Study(inputs, "figure 4")
    runs = _of_sweeps(inputs.evaluations, inputs.sweeps_of("figure 4"))
    if runs.empty or POINT not in runs:
        return
    runs = runs.assign(**{POINT: tables.numbers(runs[POINT])}).dropna(subset=[POINT])
    runs = runs.assign(case=[_case(row) for row in runs.to_dict("records")], scale=runs.get("scale", ""))
    metrics = [m for m in tables.metric_columns(runs) if m.endswith("acc1") and runs[m].notna().any()]
    metrics = sorted(metrics, key=lambda metric: ("shot" in metric, metric))
    panels = []
    for scale, part in runs.groupby("scale"):
        for metric in metrics:
            name = metric.rpartition("/")[2]
            head = "0-shot" if name == "acc1" else f"{name.partition('_')[0].replace('shot', '-shot')} linear probe"
            heads = (head, f"{ex.dataset_title(metric)}, {scale} scale")
            data = ex.tidy(part, [metric], ("scale",), ("case", POINT))
            panels.append(panel(data, heads, accuracy_along_training, part, metric))
    if not panels:
        return
    points = ex.points(runs, metrics[0], (), ("case", POINT))
    legend = looks(dict.fromkeys(runs["case"]))
    yield ex.figure("figure-4", panels, 2, study.caption(points, published=False), legend)


def _case(row: dict[str, object]) -> str:
    """The cases of figure 4."""
    decay = row.get("image_weight_decay")
    if row.get("setup") != "finetune":
        return "from scratch"
    if decay is None or decay != decay:
        return "pretrained, decay on all weights"
    return "pretrained, no decay on it" if decay == 0 else f"pretrained, decay {decay:g} on it"


def figure_5(inputs: Inputs) -> Iterator[Exhibit]:
    """Loss, norm of the gradient and of the update along training, by β2: a row of panels for each learning rate."""
    curves = _of_sweeps(inputs.curves, inputs.sweeps_of("figure 5"))
    rows = _in_words(column for column in _settings(curves) if column != "beta2")
    rows = f", a row for each {rows}" if rows else ""
    caption = Study(inputs, "figure 5").caption(rows=rows, value="final_loss", published=False)
    yield from _curves("figure-5", curves, ["beta2"], caption)


def curves_by_sweep(inputs: Inputs) -> Iterator[Exhibit]:
    """Curves of any other sweep that names columns of its logs."""
    shown = inputs.sweeps_of("figure 5")
    for sweep, table in inputs.curves.groupby("sweep", sort=True) if "sweep" in inputs.curves else ():
        settings = _settings(table)
        by = [column for column in settings if column != "scale"][:1] or ["seed"]
        rows = _in_words(column for column in settings if column not in by)
        caption = f"Sweep {sweep}: columns of the logs along training." + f" A row for each {rows}." * bool(rows)
        if sweep not in shown:
            yield from _curves(f"figure-curves-{stem(sweep)}", table, by, caption, f"{sweep}: along training")


def _curves(name: str, table: pd.DataFrame, by: Sequence[str], caption: str, title: str = "") -> Iterator[Exhibit]:
    """Panels of each curve for each setting beside `by`; none where the table is empty."""
    if table.empty or not {POINT, "run_id", *by} <= set(table.columns):
        return
    table = table.assign(**{POINT: tables.numbers(table[POINT])})
    known = {*RunSpec.model_fields, "run_id", "sweep", POINT, *CURVES}
    columns = [c for c in (*CURVES, *(c for c in table.columns if c not in known)) if c in table]
    columns = [c for c in columns if tables.numbers(table[c]).notna().any()]
    if not columns:
        return
    rows = [column for column in _settings(table) if column not in by]
    data = table[["run_id", *by, *rows, *(["seed"] if "seed" in table and "seed" not in by else [])]]
    data = pd.concat([data, table[[POINT]], table[columns].apply(tables.numbers)], axis=1)
    panels = []
    for key, part in tables.split(table, rows):
        for column in columns:
            heads = (column.replace("_", " "), tables.series_label(key))
            panels.append(panel(data, heads, training_curves, part, column, by, log=column != "training_loss"))
    legend = looks([tables.series_label(key) for key, _ in tables.split(table, by)])
    legend = {name: {k: v for k, v in style.items() if k != "marker"} for name, style in legend.items()}
    yield ex.figure(name, panels, 3, caption, legend, 4.6, data, title)


def _in_words(columns: Sequence[str]) -> str:
    return ex.listed([column.replace("_", " ") for column in columns])


def _settings(table: pd.DataFrame) -> list[str]:
    """Fields of the runs that differ, but the seed."""
    fields = [column for column in table.columns if column in RunSpec.model_fields]
    return [c for c in fields if c != "seed" and table[c].nunique(dropna=False) > 1]


def _of_sweeps(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    return table[table["sweep"].isin(names)] if "sweep" in table else table[:0]


def figure_6(inputs: Inputs) -> Iterator[Exhibit]:
    """Accuracy, final bias and mean logits against the ratio of negatives to positives, by which negatives are kept."""
    study = Study(inputs, "figure 6")
    if not study.is_finished:
        return
    runs = with_ratios(study.runs)
    panels = []
    for scale, part in ex.by_scale(runs):
        values = {value: (1, label, (name, f"{scale} scale")) for value, (name, label) in LOGITS.items()}
        if metric := ex.main_metric(part, inputs.metrics):
            heads = ("accuracy", f"{ex.dataset_title(metric)}, {scale} scale")
            values = {metric: (100, metric_label(metric), heads)} | values
        for value, (factor, label, heads) in values.items():
            if tables.column(tables.finished(part), value).isna().all():
                continue
            options = {"factor": factor, "label": label, "singles": ex.are_drawn(part, 4)}
            within = (("scale",), ("kind", "ratio"))
            percent = value == metric
            data = ex.tidy(part, [value], *within) if percent else tables.summarise(part, value, *within)
            panels.append(panel(data.assign(metric=value), heads, by_ratio, part, value, **options))
    if not panels:
        return
    points = ex.points(runs, study.metric, (), ("kind", "ratio"))
    legend = {"all negatives": ALL_STYLE} | kind_styles(runs)
    yield ex.figure("figure-6", panels, 2, study.caption(points, published=False), legend, 4.8)


def figure_7(inputs: Inputs) -> Iterator[Exhibit]:
    """Accuracy against the probability of corruption: a panel for each kind, both losses."""
    study = Study(inputs, "figure 7")
    runs, metric = study.runs, study.metric
    kinds = [kind for kind in CORRUPTIONS[1:] if (runs["corruption"] == kind).any()]
    if not metric or not kinds:
        return
    panels: list[Panel | None] = []
    drawn = []
    within = ("loss", "corruption", "corruption_probability")
    for scale, part in ex.by_scale(runs):
        by = tables.series_columns(part, within=within)
        drawn.append(ex.tidy(part, [metric], by, ("scale", *within)))
        for kind in kinds:
            heads = (CORRUPTED.get(kind, kind), f"{ex.dataset_title(metric)}, {scale} scale")
            singles = ex.are_drawn(part, 2)
            panels.append(panel(drawn[-1], heads, by_noise, part, metric, kind, by=by, singles=singles))
        panels += [None] * (-len(panels) % 3)
    caption = study.caption(ex.points(runs, metric, (), within), published=False)
    data = pd.concat(drawn, ignore_index=True)
    made = ex.figure("figure-7", panels, 3, caption, loss_looks(runs), 4.6, data)
    for each in (made.figure, made.column):
        share_heights(each, len(each.axes))
    yield made
