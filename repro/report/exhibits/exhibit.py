"""An exhibit: one figure or table with its caption and its numbers; cells, and the sentences that captions share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from repro.config.spec import SCALES
from repro.config.sweep import stands_in
from repro.config.units import format_examples
from repro.report.draw.axes import MOST_POINTS
from repro.report.figures import PANEL_CM, Look, Panel, full_and_column
from repro.report.inputs import Inputs, declared
from repro.results import tables

UNPUBLISHED = "The paper shows this as a figure whose numbers are not published"
SETUPS = {"siglit": "SigLiT", "siglip": "SigLIP", "msiglip": "mSigLIP"}
DATASETS = {"imagenet1k": "ImageNet", "crossmodal3600_mean": "XM3600, 36 languages"}
PLACE = ("origin", "loss", "batch_size")
"""Columns that place a point in a figure of batch sizes."""


@dataclass(frozen=True)
class Exhibit:
    """One figure or table of the report; what is None is left out.

    name: stem of its files: 'figure-2', 'table-5'. data: the numbers behind it, tidy. table: as it is read, strings in
    cells. figure: at full width, 17 cm or less; column: for one column of 8 cm.
    """

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    table: pd.DataFrame | None = None
    figure: Figure | None = None
    column: Figure | None = None


class Study:
    """Our runs of one exhibit of the paper, such as 'table 4', and the figure or table that they make.

    metrics: those that the runs have, of which `metric` sums them up; none where no run has finished.
    """

    def __init__(self, inputs: Inputs, number: str, setup: str = "", name: str = "") -> None:
        runs = inputs.of(number)
        self.inputs, self.number, self.name = inputs, number, name or number.replace(" ", "-")
        self.runs = runs[runs["setup"] == setup] if setup else runs
        self.is_finished = len(tables.finished(self.runs)) > 0
        self.metrics = present_metrics(self.runs, inputs.metrics) if self.is_finished else []
        self.metric = main_metric(self.runs, inputs.metrics) if self.is_finished else ""

    def caption(self, *more: str, value: str = "", published: bool = True, **values: str) -> str:
        """Intro, setup of our runs, more, how many have no result (`value`), and the paper's claim."""
        lacking = unfinished(self.runs, value or self.metric or "final_loss")
        bears_on = claim(self.inputs, self.number, published)
        return sentences(intro(self.name, **values), described(self.runs), *more, lacking, bears_on)

    def table(self, frame: pd.DataFrame, data: pd.DataFrame, *more: str, **options: str) -> Exhibit:
        return Exhibit(self.name, title_of(self.name), self.caption(*more, **options), data, frame)


def title_of(name: str) -> str:
    return declared()["exhibits"][name]["title"]


def intro(name: str, **values: str) -> str:
    """The beginning of an exhibit's caption, its {placeholders} filled in."""
    return declared()["exhibits"][name]["caption"].format(**values)


def figure(
    name: str,
    panels: Sequence[Panel | None],
    columns: int,
    caption: str,
    legend: Mapping[str, Look] | None = None,
    row_cm: float = PANEL_CM,
    data: pd.DataFrame | None = None,
    title: str = "",
) -> Exhibit:
    """An exhibit of panels, `columns` a row (None leaves a place empty). data: that of the panels where None."""
    title = title or title_of(name)
    full, column = full_and_column([each and each.draw for each in panels], columns, legend, row_cm)
    parts = [each.data for each in panels if each]
    data = pd.concat(parts, ignore_index=True) if data is None and parts else data
    return Exhibit(name, title, caption, pd.DataFrame() if data is None else data, None, full, column)


def crossed(
    cells: Mapping[tuple[str, str], Mapping], name: str, order: Sequence | None = None, write=str
) -> pd.DataFrame:
    """A table of cells[heads][row] = text. name: of its rows. order: of the rows. write: a row's words."""
    frame = pd.DataFrame(cells).fillna("")
    frame = frame.reindex(sorted(frame.index) if order is None else order).fillna("")
    frame.index = pd.Index([write(row) for row in frame.index], name=name)
    return frame


def sentences(*parts: str) -> str:
    """A caption of its parts, those that are empty left out."""
    return " ".join(part.strip() for part in parts if part and part.strip())


def described(runs: pd.DataFrame) -> str:
    """Setup, scale, data and length of our runs, and what stands in for data of the paper's that are private."""
    placed = tables.placed(runs)
    if placed.empty:
        return ""
    kinds = [key for key, _ in tables.split(placed, ["setup", "scale"])]
    setups = [f"{key['setup'] or 'unknown setup'} at {key['scale'] or 'unknown'} scale" for key in kinds]
    lengths = sorted(count for count in tables.numbers(placed["examples_seen"]).dropna().unique() if count > 0)
    data = tables.values_of(placed, "data")
    text = f"Ours: {listed(setups)}"
    text += f", {listed([format_examples(length) for length in lengths[:4]])} examples seen" if lengths else ""
    text += f", data {listed([str(name) for name in data[:3]])}" if data else ""
    return f"{text}. {stand_ins(kinds)}".strip()


def stand_ins(kinds: Sequence[Mapping[str, object]]) -> str:
    words = dict.fromkeys(text for kind in kinds if (text := stands_in(str(kind["setup"]), str(kind["scale"]))))
    if any(kind["scale"] == "laptop" for kind in kinds):
        words["Small towers on drawn scenes stand in for the paper's: compare shapes, not heights."] = None
    return " ".join(words)


