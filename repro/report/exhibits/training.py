"""What happens along training: figure 4 (a pretrained tower that goes on learning), figure 5 (β2), curves of others."""

from collections.abc import Iterator, Sequence

import pandas as pd
from matplotlib.axes import Axes

from repro.config.spec import RunSpec
from repro.report import tables
from repro.report.draw import accuracy_along_training, training_curves
from repro.report.draw.axes import title
from repro.report.exhibits.batch_size import dataset_title
from repro.report.exhibits.exhibit import Exhibit, claim, listed, points, sentences, stem, tidy, unfinished, whose
from repro.report.figures import Draw, full_and_column
from repro.report.found import Found
from repro.report.style import looks

POINT = "examples_seen_at"
CURVES = ("training_loss", "gradient_norm", "update_norm")


def figure_4(found: Found) -> Iterator[Exhibit]:
    """0-shot and few-shot accuracy along training: with decay on the pretrained weights, without, from scratch."""
    names = found.sweeps_of("figure 4")
    evaluations = _of(found.evaluations, names)
    if evaluations.empty or POINT not in evaluations:
        return
    evaluations = tables.with_mean_recall(evaluations)
    evaluations = evaluations.assign(**{POINT: tables.numbers(evaluations[POINT])}).dropna(subset=[POINT])
    evaluations = evaluations if "scale" in evaluations else evaluations.assign(scale="")
    evaluations = evaluations.assign(case=[_case(row) for row in evaluations.to_dict("records")])
    metrics = [m for m in tables.metric_columns(evaluations) if m.endswith("acc1") and evaluations[m].notna().any()]
    metrics = sorted(metrics, key=lambda metric: ("shot" in metric, metric))
    draws: list[Draw] = []
    drawn = []
    for scale, part in evaluations.groupby("scale"):
        for metric in metrics:
            draws.append(_along(part, metric, (_metric_title(metric), f"{dataset_title(metric)}, {scale} scale")))
            drawn.append(tidy(part, [metric], ("scale",), ("case", POINT)))
    if not draws:
        return
    ours = found.of("figure 4")
    legend = looks(dict.fromkeys(evaluations["case"]))
    full, column = full_and_column(draws, 2, legend)
    text = sentences(
        "Accuracy along training of an image tower that was pretrained, with weight decay on all weights and without "
        "it on the pretrained ones, and from scratch; the few-shot probe is linear, on frozen images.",
        whose(ours),
        points(evaluations, metrics[0], (), ("case", POINT)),
        unfinished(ours, metrics[0]),
        claim(found.claim("figure 4"), published=False),
    )
    data = pd.concat(drawn, ignore_index=True)
    yield Exhibit("figure-4", "Fine-tuning a pretrained image tower", text, full, column, None, data)


def figure_5(found: Found) -> Iterator[Exhibit]:
    """Loss, norm of the gradient and of the update along training, by β2: a row of panels for each learning rate."""
    names = found.sweeps_of("figure 5")
    made = _curves(_of(found.curves, names), ["beta2"])
    if made is None:
        return
    draws, legend, data, settings = made
    full, column = full_and_column(draws, 3, legend, row_cm=4.6)
    ours = found.of("figure 5")
    text = sentences(
        f"Along training by Adam's β2: {listed([name.replace('_', ' ') for name in CURVES])}"
        f"{f', a row for each {settings}' if settings else ''}. A line a run.",
        whose(ours),
        unfinished(ours, "final_loss"),
        claim(found.claim("figure 5"), published=False),
    )
    yield Exhibit("figure-5", "Stability against β2", text, full, column, None, data)


def curves_by_sweep(found: Found) -> Iterator[Exhibit]:
    """Curves of any other sweep that names columns of its logs."""
    if found.curves.empty or "sweep" not in found.curves:
        return
    shown = found.sweeps_of("figure 5")
    for sweep, table in found.curves.groupby("sweep", sort=True):
        if sweep in shown:
            continue
        made = _curves(table, [column for column in _settings(table) if column != "scale"][:1] or ["seed"])
        if made is None:
            continue
        draws, legend, data, settings = made
        full, column = full_and_column(draws, 3, legend, row_cm=4.6)
        text = sentences(
            f"Sweep {sweep}: columns of the logs along training.", f"A row for each {settings}." * bool(settings)
        )
        yield Exhibit(f"figure-curves-{stem(sweep)}", f"{sweep}: along training", text, full, column, None, data)


def _curves(
    table: pd.DataFrame, by: Sequence[str]
) -> tuple[list[Draw], dict[str, dict[str, object]], pd.DataFrame, str] | None:
    """Panels of each curve for each setting beside `by`; legend, numbers, and the settings' names. None where empty."""
    if table.empty or not {POINT, "run_id", *by} <= set(table.columns):
        return None
    table = table.assign(**{POINT: tables.numbers(table[POINT])})
    known = {*RunSpec.model_fields, "run_id", "sweep", POINT}
    columns = [c for c in CURVES if c in table] + [c for c in table.columns if c not in known and c not in CURVES]
    columns = [c for c in columns if tables.numbers(table[c]).notna().any()]
    if not columns:
        return None
    rows = [column for column in _settings(table) if column not in by]
    draws = []
    for key, part in tables.split(table, rows):
        for column in columns:
            draws.append(_curve(part, column, by, (column.replace("_", " "), tables.series_label(key))))
    legend = looks([tables.series_label(key) for key, _ in tables.split(table, by)])
    plain = {name: {k: v for k, v in style.items() if k != "marker"} for name, style in legend.items()}
    data = table[["run_id", *by, *rows, "seed"] if "seed" in table and "seed" not in by else ["run_id", *by, *rows]]
    data = pd.concat([data, table[[POINT]], table[columns].apply(tables.numbers)], axis=1)
    return draws, plain, data, listed([column.replace("_", " ") for column in rows])


def _settings(table: pd.DataFrame) -> list[str]:
    """Fields of the runs that differ, but the seed and what the curves themselves overwrite."""
    fields = [column for column in table.columns if column in RunSpec.model_fields]
    return [c for c in fields if c != "seed" and table[c].nunique(dropna=False) > 1]


def _of(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    return table[table["sweep"].isin(names)] if "sweep" in table else table[:0]


def _case(row: dict[str, object]) -> str:
    """What figure 4 tells apart."""
    if row.get("setup") != "finetune":
        return "from scratch"
    decay = row.get("image_weight_decay")
    if decay is None or decay != decay:
        return "pretrained, decay on all weights"
    return "pretrained, no decay on it" if decay == 0 else f"pretrained, decay {decay:g} on it"


def _metric_title(metric: str) -> str:
    name = metric.rpartition("/")[2]
    return "0-shot" if name == "acc1" else f"{name.partition('_')[0].replace('shot', '-shot')} linear probe"


def _along(part: pd.DataFrame, metric: str, heads: Sequence[str]) -> Draw:
    def draw(axes: Axes) -> None:
        accuracy_along_training(part, metric, axes)
        title(axes, *heads)

    return draw


def _curve(part: pd.DataFrame, column: str, by: Sequence[str], heads: Sequence[str]) -> Draw:
    def draw(axes: Axes) -> None:
        training_curves(part, column, by, axes, log=column != "training_loss")
        title(axes, *filter(None, heads))

    return draw
