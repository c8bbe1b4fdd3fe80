"""Accuracy against batch size: figures 2 and 3, tables 5 and 8, and the same for any sweep whose batch size varies."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from repro.config.units import format_batch_size
from repro.report import tables
from repro.report.draw import accuracy_by_batch_size
from repro.report.exhibits import exhibit as ex
from repro.report.exhibits.exhibit import PLACE, SETUPS, Exhibit, Study
from repro.report.figures import Look, Panel, loss_looks, panel, share_heights
from repro.report.inputs import Inputs, stem
from repro.report.style import INK, PAPER, look

IMAGENET = "imagenet1k/acc1"
PAPER_CURVES = {
    "siglit": ("table-8", IMAGENET),
    "siglip": ("table-5", IMAGENET),
    "msiglip": ("table-9", "crossmodal3600_mean/mean_recall@1"),
}
"""Figure 2's panels, from left to right: table of the paper, its metric there."""
MOST_SERIES = 6
"""A sweep with more series than this is no study of the batch size, and its table says more."""


def figure_2(inputs: Inputs) -> Iterator[Exhibit]:
    """Three panels a row: a row for each of our scales, and one of the paper's curves."""
    study = Study(inputs, "figure 2")
    given = pd.concat([study.runs, inputs.imported]) if len(inputs.imported) else study.runs
    if tables.placed(given).empty:
        return
    rows: list[list[Panel | None]] = []
    shown: list[tuple[pd.DataFrame, str]] = []
    beside_ours = set()
    for scale, runs in ex.by_scale(given):
        row: list[Panel | None] = []
        for setup, (source, paper_metric) in PAPER_CURVES.items():
            part = runs[runs["setup"] == setup]
            metric = ex.main_metric(part, inputs.metrics)
            if tables.placed(part).empty:
                row.append(None)
                continue
            if metric == paper_metric:
                part = pd.concat([part, inputs.paper_curves(source)])
                beside_ours.add(setup)
            shown.append((part, metric))
            head = f"{SETUPS[setup]}, {_row_head(part, scale)}"
            row.append(_curves(part, metric, head, ex.are_drawn(given), inputs.origins))
        rows += [row] if any(row) else []
    paper: list[Panel | None] = []
    for setup, (source, metric) in PAPER_CURVES.items():
        head = f"{SETUPS[setup]}, paper ({source.replace('-', ' ')})"
        curves = inputs.paper_curves(source)
        paper.append(None if setup in beside_ours or curves.empty else _curves(curves, metric, head))
    if rows and not any(a and b for a, b in zip(rows[-1], paper, strict=True)):  # the paper's fit in our last row
        rows[-1] = [a or b for a, b in zip(rows[-1], paper, strict=True)]
    else:
        rows += [paper] if any(paper) else []
    lacking = [name for setup, name in SETUPS.items() if setup not in set(given["setup"])]
    caption = study.caption(
        f"{ex.listed(inputs.origins)}: imported." if inputs.origins else "",
        f"No runs of {ex.listed(lacking)} yet." if lacking else "",
        "Vertical axes do not start at zero.",
        _points_of_most_seeds(shown),
        value=ex.main_metric(study.runs) or "none",
    )
    panels, legend = [each for row in rows for each in row], _legend(inputs, [part for part, _ in shown])
    yield ex.figure("figure-2", panels, 3, caption, legend)
    yield from _figure_2_retrieval(inputs, given)