def points(
    runs: pd.DataFrame, value: str, by: Sequence[str] = (), within: Sequence[str] = ("loss", "batch_size")
) -> str:
    """Explain points and bars, for these runs."""
    if value not in runs or any(column not in runs for column in (*by, *within)):
        return ""
    most = int(max(tables.summarise(runs, value, by, within)["seeds"], default=0))
    if most <= 1:
        return "One run a point, so no interval can be given." if most else ""
    text = f"Lines join means over up to {most} seeds; bars are 95% intervals of the mean (Student's t)"
    return f"{text}, small points single runs." if are_drawn(runs) else f"{text}. Single runs are too many to be drawn."


def are_drawn(runs: pd.DataFrame, panels: int = 1) -> bool:
    """Tell whether single runs are drawn, and not only their means."""
    return len(runs) * panels <= MOST_POINTS


def unfinished(runs: pd.DataFrame, value: str) -> str:
    """Count the runs that have no number, by status."""
    placed = tables.placed(runs)
    counts = tables.missing(placed if value in placed else placed.assign(**{value: None}), value)
    total = sum(counts.values())
    statuses = listed([f"{count} {status}" for status, count in counts.items()])
    return f"{total} run{'s have' if total > 1 else ' has'} no result ({statuses})." if counts else ""


def listed(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def claim(inputs: Inputs, exhibit: str, published: bool = True) -> str:
    """The claim of the paper that an exhibit bears on."""
    text = inputs.claim(exhibit)
    if not text:
        return "" if published else f"{UNPUBLISHED}."
    return f"The paper's claim: {text}" if published else f"{UNPUBLISHED}; its claim: {text}"


def percent(number: float, std: float = float("nan"), seeds: int = 1) -> str:
    """0.3412, 0.004, 3 → '34.1 ± 0.4'."""
    if pd.isna(number):
        return ""
    return f"{100 * number:.1f}" + (f" ± {100 * std:.1f}" if seeds > 1 and not pd.isna(std) else "")


def cell(runs: pd.DataFrame, metric: str) -> str:
    """Mean ± std over these runs' seeds in percent, with the statuses of those without a number."""
    if metric not in runs:
        return ""
    runs = runs[["status", metric]]
    done = tables.numbers(runs.loc[runs["status"] == "finished", metric]).dropna()
    parts = [percent(done.mean(), done.std(), len(done))] if len(done) else []
    counts = tables.missing(runs, metric)
    return "; ".join([*parts, *(f"{n} {status}" if len(runs) > 1 else status for status, n in counts.items())])


def tidy(runs: pd.DataFrame, metrics: Sequence[str], by: Sequence[str], within: Sequence[str] = PLACE) -> pd.DataFrame:
    """Numbers that are drawn, in percent: a row for each metric and point with seeds, mean, std and interval."""
    parts = []
    for metric in (m for m in metrics if m in runs):
        means = tables.summarise(runs, metric, by, within)
        means = means.rename(columns={name: f"{name}_percent" for name in ("mean", "std", "low", "high")})
        scaled = {name: 100 * means[name] for name in means if str(name).endswith("_percent")}
        parts.append(means.assign(metric=metric, **scaled))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["metric", *by, *within])


def present_metrics(runs: pd.DataFrame, chosen: Sequence[str] = ()) -> list[str]:
    """The chosen metrics that these runs have, else each data set's main one."""
    have = [metric for metric in chosen if metric in runs and runs[metric].notna().any()]
    return have or [metric for metric in tables.main_metrics(runs) if runs[metric].notna().any()]


def main_metric(runs: pd.DataFrame, chosen: Sequence[str] = ()) -> str:
    """One metric that sums these runs up: a chosen one; of msiglip the mean recall of all languages; else the first
    data set's main one. '' where they have none."""
    metrics = present_metrics(runs, chosen)
    if not set(metrics) & set(chosen):
        end = "_mean/" if set(runs["setup"].dropna()) == {"msiglip"} else "/acc1"
        metrics = sorted(metrics, key=lambda m: "_mean/" not in m if end == "_mean/" else not m.endswith(end))
    return metrics[0] if metrics else ""


def by_scale(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(scale, its runs), the smallest scale first, others after those that are known."""
    scales = set(tables.placed(runs)["scale"].astype(str))
    ordered = [scale for scale in SCALES if scale in scales] + sorted(scales - set(SCALES))
    return [(scale, runs[runs["scale"] == scale]) for scale in ordered]


def series_of(part: pd.DataFrame) -> list[str]:
    """The columns that tell the series of any of its origins apart."""
    if "origin" not in part:
        return tables.series_columns(part)
    columns = [tables.series_columns(rows) for _, rows in part.groupby("origin")]
    return list(dict.fromkeys(column for each in columns for column in each))


def dataset_title(metric: str) -> str:
    """imagenet1k → ImageNet; shapes_retrieval_mean → 'shapes_retrieval, all languages'."""
    dataset = tables.metric_title(metric)[0]
    plain = dataset.removesuffix("_mean")
    return DATASETS.get(dataset, dataset if plain == dataset else f"{plain}, all languages")


def metric_head(metric: str, dataset: str = "") -> str:
    """A column's head: 'ImageNet accuracy', 'shapes_retrieval mean recall@1'."""
    name = tables.metric_title(metric)[1].replace("top-1 ", "").replace("mean image and text recall", "mean recall")
    return f"{dataset or dataset_title(metric)} {name}"


def panel_name(key: Mapping[str, object]) -> str:
    """{'setup': 'siglip', 'scale': 'laptop'} → 'SigLIP, laptop scale'."""
    setup = str(key.get("setup", ""))
    return ", ".join(filter(None, [SETUPS.get(setup, setup), f"{key['scale']} scale" if key.get("scale") else ""]))
