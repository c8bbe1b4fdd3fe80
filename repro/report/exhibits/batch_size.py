"""Accuracy against batch size: figure 2, figure 3, and the same for any sweep whose batch size varies."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.config.spec import SCALES
from repro.report import tables
from repro.report.draw import accuracy_by_batch_size
from repro.report.draw.axes import title
from repro.report.exhibits.exhibit import (
    Exhibit,
    are_drawn,
    claim,
    listed,
    main_metric,
    points,
    sentences,
    stem,
    tidy,
    unfinished,
    whose,
)
from repro.report.figures import Draw, full_and_column, loss_looks, share_heights
from repro.report.found import Found
from repro.report.style import INK, PAPER, look

SETUPS = {
    "siglit": ("SigLiT", "table-8", "imagenet1k/acc1"),
    "siglip": ("SigLIP", "table-5", "imagenet1k/acc1"),
    "msiglip": ("mSigLIP", "table-9", "crossmodal3600_mean/mean_recall@1"),
}
"""Figure 2's panels, from left to right: name, table of the paper, its metric there."""
DATASETS = {"imagenet1k": "ImageNet", "crossmodal3600_mean": "XM3600, 36 languages"}
MOST_SERIES = 6
"""A sweep with more series than this is no study of the batch size, and its table says more."""


def figure_2(found: Found) -> Iterator[Exhibit]:
    """Three panels a row: a row for each of our scales, and one of the paper's curves."""
    ours = found.of("figure 2")
    given = pd.concat([ours, found.imported]) if len(found.imported) else ours
    if tables.placed(given).empty:
        return
    draws: list[Draw | None] = []
    shown, drawn, in_ours = [], [], set()
    for scale in scales_of(given):
        row: list[Draw | None] = []
        for setup, (name, source, paper_metric) in SETUPS.items():
            part = given[(given["setup"] == setup) & (given["scale"] == scale)]
            metric = main_metric(part, found.metrics)
            if tables.placed(part).empty:
                row.append(None)
                continue
            if metric == paper_metric:
                part = pd.concat([part, curves_of(found, source)])
                in_ours.add(setup)
            drawn.append(tidy(part, [metric], series_of(part), ("origin", "loss", "batch_size")))
            shown.append((part, metric))
            heads = (f"{name}, {whose_row(part, scale)}", dataset_title(metric))
            row.append(panel(part, metric, heads, are_drawn(given), found.origins))
        draws += row if any(row) else []
    paper_row: list[Draw | None] = []
    for setup, (name, source, metric) in SETUPS.items():
        curves = curves_of(found, source)
        if setup in in_ours or curves.empty:
            paper_row.append(None)
            continue
        drawn.append(tidy(curves, [metric], series_of(curves), ("origin", "loss", "batch_size")))
        heads = (f"{name}, paper ({source.replace('-', ' ')})", f"{dataset_title(metric)}")
        paper_row.append(panel(curves, metric, heads))
    draws = _with_paper_row(draws, paper_row)
    lacking = [name for setup, (name, *_) in SETUPS.items() if setup not in set(given["setup"])]
    full, column = full_and_column(draws, 3, legend_of(found, [part for part, _ in shown]))
    yield Exhibit(
        "figure-2",
        "Accuracy against batch size",
        sentences(
            "As in the paper's figure 2: SigLiT and SigLIP by 0-shot accuracy, mSigLIP by the mean recall of all "
            "languages; the paper's curves (hollow marks, by examples seen) from its tables 8, 5 and 9.",
            whose(ours),
            f"{listed(found.origins)}: imported." if found.origins else "",
            f"No runs of {listed(lacking)} yet." if lacking else "",
            "Vertical axes do not start at zero.",
            _points(shown),
            unfinished(ours, main_metric(ours) or "none"),
            claim(found.claim("figure 2")),
        ),
        full,
        column,
        None,
        pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(),
    )
    yield from _figure_2_retrieval(found, given)


def _with_paper_row(draws: list[Draw | None], paper: list[Draw | None]) -> list[Draw | None]:
    """The paper's curves below ours, or in ours' last row where that has room for all of them."""
    if not any(paper):
        return draws
    last = draws[-len(paper) :]
    fits = bool(last) and all(own is None or theirs is None for own, theirs in zip(last, paper, strict=True))
    if not fits:
        return draws + paper
    return [*draws[: -len(paper)], *(own or theirs for own, theirs in zip(last, paper, strict=True))]


