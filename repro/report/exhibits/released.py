"""Table 3: public weights, evaluated by us, beside the paper's numbers for the same ones."""

import re
from collections.abc import Iterator

import pandas as pd

from repro.report import tables
from repro.report.exhibits.exhibit import Exhibit, cell, claim, percent, sentences, tidy, unfinished, whose
from repro.report.found import Found

COLUMNS = {
    "imagenet1k/acc1": "ImageNet",
    "imagenetv2/acc1": "v2",
    "imagenet-real/acc1": "ReaL",
    "objectnet/acc1": "ObjectNet",
    "mscoco_captions/text_retrieval_recall@1": "COCO text R@1",
    "mscoco_captions/image_retrieval_recall@1": "COCO image R@1",
}
FAMILIES = {"openai": "CLIP", "laion": "OpenCLIP", "clipa": "CLIPA-v2", "eva": "EVA-CLIP", "siglip": "SigLIP"}
"""What open_clip's names of models and weights hold, of which the later wins: the paper's names."""
SIDE = 224
"""Of images, where a model's name says nothing."""


def table_3(found: Found) -> Iterator[Exhibit]:
    """A row for each of the paper's models, and one for each of ours that is not among them."""
    ours = found.of("table 3")
    imported = found.imported[found.imported["setup"] == "released"]
    given = pd.concat([ours, imported]) if len(imported) else ours
    if tables.finished(ours).empty:
        return
    paper = found.paper_table("table-3")
    own = [m for m in (found.metrics or tables.main_metrics(ours)) if m not in COLUMNS and m in ours]
    own = [metric for metric in own if ours[metric].notna().any()]
    names = {
        run: identity(str(row.get("model")), str(row.get("pretrained"))) for run, row in given.to_dict("index").items()
    }
    known = {_paper_identity(row) for row in paper.to_dict("records")}
    rows = []
    for row in paper.to_dict("records"):
        same = given[[names[run] == _paper_identity(row) for run in given.index]]
        rows.append(_row(same, own) | {"model": row["model"], "image tower": row["image_tower"]})
        rows[-1] |= {"patches": f"{row['patches']:g}"}
        rows[-1] |= {("paper", head): percent(row[m]) for m, head in COLUMNS.items() if m in row}
    given = given if "model" in given else given.assign(model="")
    others = given[[names[run] not in known for run in given.index]]
    weights = [column for column in ("model", "pretrained") if column in others]
    for key, runs in tables.split(others, weights) if len(others) else ():
        rows.append(_row(runs, own) | {"model": str(key.get("pretrained", "")), "image tower": str(key["model"])})
    first = [("", name) for name in ("model", "image tower", "patches")]
    rows = [{(head if isinstance(head, tuple) else ("", head)): text for head, text in row.items()} for row in rows]
    frame = pd.DataFrame(rows).fillna("")
    order = [
        *first,
        *(("ours", h) for h in [*COLUMNS.values(), *map(_own_head, own)]),
        *(("paper", h) for h in COLUMNS.values()),
    ]
    frame = frame[[column for column in order if column in frame and (frame[column] != "").any()]]
    frame.columns = pd.MultiIndex.from_tuples(list(frame.columns))
    text = sentences(
        "As in the paper's table 3: public weights, evaluated and not trained; accuracy and recall at 1 in percent. "
        "Rows without a number of ours were not evaluated.",
        whose(ours),
        unfinished(ours, own[0] if own else "imagenet1k/acc1"),
        claim(found.claim("table 3")),
    )
    metrics = [metric for metric in [*COLUMNS, *own] if metric in given]
    data = tidy(given, metrics, ("origin", *weights), ("loss",))
    data = pd.concat([data, tidy(paper, list(COLUMNS), ("origin", "model", "image_tower", "patches"), ("loss",))])
    yield Exhibit("table-3", "Released weights", text, None, None, frame, data.reset_index(drop=True))


def identity(model: str, pretrained: str) -> tuple[str, str, int] | None:
    """ViT-B-16-SigLIP-384, webli → ('SigLIP', 'B', 576): family, size of the image tower, patches; None if unknown."""
    words = f"{pretrained} {model}".lower()
    family = next((name for word, name in reversed(FAMILIES.items()) if word in words), None)
    found = re.match(r"(?:ViT|EVA02)-(SO400M|bigG|[BLHE])-(\d+)", model)
    if family is None or found is None:
        return None
    size = {"SO400M": "SO", "bigG": "G"}.get(found[1], found[1])
    side = re.search(r"-(\d{3})$", model.removesuffix("-quickgelu").removesuffix("-plus"))
    return family, size, (int(side[1] if side else SIDE) // int(found[2])) ** 2


def _paper_identity(row: dict[str, object]) -> tuple[str, str, int]:
    return str(row["model"]), str(row["image_tower"]).split()[0], int(row["patches"])


def _row(runs: pd.DataFrame, own: list[str]) -> dict[object, str]:
    if runs.empty:
        return {}
    found = {("ours", head): cell(runs, metric) for metric, head in COLUMNS.items() if runs.get(metric) is not None}
    return found | {("ours", _own_head(metric)): cell(runs, metric) for metric in own}


def _own_head(metric: str) -> str:
    dataset, name = tables.metric_title(metric)
    return f"{dataset} {name.replace('top-1 ', '').replace('mean image and text recall', 'mean recall')}"