def _figure_2_retrieval(inputs: Inputs, given: pd.DataFrame) -> Iterator[Exhibit]:
    """Further metrics: our other data sets, and the paper's ImageNet accuracy of mSigLIP (table 2)."""
    panels, shown = [], []
    for scale, runs in ex.by_scale(given):
        for setup, name in SETUPS.items():
            part = runs[runs["setup"] == setup]
            main = ex.main_metric(part, inputs.metrics)
            for metric in ex.present_metrics(part, inputs.metrics) if len(tables.placed(part)) else ():
                if metric != main and (metric in inputs.metrics or not inputs.metrics):
                    shown.append(part)
                    head = f"{name}, {_row_head(part, scale)}"
                    panels.append(_curves(part, metric, head, ex.are_drawn(given, 2), inputs.origins))
    if not panels:
        return
    curves = inputs.paper_curves("table-2")
    if "msiglip" in set(given["setup"]):
        panels.append(_curves(curves, IMAGENET, "mSigLIP, paper (table 2)"))
    ours = ex.described(pd.concat(shown)[lambda rows: rows["origin"] == ""])
    caption = ex.sentences(ex.intro("figure-2-retrieval"), ours)
    yield ex.figure("figure-2-retrieval", panels, 3, caption, _legend(inputs, shown))


def figure_3(inputs: Inputs) -> Iterator[Exhibit]:
    """A panel for each loss, a line for each number of examples seen: ours, and table 8."""
    study = Study(inputs, "figure 3", "siglit")
    if not study.is_finished:
        return
    parts = [
        (part, ex.main_metric(part, inputs.metrics), f"ours ({scale} scale)")
        for scale, part in ex.by_scale(study.runs)
        if tables.finished(part)["examples_seen"].nunique() > 1
    ]
    alone = "All our SigLiT runs have one length, so they are in figure 2 alone."
    parts = [*(each for each in parts if each[1]), (inputs.paper_curves("table-8"), IMAGENET, "paper")]
    panels = []
    for part, metric, name in parts:
        for loss in sorted(tables.placed(part)["loss"].unique()):
            runs = part[part["loss"] == loss]
            panels.append(_curves(runs, metric, f"{loss}, {name}", ex.are_drawn(runs)))
    data = pd.concat([ex.tidy(part, [metric], ex.series_of(part)) for part, metric, _ in parts], ignore_index=True)
    caption = ex.sentences(
        ex.intro("figure-3"),
        ex.described(study.runs) if len(parts) > 1 else alone,
        "The paper's claim: larger batches need longer training; with 450M examples accuracy falls early.",
    )
    legend = loss_looks(*(part for part, *_ in parts))
    made = ex.figure("figure-3", panels, 2, caption, legend, data=data)
    share_heights(made.figure, 2)
    yield made


def by_sweep(inputs: Inputs, covered: Sequence[str]) -> Iterator[Exhibit]:
    """For each sweep that has no exhibit of its own: each metric against batch size."""
    for sweep, runs in inputs.ours.groupby("sweep", sort=True):
        placed = tables.placed(runs)
        if placed.empty or sweep in covered:
            continue
        metrics = ex.present_metrics(runs, inputs.metrics) or ["no evaluation/accuracy"]
        runs = runs if metrics[0] in runs else runs.assign(**{metrics[0]: float("nan")})
        panels = [
            _curves(part, metric, "", ex.are_drawn(runs, len(metrics)), second=ex.panel_name(key), within=PLACE[1:])
            for metric in metrics
            for key, part in tables.split(tables.placed(runs), ["setup", "scale"])
            if tables.is_evaluated_on(part, metric, metrics)
        ]
        series = ex.series_of(runs)
        names = ex.listed([column.replace("_", " ") for column in series])
        crowded = len(placed.drop_duplicates(series)) > MOST_SERIES if series else False
        caption = ex.sentences(
            f"Sweep {sweep}." * bool(sweep),
            ex.described(runs),
            f"A line for each {names}; they are too many to be named here." if crowded else "",
            ex.points(runs, metrics[0], series),
            ex.unfinished(runs, metrics[0]),
        )
        name, title = f"figure-accuracy-{stem(sweep)}", f"{sweep or 'runs'}: accuracy against batch size"
        yield ex.figure(name, panels, min(3, max(2, len(panels))), caption, loss_looks(runs), title=title)


