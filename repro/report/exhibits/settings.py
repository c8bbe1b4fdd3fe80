"""Tables of settings: table 1 (four chips), 4 (bias), 6 (hyperparameters), 7 (seeds), and section 4.3 (vocabulary).

Each row is a setting; its runs differ in their seed only. Ours and the paper's stand side by side, or the paper's
after ours where its settings are others.
"""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from repro.config.units import format_batch_size, format_seconds
from repro.report import tables
from repro.report.exhibits.batch_size import dataset_title
from repro.report.exhibits.exhibit import Exhibit, cell, claim, main_metric, percent, sentences, tidy, unfinished, whose
from repro.report.found import Found

IMAGENET = "imagenet1k/acc1"


def table_1(found: Found) -> Iterator[Exhibit]:
    """What a few chips reach in a few days, beside what ours took."""
    ours = found.of("table 1")
    if tables.finished(ours).empty:
        return
    metric = main_metric(ours, found.metrics)
    if not metric:
        return
    rows = []
    told = ["setup", "scale", "model", "pretrained", "batch_size", "examples_seen", "image_weight_decay"]
    for key, runs in tables.split(tables.placed(ours), [column for column in told if column in ours]):
        done = tables.finished(runs)
        seconds = (_numbers(done, "step_seconds") * _numbers(done, "steps")).mean()
        ranks = tables.values_of(done, "ranks")
        rows.append(
            {
                "whose": _ours(key),
                "setup": key["setup"],
                "image tower": _text(key.get("pretrained")) or _text(key.get("model")),
                "text tower": _text(key.get("model")),
                "batch size": format_batch_size(int(key["batch_size"])),
                "ranks or chips": ", ".join(f"{count:g}" for count in ranks),
                "time": format_seconds(seconds) if seconds == seconds else "",
                "0-shot accuracy (%)": cell(runs, metric),
                "weight decay on image tower": _decay(key),
            }
        )
    for row in found.paper_table("table-1").to_dict("records"):
        rows.append(
            {
                "whose": "paper",
                "setup": row["setup"],
                "image tower": _text(row.get("image_tower")),
                "text tower": _text(row.get("text_tower")),
                "batch size": format_batch_size(int(row["batch_size"])),
                "ranks or chips": f"{row['chips']:g} TPUv4",
                "time": f"{row['days']:g} days" if row["days"] != 1 else "1 day",
                "0-shot accuracy (%)": percent(row[IMAGENET]),
                "weight decay on image tower": "",
            }
        )
    frame = pd.DataFrame(rows)
    if not frame["weight decay on image tower"].any():
        frame = frame.drop(columns="weight decay on image tower")
    text = sentences(
        f"As in the paper's table 1: what a few chips reach (ours on {dataset_title(metric)}, the paper on ImageNet). "
        "Time is that of training alone.",
        whose(ours),
        unfinished(ours, metric or "final_loss"),
        claim(found.claim("table 1")),
    )
    data = tidy(ours, [metric], [c for c in told if c in ours and c != "batch_size"], ("loss", "batch_size"))
    yield Exhibit("table-1", "Good accuracy on few chips", text, None, None, frame, data)


def table_4(found: Found) -> Iterator[Exhibit]:
    """Starts of b and t' down; ours and the paper's data sets across."""
    ours = found.of("table 4")
    if not {"init_logit_bias", "init_logit_scale"} <= set(ours.columns) or tables.finished(ours).empty:
        return
    prior = -(tables.numbers(ours["batch_size"]) - 1).map(lambda rest: math.log(rest) if rest > 0 else math.nan)
    bias = tables.numbers(ours["init_logit_bias"])
    is_prior = (bias - prior).abs() < 1e-6
    names = ["prior" if at else _bias(value) for at, value in zip(is_prior, bias, strict=True)]
    ours = ours.assign(b=names, t=[_scale(value) for value in tables.numbers(ours["init_logit_scale"])])
    metrics = _metrics(ours, found)
    if not metrics:
        return
    paper = found.paper_table("table-4")
    columns: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    by = ["scale", *(c for c in tables.series_columns(ours, within=("b", "t", "loss")) if c not in _STARTS)]
    for key, part in tables.split(tables.placed(ours), by):
        for metric in metrics:
            head = _ours(key, by)
            settings = part.groupby(["b", "t"])
            columns[head, _metric_head(metric)] = {start: cell(runs, metric) for start, runs in settings}
    for metric in tables.metric_columns(paper):
        columns["paper", _metric_head(metric)] = {
            (_bias(row["init_bias"]), str(row["init_log_temperature"])): percent(row[metric])
            for row in paper.to_dict("records")
        }
    frame = pd.DataFrame(columns).fillna("")
    order = {"none": 0, "−10": 1, "0": 2}
    starts = sorted(frame.index, key=lambda start: (order.get(start[0], 3), start[0], -len(start[1]), start[1]))
    frame = frame.reindex(starts)
    frame.index = pd.Index([f"b {start[0]}, t′ {start[1]}" for start in starts], name="start")
    text = sentences(
        "As in the paper's table 4: 0-shot accuracy in percent by where the bias b and the log temperature t′ start; "
        "prior is b = −log(B − 1).",
        whose(ours),
        "± is the standard deviation over seeds.",
        unfinished(ours, metrics[0]),
        claim(found.claim("table 4")),
    )
    data = tidy(ours, metrics, by, ("b", "t", "loss"))
    yield Exhibit("table-4", "Where the bias starts", text, None, None, frame, data)


