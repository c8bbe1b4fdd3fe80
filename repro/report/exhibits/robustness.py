"""Fewer negatives (figure 6) and corrupted data (figure 7)."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from repro.config.spec import CORRUPTIONS
from repro.report import tables
from repro.report.draw import by_noise, by_ratio, with_ratios
from repro.report.draw.axes import metric_label, title
from repro.report.draw.robustness import ALL, ALL_STYLE, kind_styles
from repro.report.exhibits.batch_size import dataset_title, scales_of
from repro.report.exhibits.exhibit import (
    Exhibit,
    are_drawn,
    claim,
    main_metric,
    points,
    sentences,
    tidy,
    unfinished,
    whose,
)
from repro.report.figures import Draw, full_and_column, loss_looks, share_heights
from repro.report.found import Found

LOGITS = {
    "final_logit_bias": ("final bias", "b"),
    "final_positive_logit": ("mean logit of positives", "logit"),
    "final_negative_logit": ("mean logit of negatives", "logit"),
}
KINDS = {
    "image": "image: uniform noise",
    "text": "text: random tokens",
    "batch": "batch: shuffled pairs",
    "image-text": "image and text",
    "image-text-batch": "image, text and batch",
}


def figure_6(found: Found) -> Iterator[Exhibit]:
    """Accuracy, final bias and mean logits against the ratio of negatives to positives, by which negatives are kept."""
    ours = found.of("figure 6")
    if not {"negatives", "negatives_share"} <= set(ours.columns) or tables.finished(ours).empty:
        return
    runs = with_ratios(ours)
    draws: list[Draw] = []
    drawn = []
    for scale in scales_of(runs):
        part = runs[runs["scale"] == scale]
        metric = main_metric(part, found.metrics)
        if metric:
            draws.append(
                _ratio(part, metric, 100, metric_label(metric), ("accuracy", f"{dataset_title(metric)}, {scale} scale"))
            )
            drawn.append(tidy(part, [metric], ("scale",), ("kind", "ratio")))
        for value, (name, label) in LOGITS.items():
            if value in part and tables.numbers(tables.finished(part)[value]).notna().any():
                draws.append(_ratio(part, value, 1, label, (name, f"{scale} scale")))
                found_values = tables.summarise(part, value, ("scale",), ("kind", "ratio"))
                drawn.append(found_values.assign(metric=value))
    if not draws:
        return
    legend = {"all negatives": ALL_STYLE} | kind_styles(runs)
    full, column = full_and_column(draws, 2, legend, row_cm=4.8)
    main = main_metric(ours, found.metrics)
    text = sentences(
        "Negatives left out, by which are kept: at random, the hardest, the easiest, or the hardest with training "
        f"lengthened until as many pairs were seen ({ALL} negatives at the right).",
        whose(ours),
        points(runs, main, (), ("kind", "ratio")),
        unfinished(ours, main or "final_loss"),
        claim(found.claim("figure 6"), published=False),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("figure-6", "Fewer negatives", text, full, column, None, data)


def figure_7(found: Found) -> Iterator[Exhibit]:
    """Accuracy against the probability of corruption: a panel for each kind, both losses."""
    ours = found.of("figure 7")
    if not {"corruption", "corruption_probability"} <= set(ours.columns) or tables.finished(ours).empty:
        return
    ours = ours.assign(corruption_probability=tables.numbers(ours["corruption_probability"]).fillna(0))
    metric = main_metric(ours, found.metrics)
    kinds = [kind for kind in CORRUPTIONS[1:] if (ours["corruption"] == kind).any()]
    if not metric or not kinds:
        return
    draws: list[Draw] = []
    drawn = []
    for scale in scales_of(ours):
        part = ours[ours["scale"] == scale]
        by = tables.series_columns(part, within=("loss", "corruption", "corruption_probability"))
        for kind in kinds:
            draws.append(
                _noise(part, metric, kind, by, (KINDS.get(kind, kind), f"{dataset_title(metric)}, {scale} scale"))
            )
        draws += [None] * (-len(draws) % 3)
        drawn.append(tidy(part, [metric], by, ("scale", "loss", "corruption", "corruption_probability")))
    full, column = full_and_column(draws, 3, loss_looks(ours), row_cm=4.6)
    share_heights(full, len(full.axes))
    share_heights(column, len(column.axes))
    text = sentences(
        "Accuracy of training on corrupted data, by what is corrupted and with which probability; p = 0 is the plain "
        "run, whatever the kind. Both losses see the same corruption of the same samples.",
        whose(ours),
        points(ours, metric, (), ("loss", "corruption", "corruption_probability")),
        unfinished(ours, metric),
        claim(found.claim("figure 7"), published=False),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("figure-7", "Robustness to noisy data", text, full, column, None, data)


def _ratio(part: pd.DataFrame, value: str, factor: float, label: str, heads: tuple[str, str]) -> Draw:
    def draw(axes: Axes) -> None:
        by_ratio(part, value, axes, factor, label, are_drawn(part, 4))
        title(axes, *heads)

    return draw


def _noise(part: pd.DataFrame, metric: str, kind: str, by: list[str], heads: tuple[str, str]) -> Draw:
    def draw(axes: Axes) -> None:
        by_noise(part, metric, kind, axes, by, are_drawn(part, 2))
        title(axes, *heads)

    return draw
