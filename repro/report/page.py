"""The report's folder: one HTML page, report.md and report.tex, and the files of each figure and table.

The page needs nothing but itself: no network, no fonts, no library. Figures are inline SVG whose points are links to
rows; the script (page.js) draws the table of runs from the page's own data. Everything that comes from a run passes
through the template's escaping, or is set as text.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from repro.config.errors import InputError
from repro.config.files import write_text
from repro.config.units import format_batch_size, format_bytes, format_examples
from repro.report import figures, growth, markup, words
from repro.report.claims import Claim, claims
from repro.report.exhibits import Exhibit, exhibits
from repro.report.inputs import DEFAULTS, LOGGED, Inputs
from repro.report.words import is_number
from repro.results import tables, write_csv

HERE = Path(__file__).parent
MOST_POINTS = 40
"""Points of a training curve: its drawing is too narrow to show more."""
SECTIONS = ("Figures", "Tables", "Cost")
FILTERS = {
    **{"markdown": markup.markdown_text, "markdown_code": markup.markdown_code, "latex": markup.latex_text},
    **{"markdown_table": markup.markdown_table, "heads": markup.heads},
}


@dataclass(frozen=True)
class Shown:
    """An exhibit on the page: its heading, its figure (narrow: for a phone), and (label, path) of the files to link."""

    exhibit: Exhibit
    heading: str
    svg: Markup | None
    narrow: Markup | None
    files: tuple[tuple[str, str], ...]

    @property
    def section(self) -> str:
        kind = self.exhibit.name.partition("-")[0]
        return {"figure": "Figures", "cost": "Cost", "pareto": "Cost"}.get(kind, "Tables")


def write(inputs: Inputs, folder: Path, title: str, command: str = "") -> Path:
    """Write the report and return the page's path. Raises InputError where the folder cannot be written."""
    from jinja2.utils import htmlsafe_json_dumps

    judged = claims(inputs)
    summary, growing, made = _claims(judged), growth.exhibits(inputs), exhibits(inputs)
    origin = words.provenance(inputs.all, inputs.published)
    origin = Exhibit("provenance", "Where the numbers come from", "", origin)
    runs = inputs.all.drop(columns=set(DEFAULTS) - set(inputs.runs))
    metrics = list(inputs.metrics) or tables.main_metrics(runs)
    page = folder / "index.html"
    try:
        for name in ("figures", "tables"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shown = {exhibit.name: _write_exhibit(exhibit, folder) for exhibit in (*made, *growing, summary, origin)}
        write_csv(inputs.runs, folder / "runs.csv")
        sections = {title: [shown[e.name] for e in made if shown[e.name].section == title] for title in SECTIONS}
        context = {
            "title": title,
            "summary": words.summary(inputs.all),
            "warnings": words.cautions(inputs.all),
            "counted": summary.caption,
            "claims": judged,
            "claims_table": summary.table,
            "claim_files": shown["claims"].files,
            "sections": {title: each for title, each in sections.items() if each},
            "growth": [shown[exhibit.name] for exhibit in growing],
            "exhibits": [shown[exhibit.name] for exhibit in (*made, *growing)],
            "anchors": {*shown, "saturation"} - {"claims", "provenance"},
            "provenance": origin.data,
            "provenance_files": shown["provenance"].files,
            "command": command,
            "maker": f"siglip-repro {version('siglip-repro')}",
            "style": Markup((HERE / "page.css").read_text()),  # noqa: S704 (ours)
            "script": Markup((HERE / "page.js").read_text()),  # noqa: S704 (ours)
            "data": htmlsafe_json_dumps(payload(runs, metrics, inputs.logs), separators=(",", ":")),
            "counting": words.count,
        }
        write_text(folder / "report.md", _render("report.md.j2", context))
        write_text(folder / "report.tex", _render("report.tex.j2", context))
        text = _render("page.html.j2", context)
        before = page.read_text() if page.exists() else ""
        write_text(page, text)
        _remove_stale(folder, before, text)
    except OSError as error:
        raise InputError(f"{folder}: the report cannot be written here: {error.strerror}") from None
    return page


def _render(name: str, context: Mapping[str, object]) -> str:
    """A template filled in. Values in HTML are escaped by the environment, others by filters; LaTeX has << >>."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not name.endswith(".html.j2"),
    )
    environment.filters |= FILTERS
    if name.endswith(".tex.j2"):
        blocks = {"block_start_string": "<%", "block_end_string": "%>", "comment_start_string": "<#"}
        blocks |= {"comment_end_string": "#>", "variable_start_string": "<<", "variable_end_string": ">>"}
        environment = environment.overlay(**blocks)
    return environment.get_template(name).render(context)


def _claims(judged: Sequence[Claim]) -> Exhibit:
    """The claims as a table to read, and with everything."""
    table = pd.DataFrame(
        {
            "claim": claim.text,
            "paper": claim.paper,
            "ours": claim.ours or "–",
            "verdict": str(claim.verdict),
            "source": claim.source,
            "runs": claim.runs,
            "how": claim.how if claim.ours else "",
            "name": claim.name,
        }
        for claim in judged
    )
    counted = words.verdict_counts(list(table["verdict"]))
    return Exhibit("claims", "The paper's claims", counted, table, table[["claim", "paper", "ours", "verdict"]])


def _write_exhibit(exhibit: Exhibit, folder: Path) -> Shown:
    """Write figures as PNG, SVG, PDF, the numbers as CSV, and the table as it is read in Markdown and LaTeX."""
    files, svg = [], []
    for suffix, figure in (("", exhibit.figure), ("-column", exhibit.column)):
        name = exhibit.name + suffix
        svg.append(figure and figures.inline(figures.save(figure, folder / "figures", name), name))
        for kind in figures.FORMATS if figure else ():
            files.append((kind.upper() + " (column)" * bool(suffix), f"figures/{name}.{kind}"))
    place, table = f"tables/{exhibit.name}", exhibit.table
    write_csv(exhibit.data, folder / f"{place}.csv")
    files.append(("CSV", f"{place}.csv"))
    if table is not None:
        write_text(folder / f"{place}.md", markup.markdown_table(table))
        caption = f"{exhibit.title}. {exhibit.caption}"
        write_text(folder / f"{place}.tex", markup.latex_table(table, caption, f"tab:{exhibit.name}"))
        files += [("Markdown", f"{place}.md"), ("LaTeX", f"{place}.tex")]
    return Shown(exhibit, _heading(exhibit), *svg, tuple(files))


def _heading(exhibit: Exhibit) -> str:
    """'Figure 2: Accuracy against batch size': with the paper's number, where it is one of the paper's."""
    kind, _, number = exhibit.name.partition("-")
    return f"{kind.title()} {number}: {exhibit.title}" if number.isdigit() else exhibit.title


def _remove_stale(folder: Path, before: str, after: str) -> None:
    """Remove files that the page of an earlier report here links to and this one does not: figures that are no more."""
    old, new = (set(re.findall(r'href="((?:figures|tables)/[\w.-]+\.[a-z]+)"', page)) for page in (before, after))
    for name in old - new:
        (folder / name).unlink(missing_ok=True)


def payload(runs: pd.DataFrame, metrics: Sequence[str], curves: pd.DataFrame) -> dict[str, Any]:
    """Data of the page's script: {count, shown: [{name, by, …}], columns, curves by the row's number}.

    runs: with the columns that exhibits count on (Inputs.all). Columns travel one by one, constant ones as one value
    and repeated words as numbers of a list, so that 500 runs take some 200 KB; numbers keep six digits.
    """
    columns = [_packed(str(name), runs[name].tolist()) for name in runs.columns if runs[name].notna().any()]
    return {
        "count": len(runs),
        "shown": [_packed(title, texts) | {"by": by} for title, texts, by in _shown(runs, metrics)],
        "columns": [column for column in columns if column.get("same", " ") != ""],
        "curves": _curves(runs, curves),
    }


def _shown(runs: pd.DataFrame, metrics: Sequence[str]) -> list[tuple[str, list[str], str]]:
    """(title, texts, the column to sort by) of each column of the table of runs, as people read them."""
    columns = [(name, str, name) for name in ("sweep", "setup", "loss")]
    columns += [
        ("batch size", lambda size: format_batch_size(int(size)), "batch_size"),
        ("examples", format_examples, "examples_seen"),
        ("seed", "{:.0f}".format, "seed"),
        ("status", str, "status"),
    ]
    columns += [("reason", str, "reason")] if runs["reason"].ne("").any() else []
    for metric in metrics:
        title = f"{' '.join(tables.metric_title(metric))} (%)"
        columns.append((title, lambda share: f"{100 * share:.1f}", metric))
    columns += [
        ("examples/s", "{:,.0f}".format, "examples_per_second"),
        ("peak memory", lambda size: format_bytes(int(size)), "peak_memory_bytes"),
        ("run", str, "run_id"),
    ]

    def texts(name: str, write: Any) -> list[str]:
        if write is str:
            return ["" if pd.isna(value) else str(value) for value in runs[name]]
        return [write(value) if is_number(value) else "" for value in tables.column(runs, name).tolist()]

    return [(title, texts(name, write), name) for title, write, name in columns]


def _packed(name: str, values: list[Any]) -> dict[str, Any]:
    """One column: {name, same} where all are alike, {name, levels, codes} where words repeat, else {name, values}."""
    values = [_plain(value) for value in values]
    levels = list(dict.fromkeys(values))
    if len(levels) == 1:
        return {"name": name, "same": levels[0]}
    if len(levels) <= len(values) // 3:
        places = {value: place for place, value in enumerate(levels)}
        return {"name": name, "levels": levels, "codes": [places[value] for value in values]}
    return {"name": name, "values": values}


def _plain(value: Any) -> Any:
    """A value that JSON has: a number of six digits, a word, or null."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.6g}")
    if isinstance(value, bool | int | str):
        return value
    return None if pd.isna(value) else str(value)


def _curves(runs: pd.DataFrame, curves: pd.DataFrame) -> dict[int, dict[str, list[float | None]]]:
    """Number of the row → {examples: […], training_loss: […] …}, thinned to MOST_POINTS, the last one always there."""
    names = ["training_loss", *LOGGED[1:]]
    rows = {key: row for row, key in reversed(list(enumerate(zip(runs["sweep"], runs["run_id"], strict=True))))}
    thinned = {}
    for key, lines in curves.groupby(["sweep", "run_id"], sort=False) if len(curves) else ():
        if key not in rows:
            continue
        kept = lines.iloc[:: -math.ceil(len(lines) / MOST_POINTS)].iloc[::-1]
        columns = {"examples": kept["examples_seen_at"], **{n: tables.numbers(kept[n]) for n in names if n in kept}}
        thinned[rows[key]] = {
            name: [float(f"{v:.4g}") if is_number(v) else None for v in values.tolist()]
            for name, values in columns.items()
            if values.notna().any()
        }
    return thinned
