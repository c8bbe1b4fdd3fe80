"""The report's folder: one HTML page, report.md and report.tex, and the files of each figure and table.

The page needs nothing but itself: no network, no fonts, no library. Figures are inline SVG whose points are links to
rows; the script (page.js) draws the table of runs from the page's own data. Everything that comes from a run passes
through the template's escaping, or is set as text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from repro.config.errors import InputError
from repro.config.files import write_text
from repro.report import figures, growth, markup, rows, tables, words
from repro.report.claims import Claim, claims
from repro.report.exhibits import Exhibit, exhibits
from repro.report.inputs import DEFAULTS, Inputs
from repro.results import write_csv

HERE = Path(__file__).parent
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
            "data": htmlsafe_json_dumps(rows.payload(runs, metrics, inputs.logs), separators=(",", ":")),
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