_STARTS = ("init_logit_bias", "init_logit_scale", "scale")


def table_6(found: Found) -> Iterator[Exhibit]:
    """Learning rate × weight decay down, batch sizes across, the best of each batch size marked."""
    ours = found.of("table 6")
    grid = ["learning_rate", "weight_decay"]
    if not set(grid) <= set(ours.columns) or tables.finished(ours).empty:
        return
    metric = main_metric(ours, found.metrics)
    if not metric:
        return
    columns: dict[tuple[str, str], dict[tuple[float, float], str]] = {}
    by = list(dict.fromkeys(["scale", *tables.series_columns(ours, within=(*grid, "loss", "batch_size"))]))
    for key, part in tables.split(tables.placed(ours), [*by, "batch_size"]):
        size = format_batch_size(int(key.pop("batch_size")))
        means = tables.summarise(part, metric, (), grid).set_index(grid)["mean"]
        best = means.idxmax() if len(means) else None
        columns[_ours(key, by), size] = {
            setting: cell(runs, metric) + (" (best)" if setting == best else "") for setting, runs in part.groupby(grid)
        }
    for row in found.paper_table("table-6").to_dict("records"):
        head = ("paper, 3B", format_batch_size(int(row["batch_size"])))
        setting = (row["learning_rate"], row["weight_decay"])
        best = " (best)" if "best" in str(row.get("note")) else ""
        cells = columns.setdefault(head, {})
        cells[setting] = percent(row[IMAGENET]) + (best or (" (best)" if "(best)" in cells.get(setting, "") else ""))
    frame = pd.DataFrame(columns).fillna("")
    frame = frame.reindex(sorted(frame.index))
    frame.index = pd.Index([f"{rate:g}, {decay:g}" for rate, decay in frame.index], name="learning rate, weight decay")
    text = sentences(
        "As in the paper's table 6: 0-shot accuracy in percent by learning rate and weight decay at several batch "
        "sizes, the best of each marked. Of its own grid the paper gives the default and the best.",
        whose(ours),
        unfinished(ours, metric),
        claim(found.claim("table 6")),
    )
    data = tidy(ours, [metric], by, ("loss", "batch_size", *grid))
    yield Exhibit("table-6", "Learning rate and weight decay", text, None, None, frame, data)


