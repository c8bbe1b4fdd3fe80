"""Many languages: figure 8, table 9, table 2."""

from collections.abc import Iterator

import pandas as pd

from repro.config.units import format_batch_size
from repro.report import tables
from repro.report.draw import by_language, language
from repro.report.exhibits import exhibit as ex
from repro.report.exhibits.exhibit import Exhibit, Study
from repro.report.figures import panel
from repro.report.inputs import Inputs
from repro.report.style import OTHER_STYLE, look

RECALL = "mean_recall@1"
NONE = "none/acc1"
"""The accuracy of runs that have none."""
WAYS = ("image_retrieval_recall@1", "text_retrieval_recall@1")


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
