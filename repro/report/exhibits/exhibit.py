"""An exhibit: one figure or table with its caption and its numbers, and the sentences that captions share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from repro.config.sweep import stands_in
from repro.config.units import format_examples
from repro.report import tables
from repro.report.style import MOST_POINTS

UNPUBLISHED = "The paper shows this as a figure whose numbers are not published"


@dataclass(frozen=True)
class Exhibit:
    """One figure or table of the report. What is None is left out."""

    name: str
    """Stem of its files, unique: 'figure-2', 'table-5'."""
    title: str
    caption: str
    figure: Figure | None
    """At full width, 17 cm or less."""
    column: Figure | None
    """For one column of 8 cm; None where `figure` is narrow enough itself."""
    table: pd.DataFrame | None
    """As it is read: strings in cells."""
    data: pd.DataFrame
    """The numbers behind it, tidy."""


def stem(name: object) -> str:
    """Any name as a part of a file's name: what is no letter, digit, - or _ becomes -."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in str(name)) or "runs"


def sentences(*parts: str) -> str:
    """A caption of its parts, those that are empty left out."""
    return " ".join(part.strip() for part in parts if part and part.strip())


def whose(runs: pd.DataFrame) -> str:
    """Setup, scale, data and length of our runs, and what stands in for what the paper has and is private."""
    placed = tables.placed(runs)
    if placed.empty:
        return ""
    kinds = tables.split(placed, ["setup", "scale"])
    told = [f"{key['setup'] or 'unknown setup'} at {key['scale'] or 'unknown'} scale" for key, _ in kinds]
    lengths = sorted(count for count in tables.numbers(placed["examples_seen"]).dropna().unique() if count > 0)
    data = tables.values_of(placed, "data")
    text = f"Ours: {listed(told)}"
    text += f", {listed([format_examples(length) for length in lengths[:4]])} examples seen" if lengths else ""
    text += f", data {listed([str(name) for name in data[:3]])}" if data else ""
    return f"{text}. {stand_ins(kinds)}".strip()


def stand_ins(kinds: Sequence[tuple[Mapping[str, object], pd.DataFrame]]) -> str:
    words = dict.fromkeys(text for key, _ in kinds if (text := stands_in(str(key["setup"]), str(key["scale"]))))
    if any(key["scale"] == "laptop" for key, _ in kinds):
        words["Small towers on drawn scenes stand in for the paper's: compare shapes, not heights."] = None
    return " ".join(words)


def points(
    runs: pd.DataFrame, value: str, by: Sequence[str] = (), within: Sequence[str] = ("loss", "batch_size")
) -> str:
    """What points and bars mean, for these runs."""
    if value not in runs or any(column not in runs for column in (*by, *within)):
        return ""
    found = tables.summarise(runs, value, by, within)
    most = int(found["seeds"].max()) if len(found) else 0
    if most == 0:
        return ""
    if most == 1:
        return "One run a point, so no interval can be given."
    text = f"Lines join means over up to {most} seeds; bars are 95% intervals of the mean (Student's t)"
    return f"{text}, small points single runs." if are_drawn(runs) else f"{text}. Single runs are too many to be drawn."


def are_drawn(runs: pd.DataFrame, panels: int = 1) -> bool:
    """Whether single runs are drawn, and not only their means."""
    return len(runs) * panels <= MOST_POINTS


def unfinished(runs: pd.DataFrame, value: str) -> str:
    """How many runs have no number, and what became of them."""
    placed = tables.placed(runs)
    if placed.empty or "status" not in placed:
        return ""
    counts = tables.missing(placed if value in placed else placed.assign(**{value: None}), value)
    if not counts:
        return ""
    total = sum(counts.values())
    what = listed([f"{count} {status}" for status, count in counts.items()])
    return f"{total} run{'s have' if total > 1 else ' has'} no result ({what})."


def listed(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def claim(text: str, published: bool = True) -> str:
    """The claim of the paper that an exhibit bears on."""
    if not text:
        return "" if published else f"{UNPUBLISHED}."
    return f"The paper's claim: {text}" if published else f"{UNPUBLISHED}; its claim: {text}"


def percent(number: float, std: float = float("nan"), seeds: int = 1) -> str:
    """0.3412, 0.004, 3 → '34.1 ± 0.4'."""
    if pd.isna(number):
        return ""
    spread = f" ± {100 * std:.1f}" if seeds > 1 and not pd.isna(std) else ""
    return f"{100 * number:.1f}{spread}"


def cell(runs: pd.DataFrame, metric: str) -> str:
    """Mean ± std over these runs' seeds in percent, with what became of those without a number."""
    if metric not in runs:
        return ""
    runs = runs[["status", metric]]
    done = tables.numbers(runs.loc[runs["status"] == "finished", metric]).dropna()
    parts = [percent(done.mean(), done.std(), len(done))] if len(done) else []
    counts = tables.missing(runs, metric)
    parts += [f"{count} {status}" if len(runs) > 1 else status for status, count in counts.items()]
    return "; ".join(parts)


def tidy(runs: pd.DataFrame, metrics: Sequence[str], by: Sequence[str], within: Sequence[str]) -> pd.DataFrame:
    """What is drawn, in percent: a row for each metric and point with seeds, mean, std and interval."""
    parts = []
    for metric in (m for m in metrics if m in runs):
        found = tables.summarise(runs, metric, by, within)
        found = found.rename(columns={name: f"{name}_percent" for name in ("mean", "std", "low", "high")})
        scaled = {name: 100 * found[name] for name in found if str(name).endswith("_percent")}
        parts.append(found.assign(metric=metric, **scaled))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["metric", *by, *within])


def main_metric(runs: pd.DataFrame, chosen: Sequence[str] = ()) -> str:
    """What sums these runs up: a chosen metric that they have; of msiglip the mean recall of all languages; else the
    first data set's main one. '' where they have none."""
    have = [metric for metric in chosen if metric in runs and runs[metric].notna().any()]
    found = have or [metric for metric in tables.main_metrics(runs) if runs[metric].notna().any()]
    if not have and set(runs["setup"].dropna()) == {"msiglip"}:
        found = sorted(found, key=lambda metric: "_mean/" not in metric)
    elif not have:
        found = sorted(found, key=lambda metric: not metric.endswith("/acc1"))
    return found[0] if found else ""