def table_7(found: Found) -> Iterator[Exhibit]:
    """Loss, optimizer and schedule down: mean ± std over seeds, and how many they are."""
    ours = found.of("table 7")
    settings = [c for c in ("scale", "loss", "optimizer", "schedule", "learning_rate", "weight_decay") if c in ours]
    if tables.finished(ours).empty:
        return
    metrics = _metrics(ours, found)
    if not metrics:
        return
    apart = [c for c in tables.series_columns(ours, within=("loss", "batch_size")) if c not in settings]
    rows = []
    for key, runs in tables.split(tables.placed(ours), [*settings, *apart]):
        rows.append(
            {
                "whose": _ours(key),
                **{name: _text(key.get(name)) for name in ("loss", "optimizer", "schedule")},
                "learning rate": f"{key['learning_rate']:g}" if "learning_rate" in key else "",
                **({"also": tables.series_label({c: key[c] for c in apart})} if apart else {}),
                **{_metric_head(metric): cell(runs, metric) for metric in metrics},
                "seeds": str(runs["seed"].nunique()),
            }
        )
    for row in found.paper_table("table-7").to_dict("records"):
        seeds = int(row.get("published_seeds") or 1)
        number = percent(row[IMAGENET], row["published_std"], seeds)
        optimizer = str(row["optimizer"]).removeprefix("vit-")
        told = {"whose": "paper", "loss": row["loss"], "optimizer": optimizer, "schedule": "cosine"}
        rows.append({**told, "ImageNet accuracy": number, "seeds": str(seeds)})
    text = sentences(
        "As in the paper's table 7: 0-shot accuracy in percent, mean ± standard deviation over seeds, by loss, "
        "optimizer and schedule. A difference within two standard deviations can be chance.",
        whose(ours),
        unfinished(ours, metrics[0]),
        claim(found.claim("table 7")),
    )
    data = tidy(ours, metrics, [c for c in [*settings, *apart] if c != "loss"], ("loss", "batch_size"))
    frame = pd.DataFrame(rows).fillna("")
    frame = frame[[column for column in frame if column != "seeds"] + ["seeds"]]
    yield Exhibit("table-7", "Spread over seeds, optimizers and schedules", text, None, None, frame, data)


def vocabulary(found: Found) -> Iterator[Exhibit]:
    """Vocabulary and columns of the bottleneck down (section 4.3)."""
    ours = found.of("section 4.3")
    if tables.finished(ours).empty or "model" not in ours:
        return
    metrics = _metrics(ours, found)
    if not metrics:
        return
    ours = ours if "token_bottleneck" in ours else ours.assign(token_bottleneck=math.nan)
    told = ["scale", "model", "token_bottleneck", "loss"]
    apart = [c for c in tables.series_columns(ours) if c not in told]
    rows = []
    for key, runs in tables.split(tables.placed(ours), [*told, *apart]):
        columns = key["token_bottleneck"]
        rows.append(
            {
                "whose": _ours(key),
                "text tower": str(key["model"]),
                "token embedding": "whole table" if columns != columns else f"bottleneck of {columns:g} columns",
                **({"also": tables.series_label({c: key[c] for c in apart})} if apart else {}),
                **{_metric_head(metric): cell(runs, metric) for metric in metrics},
            }
        )
    text = sentences(
        "Section 4.3: what a large multilingual vocabulary is worth, and what its token embedding costs when it is "
        "squeezed through a few columns; in percent. The paper gives differences only.",
        whose(ours),
        unfinished(ours, metrics[0]),
        claim(found.claim("section 4.3")),
    )
    data = tidy(ours, metrics, ["scale", "model", "token_bottleneck", *apart], ("loss", "batch_size"))
    yield Exhibit("vocabulary", "Vocabulary and bottleneck", text, None, None, pd.DataFrame(rows), data)


def _ours(key: dict[str, object], by: Sequence[str] = ()) -> str:
    """'ours, laptop scale', and what else tells this series apart."""
    also = tables.series_label({column: key[column] for column in by if column in key and column != "scale"})
    return ", ".join(filter(None, ["ours", f"{key['scale']} scale", also]))


def _metrics(runs: pd.DataFrame, found: Found) -> list[str]:
    """Those that were asked for, else each data set's main one; of them what these runs have."""
    have = [m for m in found.metrics if m in runs and runs[m].notna().any()]
    return have or [m for m in tables.main_metrics(runs) if runs[m].notna().any()]


def _metric_head(metric: str) -> str:
    dataset, name = dataset_title(metric), tables.metric_title(metric)[1]
    return f"{dataset} {name.replace('top-1 ', '').replace('mean image and text recall', 'mean recall')}"


def _bias(value: float) -> str:
    return "none" if value != value else f"{value:g}".replace("-", "−")


def _scale(value: float) -> str:
    """2.302585 → 'log 10', 0 → 'log 1', as the paper writes it."""
    base = math.exp(value) if value == value else math.nan
    return f"log {base:.0f}" if base == base and abs(base - round(base)) < 1e-6 else f"{value:g}"


def _decay(key: dict[str, object]) -> str:
    value = key.get("image_weight_decay")
    if key.get("setup") != "finetune":
        return ""
    return "as on all" if value is None or value != value else f"{value:g}"


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    return tables.numbers(runs[column]) if column in runs else pd.Series(math.nan, runs.index)
