"""The report's folder: one HTML page, report.md and report.tex, and the files of each figure and table.

The page needs nothing but itself: no network, no fonts, no library. Figures are inline SVG whose points are links to
rows; the script (page.js) draws the table of runs from the page's own data. Everything that comes from a run passes
through the template's escaping, or is set as text.
"""

import itertools
import re
from collections.abc import Sequence
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
from repro.report.inputs import Inputs
from repro.results import write_csv

HERE = Path(__file__).parent
SECTIONS = {"figures": "Figures", "tables": "Tables", "cost": "Cost"}
PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,graphicx,longtable,multirow,textcomp}
"""
FLOATS = 4
"""Exhibits between page breaks of report.tex, or TeX runs out of room for what waits for a page."""


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
        return {"figure": "figures", "cost": "cost", "pareto": "cost"}.get(kind, "tables")


def write(inputs: Inputs, folder: Path, title: str, command: str = "") -> Path:
    """Write the report and return the page's path. Raises InputError where the folder cannot be written."""
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps

    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    judged = claims(inputs)
    summary, growing, made, origin = _claims(judged), growth.exhibits(inputs), exhibits(inputs), _provenance(inputs)
    metrics = list(inputs.metrics) or tables.main_metrics(inputs.all)
    page = folder / "index.html"
    try:
        for name in ("figures", "tables"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shown = {exhibit.name: _write_exhibit(exhibit, folder) for exhibit in (*made, *growing, summary, origin)}
        write_csv(inputs.runs, folder / "runs.csv")
        heading = [title, words.summary(inputs.all), words.cautions(inputs.all), summary.caption]
        write_text(folder / "report.md", _markdown(*heading, summary, [*made, *growing], origin, command))
        write_text(folder / "report.tex", _latex(*heading, judged, [*made, *growing]))
        text = environment.get_template("page.html.j2").render(
            title=title,
            summary=heading[1],
            warnings=heading[2],
            counted=summary.caption,
            claims=judged,
            claim_files=shown["claims"].files,
            sections={
                name: (title, [shown[e.name] for e in made if shown[e.name].section == name])
                for name, title in SECTIONS.items()
            },
            growth=[shown[exhibit.name] for exhibit in growing],
            anchors={*shown, "saturation"} - {"claims", "provenance"},
            provenance=origin.data.to_dict("records"),
            provenance_files=shown["provenance"].files,
            command=command,
            maker=f"siglip-repro {version('siglip-repro')}",
            style=Markup((HERE / "page.css").read_text()),  # noqa: S704 (ours)
            script=Markup((HERE / "page.js").read_text()),  # noqa: S704 (ours)
            data=htmlsafe_json_dumps(rows.payload(inputs.all, metrics, inputs.logs), separators=(",", ":")),
            heads=_heads,
            counting=words.count,
        )
        before = page.read_text() if page.exists() else ""
        write_text(page, text)
        _remove_stale(folder, before, text)
    except OSError as error:
        raise InputError(f"{folder}: the report cannot be written here: {error.strerror}") from None
    return page


def _claims(judged: Sequence[Claim]) -> Exhibit:
    """The claims as a table to read, and with everything."""
    table = pd.DataFrame(
        {
            "claim": claim.text,
            "paper": claim.paper,
            "ours": claim.evidence.ours or "–",
            "verdict": str(claim.evidence.verdict),
            "source": claim.source,
            "runs": claim.evidence.runs,
            "how": claim.how if claim.evidence.ours else "",
            "name": claim.name,
        }
        for claim in judged
    )
    counted = words.verdict_counts(list(table["verdict"]))
    return Exhibit("claims", "The paper's claims", counted, table, table[["claim", "paper", "ours", "verdict"]])


def _provenance(inputs: Inputs) -> Exhibit:
    return Exhibit("provenance", "Where the numbers come from", "", words.provenance(inputs.all, inputs.published))


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


def _heads(frame: pd.DataFrame, level: int) -> list[tuple[str, int]]:
    """The header cells of one level of a table's columns: (text, columns that it spans)."""
    if level == frame.columns.nlevels - 1:
        return [(str(text), 1) for text in frame.columns.get_level_values(level)]
    keys = [column[: level + 1] for column in frame.columns]
    return [(str(key[-1]), len(list(group))) for key, group in itertools.groupby(keys)]


def _markdown(
    title: str,
    summary: str,
    cautions: Sequence[str],
    counted: str,
    judged: Exhibit,
    exhibits: Sequence[Exhibit],
    provenance: Exhibit,
    command: str,
) -> str:
    """report.md: the report for a repository or a wiki."""
    plain = markup.markdown_text
    lines = [f"# {plain(title)}", plain(summary), *(f"> {plain(text)}" for text in cautions)]
    lines += ["## At a glance", plain(counted), markup.markdown_table(judged.table)]
    for exhibit in exhibits:
        lines += [f"## {plain(_heading(exhibit))}"]
        lines += [f"![{plain(exhibit.title)}](figures/{exhibit.name}.png)"] if exhibit.figure else []
        lines += [markup.markdown_table(exhibit.table)] if exhibit.table is not None else []
        lines += [plain(exhibit.caption)]
    lines += ["## Provenance", markup.markdown_table(provenance.data)]
    lines += [f"Made by {markup.markdown_code(command)}"] if command else []
    return "\n\n".join(line.rstrip("\n") for line in lines) + "\n"


def _latex(
    title: str,
    summary: str,
    cautions: Sequence[str],
    counted: str,
    judged: Sequence[Claim],
    exhibits: Sequence[Exhibit],
) -> str:
    """report.tex: the report to take into a paper."""
    plain = markup.latex_text
    body = [PREAMBLE, rf"\title{{{plain(title)}}}\date{{}}", r"\begin{document}", r"\maketitle", plain(summary)]
    body += [rf"\paragraph{{Note.}} {plain(text)}" for text in cautions]
    body += [r"\section*{At a glance}", plain(counted), r"\begin{description}"]
    body += [
        rf"\item[{plain(str(claim.evidence.verdict))}] {plain(claim.text)} \emph{{Paper:}} {plain(claim.paper)}. "
        rf"\emph{{Ours:}} {plain(claim.evidence.ours or '–')}."
        for claim in judged
    ]
    body += [r"\end{description}", r"\section*{Figures and tables}"]
    for place, exhibit in enumerate(exhibits, start=1):
        name = exhibit.name
        if exhibit.figure is not None:
            body += [
                r"\begin{figure}[htbp]\centering",
                rf"\includegraphics[width=\linewidth,height=.8\textheight,keepaspectratio]{{figures/{name}.pdf}}",
                rf"\caption{{{plain(exhibit.title)}. {plain(exhibit.caption)}}}\label{{fig:{name}}}",
                r"\end{figure}",
            ]
        if exhibit.table is not None:
            body += [rf"{{\footnotesize\setlength{{\tabcolsep}}{{3pt}}\input{{tables/{name}.tex}}}}"]
        body += [r"\clearpage"] * (place % FLOATS == 0)
    return "\n".join([*body, r"\end{document}"]) + "\n"
