"""Tables of settings: 1 (few chips), 3 (public weights), 4 (bias), 6 (rates), 7 (seeds), section 4.3 (vocabulary).

Each row is a setting; its runs differ in their seed only. Ours and the paper's stand side by side, or the paper's
after ours where its settings are others.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from repro.config.units import format_batch_size, format_seconds
from repro.report.exhibits.exhibit import Exhibit, Study, cell, crossed, dataset_title, metric_head, percent, tidy
from repro.report.inputs import Inputs
from repro.results import tables

IMAGENET = "imagenet1k/acc1"
PUBLIC_METRICS = {
    "imagenet1k/acc1": "ImageNet",
    "imagenetv2/acc1": "v2",
    "imagenet-real/acc1": "ReaL",
    "objectnet/acc1": "ObjectNet",
    "mscoco_captions/text_retrieval_recall@1": "COCO text R@1",
    "mscoco_captions/image_retrieval_recall@1": "COCO image R@1",
}
FAMILIES = {"openai": "CLIP", "laion": "OpenCLIP", "clipa": "CLIPA-v2", "eva": "EVA-CLIP", "siglip": "SigLIP"}
"""Parts of open_clip's names of models and weights, of which the later wins: the paper's names."""
SIDE = 224
"""Side of images, where a model's name says nothing."""


def table_1(inputs: Inputs) -> Iterator[Exhibit]:
    """Accuracy within reach of a few chips in a few days, beside the time that ours took."""
    study = Study(inputs, "table 1")
    if not study.metric:
        return
    heads = ("whose", "setup", "image tower", "text tower", "batch size", "ranks or chips", "time")
    heads += ("0-shot accuracy (%)", "weight decay on image tower")
    settings = ["setup", "scale", "model", "pretrained", "batch_size", "examples_seen", "image_weight_decay"]
    rows: list[tuple[str, ...]] = []
    for key, runs in tables.split(tables.placed(study.runs), settings):
        done = tables.finished(runs)
        seconds = (tables.numbers(done["step_seconds"]) * done["steps"]).mean()
        decay = _text(key["image_weight_decay"], "{:g}") or "as on all"
        rows.append(
            (
                *(_ours(key), key["setup"], _text(key["pretrained"]) or _text(key["model"]), _text(key["model"])),
                format_batch_size(int(key["batch_size"])),
                ", ".join(f"{count:g}" for count in tables.values_of(done, "ranks")),
                format_seconds(seconds) if seconds == seconds else "",
                cell(runs, study.metric),
                decay if key["setup"] == "finetune" else "",
            )
        )
    for row in inputs.paper_table("table-1").to_dict("records"):
        size, days = format_batch_size(int(row["batch_size"])), f"{row['days']:g} day{'s' * (row['days'] != 1)}"
        towers = (_text(row["image_tower"]), _text(row["text_tower"]))
        rows.append(("paper", row["setup"], *towers, size, f"{row['chips']:g} TPUv4", days, percent(row[IMAGENET]), ""))
    frame = pd.DataFrame(rows, columns=list(heads))
    frame = frame.loc[:, frame.any()] if not frame[heads[-1]].any() else frame
    by = [column for column in settings if column != "batch_size"]
    data = tidy(study.runs, [study.metric], by, ("loss", "batch_size"))
    yield study.table(frame, data, dataset=dataset_title(study.metric))


def table_3(inputs: Inputs) -> Iterator[Exhibit]:
    """Public weights, evaluated by us: a row for each of the paper's models, and one for each other of ours."""
    study = Study(inputs, "table 3")
    if not study.is_finished:
        return
    imported = inputs.imported[inputs.imported["setup"] == "released"]
    given = pd.concat([study.runs, imported]) if len(imported) else study.runs
    own = {metric: metric_head(metric, tables.metric_title(metric)[0]) for metric in study.metrics}
    heads = PUBLIC_METRICS | {metric: head for metric, head in own.items() if metric not in PUBLIC_METRICS}
    identities = given.apply(lambda row: identity(str(row["model"]), str(row["pretrained"])), axis=1)

    def row_of(runs: pd.DataFrame, *model: str) -> dict[tuple[str, str], str]:
        cells = {("ours", head): cell(runs, metric) for metric, head in heads.items() if len(runs) and metric in runs}
        return dict(zip((("", "model"), ("", "image tower"), ("", "patches")), model, strict=False)) | cells

    rows, known = [], set()
    paper = inputs.paper_table("table-3")
    for row in paper.to_dict("records"):
        known.add(own_identity := (str(row["model"]), str(row["image_tower"]).split()[0], int(row["patches"])))
        same = given[[each == own_identity for each in identities]]
        rows.append(row_of(same, row["model"], row["image_tower"], f"{row['patches']:g}"))
        rows[-1] |= {("paper", head): percent(row[m]) for m, head in PUBLIC_METRICS.items() if m in row}
    others = given[[each not in known for each in identities]]
    for (model, weights), runs in others.groupby(["model", "pretrained"], dropna=False):
        rows.append(row_of(runs, _text(weights), _text(model)))
    frame = pd.DataFrame(rows).fillna("")
    order = [("", "model"), ("", "image tower"), ("", "patches")]
    order += [(source, heads[m]) for source, each in (("ours", heads), ("paper", PUBLIC_METRICS)) for m in each]
    frame = frame[[column for column in order if column in frame and (frame[column] != "").any()]]
    frame.columns = pd.MultiIndex.from_tuples(list(frame.columns))
    ours = tidy(given, [metric for metric in heads if metric in given], ("origin", "model", "pretrained"), ("loss",))
    papers = tidy(paper, list(PUBLIC_METRICS), ("origin", "model", "image_tower", "patches"), ("loss",))
    data = pd.concat([ours, papers]).reset_index(drop=True)
    yield study.table(frame, data)


