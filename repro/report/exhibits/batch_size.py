"""Accuracy against batch size: figures 2 and 3, tables 5 and 8, any sweep whose batch size varies; in many languages
figure 8, tables 2 and 9."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from repro.config.units import format_batch_size
from repro.report.draw import accuracy_by_batch_size, by_language, language
from repro.report.draw.axes import INK, OTHER_STYLE, PAPER, look
from repro.report.exhibits import exhibit as ex
from repro.report.exhibits.exhibit import PLACE, SETUPS, Exhibit, Study
from repro.report.figures import Look, Panel, loss_looks, panel, share_heights
from repro.report.inputs import Inputs, stem
from repro.results import tables

IMAGENET = "imagenet1k/acc1"
PAPER_CURVES = {
    "siglit": ("table-8", IMAGENET),
    "siglip": ("table-5", IMAGENET),
    "msiglip": ("table-9", "crossmodal3600_mean/mean_recall@1"),
}
"""Figure 2's panels, from left to right: table of the paper, its metric there."""
RECALL = "mean_recall@1"
NONE = "none/acc1"
"""The accuracy of runs that have none."""
WAYS = ("image_retrieval_recall@1", "text_retrieval_recall@1")
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


def multilingual(inputs: Inputs) -> tuple[pd.DataFrame, list[tuple[pd.DataFrame, str]]]:
    """Our runs that were evaluated in several languages (empty where none finished), and all parts with their names."""
    runs = inputs.of("figure 8")
    runs = runs[runs["setup"] == "msiglip"]
    if not dataset_of(runs) or tables.finished(runs).empty:
        return runs[:0], []
    parts = [(part, f"ours, {scale} scale") for scale, part in ex.by_scale(runs)]
    return runs, [*parts, (inputs.paper_curves("table-9"), "paper")]


def dataset_of(runs: pd.DataFrame) -> str:
    """The data set in several languages, whose mean these runs have; '' for none."""
    have = [metric for metric in tables.metric_columns(runs) if runs[metric].notna().any()]
    return next((m.rpartition("_mean/")[0] for m in have if m.endswith(f"_mean/{RECALL}")), "")


def languages_of(runs: pd.DataFrame, dataset: str) -> list[str]:
    metrics = (m for m in tables.metric_columns(runs) if m.startswith(f"{dataset}_") and m.endswith(f"/{RECALL}"))
    return sorted(language(metric) for metric in metrics if "_mean/" not in metric)


def figure_8(inputs: Inputs) -> Iterator[Exhibit]:
    """Recall at 1 of every language: a panel for each of our losses, and the paper's."""
    ours, parts = multilingual(inputs)
    if ours.empty:
        return
    panels, losses = [], set()
    for part, name in parts:
        dataset, name = dataset_of(part), name.replace(", ", " (") + ")" * ("," in name)
        for loss in sorted(tables.finished(part)["loss"].unique()) if dataset else ():
            runs = part[part["loss"] == loss]
            metrics = [f"{dataset}_{code}/{RECALL}" for code in languages_of(part, dataset)]
            mean = f"{dataset}_mean/{RECALL}"
            data = _with_language(ex.tidy(runs, [*metrics, mean], ()))
            heads = (f"{loss}, {name}", ex.dataset_title(mean))
            panels.append(panel(data, heads, by_language, runs, metrics, mean))
            losses.add(loss)
    caption = ex.sentences(
        ex.intro("figure-8"),
        ex.described(ours),
        ex.unfinished(ours, ex.main_metric(ours)),
        "The paper's claim: retrieval falls beyond a batch size of 32k in nearly all languages.",
    )
    legend = {f"mean, {loss}": look(loss) for loss in sorted(losses)}
    legend["one language"] = {"color": OTHER_STYLE["color"], "linewidth": 0.8}
    yield ex.figure("figure-8", panels, 3, caption, legend)


def table_9(inputs: Inputs) -> Iterator[Exhibit]:
    """Languages down, batch sizes across: recall at 1 of images / of texts."""
    ours, parts = multilingual(inputs)
    if ours.empty:
        return
    cells, drawn = {}, []
    for part, name in parts:
        dataset = dataset_of(part)
        codes = [*languages_of(part, dataset), "mean"] if dataset else []
        for (loss, size), runs in tables.placed(part).groupby(["loss", "batch_size"]):
            both = {code: [ex.cell(runs, f"{dataset}_{code}/{way}") for way in WAYS] for code in codes}
            texts = {code: " / ".join(ways) if all(ways) else "" for code, ways in both.items()}
            cells[f"{name}, {loss}", format_batch_size(int(size))] = texts
        metrics = [f"{dataset}_{code}/{way}" for code in codes for way in (*WAYS, RECALL)]
        drawn.append(_with_language(ex.tidy(part, metrics, ())))
    codes = sorted({code for texts in cells.values() for code in texts} - {"mean"})
    text = ex.sentences(
        ex.intro("table-9"), ex.described(ours), "Languages and batch sizes that one of us lacks are empty."
    )
    data = pd.concat(drawn, ignore_index=True)
    frame = ex.crossed(cells, "language", [*codes, "mean"])
    yield Exhibit("table-9", ex.title_of("table-9"), text, data, frame)


def table_2(inputs: Inputs) -> Iterator[Exhibit]:
    """mSigLIP: metrics down, batch sizes across."""
    study = Study(inputs, "table 2", "msiglip")
    if not study.is_finished:
        return
    cells, drawn = {}, []
    paper = pd.concat([inputs.paper_curves(source) for source in ("table-2", "table-9")])
    paper = paper.groupby(["loss", "batch_size"], as_index=False).first()
    parts = [(part, f"ours, {scale} scale") for scale, part in ex.by_scale(study.runs)]
    for part, name in [*parts, (paper, "paper")]:
        have = [metric for metric in tables.metric_columns(part) if part[metric].notna().any()]
        accuracy = next((metric for metric in have if metric.endswith("/acc1")), NONE)
        dataset = dataset_of(part)
        if accuracy == NONE and not dataset:
            continue
        rows = {"0-shot accuracy": accuracy}
        rows |= {f"{way.partition('_')[0]} retrieval R@1": f"{dataset}_mean/{way}" for way in WAYS if dataset}
        for (loss, size), runs in tables.placed(part).groupby(["loss", "batch_size"]):
            texts = {row: ex.cell(runs, metric) for row, metric in rows.items()}
            cells[f"{name}, {loss}", format_batch_size(int(size))] = texts
        drawn.append(ex.tidy(part.assign(origin=name), list(rows.values()), ()))
    if not any(name.startswith("ours") for name, _ in cells):
        return
    frame = ex.crossed(cells, "metric (%)", list(dict.fromkeys(row for texts in cells.values() for row in texts)))
    yield study.table(frame, pd.concat(drawn, ignore_index=True))


def _with_language(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(language=data["metric"].map(language)) if len(data) else data
