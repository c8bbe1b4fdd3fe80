"""The report's folder: figures as PNG and SVG, tables as CSV and Markdown, and one HTML page that holds them all.

The page needs nothing but itself: figures are inline SVG, fonts are the reader's own, there is no script. Everything
that comes from a run passes through the template's escaping. What its sentences say is computed from the table.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from repro.counts import format_batch_size, format_bytes, format_examples
from repro.errors import InputError
from repro.report import figures, tables
from repro.sweep import stands_in

PAGE_COLOURS = {
    figures.INK: "currentColor",
    figures.PAPER: "var(--paper)",
    figures.GRID: "var(--grid)",
    figures.LOSS_STYLES["sigmoid"]["color"]: "var(--sigmoid)",
    figures.LOSS_STYLES["softmax"]["color"]: "var(--softmax)",
}
"""A figure's colours on the page, which has a light and a dark dress."""


@dataclass(frozen=True)
class Drawing:
    """A figure on the page. `narrow` is its form for a phone, where it has one."""

    name: str
    title: str
    caption: str
    svg: Markup
    narrow: Markup | None = None


def write(
    table: pd.DataFrame,
    published: pd.DataFrame,
    folder: Path,
    name: str,
    metrics: Sequence[str] = (),
    command: str = "",
) -> Path:
    """Write the report of one sweep's table and return the page's path.

    metrics: the columns of the accuracy figure, each data set's main one by default. Raises InputError.
    """
    import jinja2

    runs = tables.with_mean_recall(table)
    tables.check_metrics(runs, metrics)
    metrics = list(metrics) or tables.main_metrics(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawings = write_figures(runs, published, folder, metrics)
        frames = write_tables(table, runs, published, folder, metrics)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        text = environment.get_template("page.html.j2").render(
            name=name,
            summary=summary(runs),
            warnings=cautions(runs),
            findings=findings(runs, metrics),
            drawings=drawings,
            runs=_shown_runs(runs, metrics),
            command=command,
            **frames,
        )
        page = folder / "index.html"
        page.write_text(text)
    except OSError as error:
        raise InputError(f"{folder}: the report cannot be written here: {error.strerror}") from None
    return page


def write_figures(runs: pd.DataFrame, published: pd.DataFrame, folder: Path, metrics: Sequence[str]) -> list[Drawing]:
    """Each figure as PNG and SVG in the folder, and as it goes into the page."""
    reading = interval_sentence(runs)
    drawn = {
        "accuracy": (
            "Accuracy against batch size",
            figures.accuracy(runs, published, metrics),
            f"In the form of the paper's figure 2: our runs first, then the paper's curves ({tables.PAPER}, tables 8 "
            "and 5, ImageNet). Data, towers and lengths differ between the panels, so compare the shapes of curves, "
            f"not their heights. Vertical axes do not start at zero. {reading}",
        ),
        "throughput": (
            "Throughput against batch size",
            figures.throughput(runs),
            f"Training speed, evaluation not counted. {reading}",
        ),
        "memory": (
            "Peak memory against batch size",
            figures.memory(runs),
            f"The most memory that a run's process held (on a GPU: the device's). {reading}",
        ),
    }
    drawings = [
        Drawing(name, title, caption, _inline(figures.save(figure, folder, name), name))
        for name, (title, figure, caption) in drawn.items()
    ]
    column = figures.accuracy(runs, published, metrics, columns=1)
    narrow = _inline(figures.save(column, folder, "accuracy-column"), "accuracy-column")
    return [replace(drawings[0], narrow=narrow), *drawings[1:]]


def write_tables(
    table: pd.DataFrame, runs: pd.DataFrame, published: pd.DataFrame, folder: Path, metrics: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """runs.csv is the given table, unchanged; results.csv holds every metric, its Markdown the shown ones."""
    frames = {
        "layout": tables.results_by_batch_size(runs, metrics),
        "differences": tables.differences(runs, metrics),
        "provenance": tables.provenance(
            runs, [(title, figures.paper_curves(published, s)) for s, (title, _) in figures.PAPER_PANELS.items()]
        ),
    }
    results = tables.results(runs, tables.metric_columns(runs))
    for name, csv, readable in (
        ("runs", table, _shown_runs(runs, metrics)),
        ("results", results, frames["layout"]),
        ("differences", frames["differences"], frames["differences"]),
        ("provenance", frames["provenance"], frames["provenance"]),
    ):
        csv.to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.md").write_text(tables.markdown(readable))
    return frames


def summary(runs: pd.DataFrame) -> str:
    """What was run, in one sentence or two, counted from the table."""
    counts = runs["status"].value_counts()
    done = int(counts.get("finished", 0))
    others = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "finished")
    text = f"{_count(len(runs), 'run')}{f': {done} finished, {others}' if others else ', all finished'}."
    placed = tables.placed(runs)
    if placed.empty:
        return text
    sizes = placed["batch_size"]
    spread = " to ".join(dict.fromkeys(format_batch_size(int(size)) for size in (sizes.min(), sizes.max())))
    setups = ", ".join(f"{key['setup']} at {key['scale']} scale" for key, _ in tables.split(placed, ["setup", "scale"]))
    lengths = " and ".join(format_examples(count) for count in sorted(placed["examples_seen"].unique()))
    seeds = sorted(int(seed) for seed in placed["seed"].dropna().unique())
    text += f" Setup {setups}; {' and '.join(sorted(placed['loss'].unique()))} loss; batch sizes {spread}; "
    text += f"{lengths} examples seen by each run; {_count(len(seeds), 'seed')} ({', '.join(map(str, seeds))})."
    if "data" in placed:
        text += f" Data: {', '.join(sorted(map(str, placed['data'].dropna().unique())))}."
    return text


def cautions(runs: pd.DataFrame) -> list[str]:
    """What a reader must know before reading the figures."""
    found = []
    if tables.finished(runs).empty:
        found.append(
            "No run has finished: the panels of our runs are empty but for marks, and nothing can be compared."
        )
    kinds = runs[["setup", "scale"]].dropna().drop_duplicates()
    found += [text for setup, scale in kinds.itertuples(index=False) if (text := stands_in(setup, scale))]
    if "laptop" in set(runs["scale"].dropna()):
        drawn = "data" in runs and runs["data"].astype(str).str.startswith("shapes").any()
        world = ", on the embedded data, which are drawn scenes" if drawn else ""
        found.append(
            f"Laptop scale: small towers trained for minutes{world}. These numbers do not reproduce the paper's "
            "absolute ones; they let you see how both losses behave as the batch grows, beside the paper's curves."
        )
    if "git_dirty" in runs and runs["git_dirty"].eq(True).any():
        found.append("Some runs were made from code with uncommitted changes (see provenance).")
    return found


def interval_sentence(runs: pd.DataFrame) -> str:
    """What points and bars mean in this table's figures."""
    most = _most_seeds(runs)
    if most == 0:
        return "A cross marks a run without a result."
    if most == 1:
        text = "One run a point: no interval can be given."
    else:
        text = f"Lines join means over up to {most} seeds, small marks are single runs, bars are 95% intervals of the "
        text += "mean (Student's t), cut off at the panel's edge."
    crosses = " A cross marks a run without a result, with its status." if (runs["status"] != "finished").any() else ""
    return text + crosses


def findings(runs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Facts of the table, one for each metric and series: where each loss is best, and which is ahead how often."""
    by, found = tables.series_columns(runs), []
    for metric in metrics:
        for key, part in tables.split(tables.placed(runs), by):
            rows = tables.best(part, metric).to_dict("records")
            if rows:
                head = ", ".join(filter(None, [" ".join(tables.metric_title(metric)), tables.series_label(key)]))
                facts = [", ".join(map(_best, rows)), *_comparison(tables.differences(part, [metric]))]
                found.append(f"{head}: {'; '.join(facts)}.")
    if found and _most_seeds(runs) == 1:
        found.append(
            "Each point is one seed: how much two seeds differ is unknown, so none of these differences can be told "
            "from chance. More seeds: repro sweep … --seed 0 1 2"
        )
    return found


def _best(row: dict[str, object]) -> str:
    edge = ", where the grid ends, so the best may lie beyond" if row["at_edge"] else ""
    size, seeds = format_batch_size(int(row["batch_size"])), _count(int(row["seeds"]), "seed")
    return f"{row['loss']} is best at batch size {size} ({100 * row['mean']:.1f}%, {seeds}){edge}"


def _comparison(rows: pd.DataFrame) -> list[str]:
    if rows.empty:
        return []
    points = rows["difference_points"]
    text = f"sigmoid is ahead at {int((points > 0).sum())} of {_count(len(rows), 'batch size')}, "
    text += f"by {tables.signed(points.min())} to {tables.signed(points.max())} points"
    if rows["seeds"].max() > 1:
        clear = int(((rows["low_points"] > 0) | (rows["high_points"] < 0)).sum())
        text += f"; at {clear} the 95% interval leaves out zero (each alone, not corrected for many comparisons)"
    return [text]


def _shown_runs(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Every run with what a reader looks for; all other columns are in runs.csv."""
    sizes = [format_batch_size(int(size)) if _is_number(size) else "" for size in runs["batch_size"]]
    shown = pd.DataFrame({"loss": runs["loss"].fillna(""), "batch size": sizes})
    shown["seed"] = [f"{seed:.0f}" if _is_number(seed) else "" for seed in runs["seed"]]
    shown["status"], shown["reason"] = runs["status"], runs["reason"].fillna("")
    for metric in metrics:
        values = tables.numbers(runs[metric])
        shown[f"{' '.join(tables.metric_title(metric))} (%)"] = [
            f"{100 * v:.1f}" if _is_number(v) else "" for v in values
        ]
    shown["examples/s"] = [f"{v:,.0f}" if _is_number(v) else "" for v in tables.numbers(runs["examples_per_second"])]
    memory = tables.numbers(runs["peak_memory_bytes"])
    shown["peak memory"] = [format_bytes(count) if _is_number(count) else "" for count in memory]
    shown["run"] = runs["run_id"]
    return shown if shown["reason"].any() else shown.drop(columns="reason")


def _inline(svg: str, name: str) -> Markup:
    """An SVG file's text → an element of the page: its colours the page's, its width the column's, its ids its own."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'\1style="--natural-width: \2px"', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{name}-", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return Markup(svg)  # noqa: S704 (matplotlib has escaped the text in it)


def _most_seeds(runs: pd.DataFrame) -> int:
    found = tables.summarise(runs, "examples_per_second", tables.series_columns(runs))
    return int(found["seeds"].max()) if len(found) else 0


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
