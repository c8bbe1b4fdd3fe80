"""Many languages: figure 8, table 9, table 2."""

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.config.units import format_batch_size
from repro.report import tables
from repro.report.draw import by_language
from repro.report.draw.axes import title
from repro.report.draw.batch_size import language
from repro.report.exhibits.batch_size import curves_of, dataset_title, scales_of
from repro.report.exhibits.exhibit import Exhibit, cell, claim, main_metric, sentences, tidy, unfinished, whose
from repro.report.figures import Draw, full_and_column
from repro.report.found import Found
from repro.report.style import OTHER_STYLE, look

RECALL = "mean_recall@1"
NONE = "none/acc1"
"""The accuracy of runs that have none."""
WAYS = ("image_retrieval_recall@1", "text_retrieval_recall@1")


def multilingual(found: Found) -> pd.DataFrame:
    """Our runs that were evaluated in several languages, of the sweep that figure 8 belongs to."""
    runs = found.of("figure 8")
    runs = runs[runs["setup"] == "msiglip"]
    return runs if dataset_of(runs) else runs[:0]


def dataset_of(runs: pd.DataFrame) -> str:
    """The data set in several languages, whose mean these runs have; '' for none."""
    have = [metric for metric in tables.metric_columns(runs) if runs[metric].notna().any()]
    return next((m.rpartition("_mean/")[0] for m in have if m.endswith(f"_mean/{RECALL}")), "")


def languages_of(runs: pd.DataFrame, dataset: str) -> list[str]:
    found = (m for m in tables.metric_columns(runs) if m.startswith(f"{dataset}_") and m.endswith(f"/{RECALL}"))
    return sorted(language(metric) for metric in found if "_mean/" not in metric)