def table_5(inputs: Inputs) -> Iterator[Exhibit]:
    yield from _by_batch_size(Study(inputs, "table 5", "siglip"))


def table_8(inputs: Inputs) -> Iterator[Exhibit]:
    yield from _by_batch_size(Study(inputs, "table 8", "siglit"))


def _by_batch_size(study: Study) -> Iterator[Exhibit]:
    """Batch sizes down; across, under a head for each series of ours and each length of the paper's, the losses."""
    if not study.is_finished:
        return
    inputs, ours = study.inputs, study.runs
    imported = inputs.imported[inputs.imported["setup"] == ours["setup"].iloc[0]]
    parts = [(part, f"ours, {scale} scale") for scale, part in ex.by_scale(ours)]
    parts += [(part, str(origin)) for origin, part in imported.groupby("origin")]
    measured = [(part, name, metric) for part, name in parts if (metric := ex.main_metric(part, inputs.metrics))]
    if not measured:
        return
    main = measured[0][2]
    measured.append((inputs.paper_curves(study.name).assign(origin="paper"), "paper", IMAGENET))
    cells: dict[tuple[str, str], dict[int, str]] = {}
    drawn = []
    for part, name, metric in measured:
        by = list(dict.fromkeys(["examples_seen", *tables.series_columns(part)]))
        drawn.append(ex.tidy(part, [metric], by))
        for key, runs in tables.split(tables.placed(part), [*by, "loss", "batch_size"]):
            loss, size = key.pop("loss"), key.pop("batch_size")
            cells.setdefault((f"{name}, {tables.series_label(key)}", loss), {})[int(size)] = ex.cell(runs, metric)
    frame = ex.crossed(cells, "batch size", write=format_batch_size)
    rows = "Rows where one column is empty are batch sizes of the others."
    heads = {"number": study.number, "dataset": ex.dataset_title(main)}
    yield study.table(frame, pd.concat(drawn, ignore_index=True), rows, value=main, **heads)


def _curves(
    part: pd.DataFrame,
    metric: str,
    head: str,
    singles: bool = True,
    origins: tuple[str, ...] = (),
    second: str = "",
    within: Sequence[str] = PLACE,
) -> Panel:
    heads = (head, ex.dataset_title(metric), second)
    data = ex.tidy(part, [metric], ex.series_of(part), within)
    return panel(data, heads, accuracy_by_batch_size, part, metric, singles=singles, origins=origins)


def _row_head(part: pd.DataFrame, scale: str) -> str:
    """'ours (laptop scale), paper's': the origin of a panel's rows."""
    ours, paper = (bool((part["origin"] == origin).any()) for origin in ("", "paper"))
    name = f"ours ({scale} scale)" if ours else "imported"
    return f"{name}, paper's" if paper else name


def _points_of_most_seeds(shown: Sequence[tuple[pd.DataFrame, str]]) -> str:
    """Explain points as in the panel whose points stand for most seeds."""
    own = [(part[part["origin"] == ""], metric) for part, metric in shown]
    own = [(part, metric) for part, metric in own if len(tables.placed(part))]
    part, metric = max(own, key=lambda each: each[0]["seed"].nunique(), default=(pd.DataFrame(), ""))
    return ex.points(part, metric, tables.series_columns(part)) if len(part) else ""


def _legend(inputs: Inputs, parts: Sequence[pd.DataFrame]) -> Mapping[str, Look]:
    """The losses, the paper's hollow mark, and each imported series."""
    looks = loss_looks(*parts) or loss_looks(inputs.paper)
    looks["the paper"] = {"color": INK, "marker": "o", "markerfacecolor": PAPER, "linestyle": "-", "linewidth": 1.1}
    imported = {str(origin) for part in parts for origin in part["origin"].unique()} & set(inputs.origins)
    return looks | {origin: look("sigmoid", origin, inputs.origins) for origin in sorted(imported)}