def _points(shown: Sequence[tuple[pd.DataFrame, str]]) -> str:
    """What points mean, said of the panel whose points stand for most seeds."""
    own = [(part[part["origin"] == ""], metric) for part, metric in shown]
    own = [(part, metric) for part, metric in own if len(tables.placed(part))]
    if not own:
        return ""
    part, metric = max(own, key=lambda each: each[0]["seed"].nunique())
    return points(part, metric, tables.series_columns(part))


def _figure_2_retrieval(found: Found, given: pd.DataFrame) -> Iterator[Exhibit]:
    """What figure 2 leaves out: our other data sets, and the paper's ImageNet accuracy of mSigLIP (table 2)."""
    draws, drawn, shown = [], [], []
    for scale in scales_of(given):
        for setup, (name, *_) in SETUPS.items():
            part = given[(given["setup"] == setup) & (given["scale"] == scale)]
            for metric in further_metrics(part, found.metrics):
                shown.append(part)
                drawn.append(tidy(part, [metric], series_of(part), ("origin", "loss", "batch_size")))
                heads = (f"{name}, {whose_row(part, scale)}", dataset_title(metric))
                draws.append(panel(part, metric, heads, are_drawn(given, 2), found.origins))
    if not draws:
        return
    curves = curves_of(found, "table-2")
    if len(curves) and "msiglip" in set(given["setup"]):
        drawn.append(tidy(curves, ["imagenet1k/acc1"], series_of(curves), ("origin", "loss", "batch_size")))
        draws.append(panel(curves, "imagenet1k/acc1", ("mSigLIP, paper (table 2)", "ImageNet")))
    full, column = full_and_column(draws, 3, legend_of(found, shown))
    text = sentences(
        "What figure 2 does not show: retrieval as the mean recall at 1 of images and texts, and mSigLIP's accuracy "
        "on English classes (the paper's: table 2).",
        whose(pd.concat(shown)[lambda rows: rows["origin"] == ""]),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("figure-2-retrieval", "Further metrics against batch size", text, full, column, None, data)


def figure_3(found: Found) -> Iterator[Exhibit]:
    """A panel for each loss, a line for each number of examples seen: ours, and table 8."""
    ours = found.of("figure 3")
    ours = ours[ours["setup"] == "siglit"]
    if tables.finished(ours).empty:
        return
    parts, drawn = [], []
    for scale in scales_of(ours):
        part = ours[ours["scale"] == scale]
        if tables.finished(part)["examples_seen"].nunique() > 1:
            parts.append((part, main_metric(part, found.metrics), f"ours ({scale} scale)"))
    has_ours = bool(parts)
    parts.append((curves_of(found, "table-8"), "imagenet1k/acc1", "paper"))
    draws = []
    for part, metric, name in (each for each in parts if each[1] and len(each[0])):
        drawn.append(tidy(part, [metric], series_of(part), ("origin", "loss", "batch_size")))
        for loss in sorted(tables.placed(part)["loss"].unique()):
            of_loss = part[part["loss"] == loss]
            draws.append(panel(of_loss, metric, (f"{loss}, {name}", dataset_title(metric)), are_drawn(of_loss)))
    if not draws:
        return
    full, column = full_and_column(draws, 2, loss_looks(*(part for part, *_ in parts)))
    share_heights(full, 2)
    text = sentences(
        "SigLiT by the number of examples seen, as in the paper's figure 3; its own from table 8.",
        whose(ours) if has_ours else "All our SigLiT runs have one length, so they are in figure 2 alone.",
        "The paper's claim: larger batches need longer training; with 450M examples accuracy falls early.",
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("figure-3", "SigLiT: batch size and training length", text, full, column, None, data)


def by_sweep(found: Found, covered: Sequence[str]) -> Iterator[Exhibit]:
    """For each sweep that has no exhibit of its own: each metric against batch size."""
    for sweep, runs in found.ours.groupby("sweep", sort=True):
        placed = tables.placed(runs)
        if placed.empty or sweep in covered:
            continue
        metrics = [m for m in found.metrics if m in runs and runs[m].notna().any()]
        metrics = metrics or [m for m in tables.main_metrics(runs) if runs[m].notna().any()]
        metrics = metrics or ["no evaluation/accuracy"]
        runs = runs if metrics[0] in runs else runs.assign(**{metrics[0]: float("nan")})
        draws, drawn = [], []
        for metric in metrics:
            for key, part in tables.split(tables.placed(runs), ["setup", "scale"]):
                if tables.is_evaluated_on(part, metric, metrics):
                    heads = (dataset_title(metric), panel_name(key))
                    draws.append(panel(part, metric, heads, are_drawn(runs, len(metrics))))
                    drawn.append(tidy(part, [metric], series_of(part), ("loss", "batch_size")))
        series = series_of(runs)
        names = listed([column.replace("_", " ") for column in series])
        crowded = len(placed.drop_duplicates(series)) > MOST_SERIES if series else False
        full, column = full_and_column(draws, min(3, max(2, len(draws))), loss_looks(runs))
        text = sentences(
            f"Sweep {sweep}." * bool(sweep),
            whose(runs),
            f"A line for each {names}; they are too many to be named here." if crowded else "",
            points(runs, metrics[0], series),
            unfinished(runs, metrics[0]),
        )
        data = pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame()
        name = f"figure-accuracy-{stem(sweep)}"
        yield Exhibit(name, f"{sweep or 'runs'}: accuracy against batch size", text, full, column, None, data)


def varies(runs: pd.DataFrame) -> bool:
    """Whether a series of these runs has several batch sizes, and there are few enough series to be drawn."""
    series = tables.series_columns(runs)
    groups = runs.groupby(series, dropna=False) if series else [((), runs)]
    sizes = [part["batch_size"].nunique() for _, part in groups]
    return max(sizes, default=0) > 1


def panel(
    part: pd.DataFrame, metric: str, heads: Sequence[str], singles: bool = True, origins: tuple[str, ...] = ()
) -> Draw:
    def draw(axes: Axes) -> None:
        accuracy_by_batch_size(part, metric, axes, singles=singles, origins=origins)
        title(axes, *heads)

    return draw


def curves_of(found: Found, source: str) -> pd.DataFrame:
    """One of the paper's tables; of table 9 without the model that was scaled up."""
    curves = found.paper_table(source)
    return curves[curves["note"].isna()] if "note" in curves else curves


def series_of(part: pd.DataFrame) -> list[str]:
    """The columns that tell the series of any of its origins apart."""
    if "origin" not in part:
        return tables.series_columns(part)
    found = [tables.series_columns(rows) for _, rows in part.groupby("origin")]
    return list(dict.fromkeys(column for columns in found for column in columns))


def further_metrics(part: pd.DataFrame, chosen: Sequence[str] = ()) -> list[str]:
    """The metrics that are drawn beside the main one."""
    if tables.placed(part).empty:
        return []
    main = main_metric(part, chosen)
    wanted = chosen or tables.main_metrics(part)
    return [metric for metric in wanted if metric != main and metric in part and part[metric].notna().any()]


def scales_of(table: pd.DataFrame) -> list[str]:
    """Scales that have runs, the smallest first, others after them."""
    found = set(tables.placed(table)["scale"].astype(str))
    return [scale for scale in SCALES if scale in found] + sorted(found - set(SCALES))


def dataset_title(metric: str) -> str:
    """imagenet1k → ImageNet; shapes_retrieval_mean → 'shapes_retrieval, all languages'."""
    dataset = tables.metric_title(metric)[0]
    plain = dataset.removesuffix("_mean")
    return DATASETS.get(dataset, dataset if plain == dataset else f"{plain}, all languages")


def panel_name(key: Mapping[str, object]) -> str:
    """{'setup': 'siglip', 'scale': 'laptop'} → 'SigLIP, laptop scale'."""
    scale = f"{key['scale']} scale" if key.get("scale") else ""
    return ", ".join(filter(None, [setup_name(key.get("setup", "")), scale]))


def setup_name(setup: object) -> str:
    """siglip → SigLIP; others as they are called."""
    return SETUPS[str(setup)][0] if setup in SETUPS else str(setup)


def whose_row(part: pd.DataFrame, scale: str) -> str:
    """Of a panel: whose rows it shows."""
    ours, paper = (bool((part["origin"] == origin).any()) for origin in ("", "paper"))
    name = f"ours ({scale} scale)" if ours else "imported"
    return f"{name}, paper's" if paper else name


def legend_of(found: Found, parts: Sequence[pd.DataFrame]) -> dict[str, dict[str, object]]:
    """The losses, the paper's hollow mark, and each imported series."""
    looks = loss_looks(*parts) or loss_looks(found.paper)
    looks["the paper"] = {"color": INK, "marker": "o", "markerfacecolor": PAPER, "linestyle": "-", "linewidth": 1.1}
    imported = {str(origin) for part in parts for origin in part["origin"].unique()} & set(found.origins)
    return looks | {origin: look("sigmoid", origin, found.origins) for origin in sorted(imported)}