def figure_8(found: Found) -> Iterator[Exhibit]:
    """Recall at 1 of every language: a panel for each of our losses, and the paper's."""
    ours = multilingual(found)
    if tables.finished(ours).empty:
        return
    draws: list[Draw] = []
    drawn, losses = [], set()
    for part, name in [
        *((ours[ours["scale"] == s], f"ours ({s} scale)") for s in scales_of(ours)),
        (_paper(found), "paper"),
    ]:
        dataset = dataset_of(part)
        for loss in sorted(tables.finished(part)["loss"].unique()) if dataset else ():
            of_loss = part[part["loss"] == loss]
            metrics = [f"{dataset}_{code}/{RECALL}" for code in languages_of(part, dataset)]
            mean = f"{dataset}_mean/{RECALL}"
            draws.append(_panel(of_loss, metrics, mean, (f"{loss}, {name}", dataset_title(mean))))
            drawn.append(_in_words(tidy(of_loss, [*metrics, mean], (), ("origin", "loss", "batch_size"))))
            losses.add(loss)
    full, column = full_and_column(draws, 3, _legend(losses))
    text = sentences(
        "Retrieval in each language (grey) and on average: recall at 1, mean of images and texts, as in the paper's "
        "figure 8 and table 9. Seeds are averaged.",
        whose(ours),
        unfinished(ours, main_metric(ours)),
        "The paper's claim: retrieval falls beyond a batch size of 32k in nearly all languages.",
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("figure-8", "Retrieval in each language", text, full, column, None, data)


def table_9(found: Found) -> Iterator[Exhibit]:
    """Languages down, batch sizes across: recall at 1 of images / of texts."""
    ours = multilingual(found)
    if tables.finished(ours).empty:
        return
    columns, drawn = {}, []
    for part, whose_part in [
        *((ours[ours["scale"] == s], f"ours, {s} scale") for s in scales_of(ours)),
        (_paper(found), "paper"),
    ]:
        dataset = dataset_of(part)
        codes = [*languages_of(part, dataset), "mean"] if dataset else []
        for (loss, size), runs in tables.placed(part).groupby(["loss", "batch_size"]):
            head = (f"{whose_part}, {loss}", format_batch_size(int(size)))
            columns[head] = {code: _both_ways(runs, f"{dataset}_{code}") for code in codes}
        metrics = [f"{dataset}_{code}/{way}" for code in codes for way in (*WAYS, RECALL)]
        drawn.append(_in_words(tidy(part, metrics, (), ("origin", "loss", "batch_size"))))
    frame = pd.DataFrame(columns)
    codes = sorted(code for code in frame.index if code != "mean")
    frame = frame.reindex([*codes, "mean"]).fillna("")
    frame.index.name = "language"
    text = sentences(
        "As in the paper's table 9: recall at 1 of image / text retrieval in percent, by language and batch size "
        "(XM3600 in the paper).",
        whose(ours),
        "Languages and batch sizes that one of us lacks are empty.",
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("table-9", "Retrieval in each language by batch size", text, None, None, frame, data)


def table_2(found: Found) -> Iterator[Exhibit]:
    """mSigLIP: metrics down, batch sizes across."""
    ours = found.of("table 2")
    ours = ours[ours["setup"] == "msiglip"]
    if tables.finished(ours).empty:
        return
    columns, drawn = {}, []
    parts = [(ours[ours["scale"] == scale], f"ours, {scale} scale") for scale in scales_of(ours)]
    paper = pd.concat([curves_of(found, source) for source in ("table-2", "table-9")]).copy()
    paper = paper.groupby(["loss", "batch_size"], as_index=False).first() if len(paper) else paper
    for part, whose_part in [*parts, (paper.assign(status="finished"), "paper")]:
        accuracy, dataset = _accuracy_of(part), dataset_of(part)
        if accuracy == NONE and not dataset:
            continue
        rows = {"0-shot accuracy": accuracy}
        rows |= {f"{way.partition('_')[0]} retrieval R@1": f"{dataset}_mean/{way}" for way in WAYS if dataset}
        for (loss, size), runs in tables.placed(part).groupby(["loss", "batch_size"]):
            head = (f"{whose_part}, {loss}", format_batch_size(int(size)))
            columns[head] = {name: cell(runs, metric) for name, metric in rows.items()}
        drawn.append(tidy(part.assign(origin=whose_part), list(rows.values()), (), ("origin", "loss", "batch_size")))
    if not any(name.startswith("ours") for name, _ in columns):
        return
    frame = pd.DataFrame(columns).fillna("")
    frame.index.name = "metric (%)"
    text = sentences(
        "As in the paper's table 2: mSigLIP's 0-shot accuracy (the paper: ImageNet) and its retrieval averaged over "
        "languages (the paper: XM3600, 36 languages).",
        whose(ours),
        unfinished(ours, _accuracy_of(ours)),
        claim(found.claim("table 2")),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("table-2", "Multilingual models by batch size", text, None, None, frame, data)


def _accuracy_of(part: pd.DataFrame) -> str:
    have = (metric for metric in tables.main_metrics(part) if metric.endswith("/acc1"))
    return next((metric for metric in have if part[metric].notna().any()), NONE)


def _both_ways(runs: pd.DataFrame, dataset: str) -> str:
    ways = [cell(runs, f"{dataset}/{way}") for way in WAYS]
    return " / ".join(ways) if all(ways) else ""


def _paper(found: Found) -> pd.DataFrame:
    return curves_of(found, "table-9")


def _panel(part: pd.DataFrame, metrics: Sequence[str], mean: str, heads: Sequence[str]) -> Draw:
    def draw(axes: Axes) -> None:
        by_language(part, metrics, mean, axes)
        title(axes, *heads)

    return draw


def _in_words(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(language=data["metric"].map(language)) if len(data) else data


def _legend(losses: set[str]) -> dict[str, dict[str, object]]:
    looks = {f"mean, {loss}": look(loss) for loss in sorted(losses)}
    return looks | {"one language": {"color": OTHER_STYLE["color"], "linewidth": 0.8}}
