"""Tables 5 and 8: accuracy by batch size, loss and examples seen, ours and the paper's side by side."""

from collections.abc import Iterator

import pandas as pd

from repro.config.units import format_batch_size
from repro.report import tables
from repro.report.exhibits.batch_size import curves_of, dataset_title, scales_of
from repro.report.exhibits.exhibit import Exhibit, cell, claim, main_metric, sentences, tidy, unfinished, whose
from repro.report.found import Found

PAPER_METRIC = "imagenet1k/acc1"


def table_5(found: Found) -> Iterator[Exhibit]:
    yield from _by_batch_size(found, 5, "siglip", "SigLIP: accuracy by batch size")


def table_8(found: Found) -> Iterator[Exhibit]:
    yield from _by_batch_size(found, 8, "siglit", "SigLiT: accuracy by batch size and examples seen")


def _by_batch_size(found: Found, number: int, setup: str, title: str) -> Iterator[Exhibit]:
    """Batch sizes down; across, under a head for each series of ours and each length of the paper's, the losses."""
    ours = found.of(f"table {number}")
    ours = ours[ours["setup"] == setup]
    if tables.finished(ours).empty:
        return
    paper = curves_of(found, f"table-{number}").assign(origin="paper")
    blocks, drawn, main = [], [], ""
    imported = found.imported[found.imported["setup"] == setup]
    for part, name in [
        *((ours[ours["scale"] == scale], f"ours, {scale} scale") for scale in scales_of(ours)),
        *((imported[imported["origin"] == origin], origin) for origin in sorted(imported["origin"].unique())),
        (paper, "paper"),
    ]:
        metric = PAPER_METRIC if name == "paper" else main_metric(part, found.metrics)
        if not metric:
            continue
        main = main or (metric if name != "paper" else "")
        by = tables.series_columns(part)
        # The number of examples is said even where there is one only.
        told = list(dict.fromkeys(["examples_seen", *by]))
        drawn.append(tidy(part, [metric], told, ("origin", "loss", "batch_size")))
        for key, series in tables.split(tables.placed(part), told):
            blocks.append((f"{name}, {tables.series_label(key)}", series, metric))
    if not main:
        return
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for head, series, metric in blocks:
        for (loss, size), runs in series.groupby(["loss", "batch_size"]):
            cells.setdefault((head, loss), {})[int(size)] = cell(runs, metric)
    frame = pd.DataFrame(cells)
    frame = frame.reindex(sorted(frame.index)).fillna("")
    frame.index = pd.Index([format_batch_size(size) for size in frame.index], name="batch size")
    text = sentences(
        f"As in the paper's table {number}: 0-shot accuracy in percent (ours: {dataset_title(main)}; the paper: "
        "ImageNet), ± the standard deviation over seeds where there are several.",
        whose(ours),
        "Rows where one column is empty are batch sizes of the others.",
        unfinished(ours, main),
        claim(found.claim(f"table {number}")),
    )
    yield Exhibit(f"table-{number}", title, text, None, None, frame, pd.concat(drawn, ignore_index=True))