def identity(model: str, pretrained: str) -> tuple[str, str, int] | None:
    """ViT-B-16-SigLIP-384, webli → ('SigLIP', 'B', 576): family, size of the image tower, patches; None if unknown."""
    words = f"{pretrained} {model}".lower()
    family = next((name for word, name in reversed(FAMILIES.items()) if word in words), None)
    tower = re.match(r"(?:ViT|EVA02)-(SO400M|bigG|[BLHE])-(\d+)", model)
    if family is None or tower is None:
        return None
    size = {"SO400M": "SO", "bigG": "G"}.get(tower[1], tower[1])
    side = re.search(r"-(\d{3})$", model.removesuffix("-quickgelu").removesuffix("-plus"))
    return family, size, (int(side[1] if side else SIDE) // int(tower[2])) ** 2


def table_4(inputs: Inputs) -> Iterator[Exhibit]:
    """Starts of b and t' down; ours and the paper's data sets across."""
    study = Study(inputs, "table 4")
    ours, metrics, starts = study.runs, study.metrics, ("init_logit_bias", "init_logit_scale")
    if not metrics:
        return
    prior = -(tables.numbers(ours["batch_size"]) - 1).map(lambda rest: math.log(rest) if rest > 0 else math.nan)
    bias = tables.numbers(ours["init_logit_bias"])
    names = ["prior" if at else _bias(value) for at, value in zip((bias - prior).abs() < 1e-6, bias, strict=True)]
    ours = ours.assign(b=names, t=[_scale(value) for value in tables.numbers(ours["init_logit_scale"])])
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    apart = tables.series_columns(ours, within=("b", "t", "loss"))
    by = ["scale", *(c for c in apart if c not in (*starts, "scale"))]
    for key, part in tables.split(tables.placed(ours), by):
        for metric in metrics:
            settings = part.groupby(["b", "t"])
            cells[_ours(key, by), metric_head(metric)] = {start: cell(runs, metric) for start, runs in settings}
    paper = inputs.paper_table("table-4")
    for metric in tables.metric_columns(paper):
        cells["paper", metric_head(metric)] = {
            (_bias(row["init_bias"]), str(row["init_log_temperature"])): percent(row[metric])
            for row in paper.to_dict("records")
        }
    order = {"none": 0, "−10": 1, "0": 2}
    rows = {start for texts in cells.values() for start in texts}
    rows = sorted(rows, key=lambda start: (order.get(start[0], 3), start[0], -len(start[1]), start[1]))
    frame = crossed(cells, "start", rows, lambda start: f"b {start[0]}, t′ {start[1]}")
    data = tidy(ours, metrics, by, ("b", "t", "loss"))
    yield study.table(frame, data, "± is the standard deviation over seeds.")


def table_6(inputs: Inputs) -> Iterator[Exhibit]:
    """Learning rate × weight decay down, batch sizes across, the best of each batch size marked."""
    grid = ["learning_rate", "weight_decay"]
    study = Study(inputs, "table 6")
    ours, metric = study.runs, study.metric
    if not metric:
        return
    cells: dict[tuple[str, str], dict[tuple[float, float], str]] = {}
    by = list(dict.fromkeys(["scale", *tables.series_columns(ours, within=(*grid, "loss", "batch_size"))]))
    for key, part in tables.split(tables.placed(ours), [*by, "batch_size"]):
        size = format_batch_size(int(key.pop("batch_size")))
        means = tables.summarise(part, metric, (), grid).set_index(grid)["mean"]
        best = means.idxmax() if len(means) else None
        cells[_ours(key, by), size] = {
            setting: cell(runs, metric) + (" (best)" if setting == best else "") for setting, runs in part.groupby(grid)
        }
    for row in inputs.paper_table("table-6").to_dict("records"):
        texts = cells.setdefault(("paper, 3B", format_batch_size(int(row["batch_size"]))), {})
        setting = (row["learning_rate"], row["weight_decay"])
        best = "best" in str(row.get("note")) or "(best)" in texts.get(setting, "")
        texts[setting] = percent(row[IMAGENET]) + (" (best)" if best else "")
    frame = crossed(cells, "learning rate, weight decay", write=lambda setting: f"{setting[0]:g}, {setting[1]:g}")
    data = tidy(ours, [metric], by, ("loss", "batch_size", *grid))
    yield study.table(frame, data)


def table_7(inputs: Inputs) -> Iterator[Exhibit]:
    """Loss, optimizer and schedule down: mean ± std over seeds, and how many they are."""
    study = Study(inputs, "table 7")
    if not study.metrics:
        return
    settings = ["scale", "loss", "optimizer", "schedule", "learning_rate", "weight_decay"]

    def words(key: Mapping[str, object]) -> dict[str, str]:
        names = {name: _text(key[name]) for name in ("loss", "optimizer", "schedule")}
        return names | {"learning rate": _text(key["learning_rate"], "{:g}")}

    rows, data = _rows_of_settings(study, settings, words)
    for row in inputs.paper_table("table-7").to_dict("records"):
        seeds = int(row["published_seeds"] or 1)
        number = percent(row[IMAGENET], row["published_std"], seeds)
        optimizer = str(row["optimizer"]).removeprefix("vit-")
        setting = {"whose": "paper", "loss": row["loss"], "optimizer": optimizer, "schedule": "cosine"}
        rows.append({**setting, "ImageNet accuracy": number, "seeds": str(seeds)})
    frame = pd.DataFrame(rows).fillna("")
    frame = frame[[column for column in frame if column != "seeds"] + ["seeds"]]
    yield study.table(frame, data)


def vocabulary(inputs: Inputs) -> Iterator[Exhibit]:
    """Vocabulary and columns of the bottleneck down (section 4.3)."""
    study = Study(inputs, "section 4.3", name="vocabulary")
    if not study.metrics:
        return

    def words(key: Mapping[str, object]) -> dict[str, str]:
        embedding = _text(key["token_bottleneck"], "bottleneck of {:g} columns") or "whole table"
        return {"text tower": _text(key["model"]), "token embedding": embedding}

    rows, data = _rows_of_settings(study, ["scale", "model", "token_bottleneck", "loss"], words)
    frame = pd.DataFrame(rows).drop(columns="seeds")
    yield study.table(frame, data)


def _rows_of_settings(study: Study, settings: Sequence[str], words: Callable) -> tuple[list[dict], pd.DataFrame]:
    """A row for each setting: its words, what else tells it apart, its metrics and seeds; and data."""
    ours, metrics = study.runs, study.metrics
    apart = [c for c in tables.series_columns(ours) if c not in settings]
    rows = [
        {
            "whose": _ours(key),
            **words(key),
            **({"also": tables.series_label({c: key[c] for c in apart})} if apart else {}),
            **{metric_head(metric): cell(runs, metric) for metric in metrics},
            "seeds": str(runs["seed"].nunique()),
        }
        for key, runs in tables.split(tables.placed(ours), [*settings, *apart])
    ]
    by = [column for column in [*settings, *apart] if column != "loss"]
    return rows, tidy(ours, metrics, by, ("loss", "batch_size"))


def _ours(key: Mapping[str, object], by: Sequence[str] = ()) -> str:
    """'ours, laptop scale', and what else tells this series apart."""
    also = tables.series_label({column: key[column] for column in by if column in key and column != "scale"})
    return ", ".join(filter(None, ["ours", f"{key['scale']} scale", also]))


def _bias(value: float) -> str:
    return _text(value, "{:g}").replace("-", "−") or "none"


def _scale(value: float) -> str:
    """2.302585 → 'log 10', 0 → 'log 1', as the paper writes it."""
    base = math.exp(value) if value == value else math.nan
    return f"log {base:.0f}" if base == base and abs(base - round(base)) < 1e-6 else f"{value:g}"


def _text(value: object, form: str = "{}") -> str:
    return "" if value is None or value != value else form.format(value)
