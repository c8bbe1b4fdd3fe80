"""The files of a report: figures as PNG, SVG, PDF, tables as CSV, Markdown, LaTeX, and what of them the page shows."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from repro.config.files import write_text
from repro.loss.registry import LOSSES
from repro.report import figures, written
from repro.report.exhibits import Exhibit
from repro.report.style import GRID, INK, PAPER
from repro.results import write_csv

PAGE_COLOURS = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    GRID: "var(--grid)",
    LOSSES["sigmoid"].colour: "var(--sigmoid)",
    LOSSES["softmax"].colour: "var(--softmax)",
}
"""A figure's colours on the page, which has a light and a dark theme."""


@dataclass(frozen=True)
class Shown:
    """An exhibit on the page. narrow: the figure's form for a phone, where it has one. files: (label, path) to link."""

    name: str
    title: str
    caption: str
    svg: Markup | None
    narrow: Markup | None
    table: pd.DataFrame | None
    files: tuple[tuple[str, str], ...]


def write_exhibit(exhibit: Exhibit, folder: Path) -> Shown:
    """Everything of one exhibit below folder/figures and folder/tables."""
    name, files = exhibit.name, []
    drawn: dict[str, Markup] = {}
    for suffix, figure in (("", exhibit.figure), ("-column", exhibit.column)):
        if figure is not None:
            drawn[suffix] = inline(figures.save(figure, folder / "figures", name + suffix), name + suffix)
            column = " (column)" if suffix else ""
            files += [(f"{kind.upper()}{column}", f"figures/{name}{suffix}.{kind}") for kind in figures.FORMATS]
    files += write_table(exhibit, folder)
    return Shown(
        name, numbered(exhibit), exhibit.caption, drawn.get(""), drawn.get("-column"), exhibit.table, tuple(files)
    )


def numbered(exhibit: Exhibit) -> str:
    """'Figure 2: Accuracy against batch size': with the paper's number, where it is one of the paper's."""
    kind, _, number = exhibit.name.partition("-")
    return f"{kind.title()} {number}: {exhibit.title}" if number.isdigit() else exhibit.title


def write_table(exhibit: Exhibit, folder: Path) -> list[tuple[str, str]]:
    """The numbers as CSV; the table as it is read in Markdown and LaTeX, where there is one."""
    place = f"tables/{exhibit.name}"
    write_csv(exhibit.data, folder / f"{place}.csv")
    found = [("CSV", f"{place}.csv")]
    if exhibit.table is not None:
        write_text(folder / f"{place}.md", written.markdown(exhibit.table))
        latex = written.latex(exhibit.table, f"{exhibit.title}. {exhibit.caption}", f"tab:{exhibit.name}")
        write_text(folder / f"{place}.tex", latex)
        found += [("Markdown", f"{place}.md"), ("LaTeX", f"{place}.tex")]
    return found


def inline(svg: str, name: str) -> Markup:
    """An SVG file's text → an element of the page: its colours the page's, its width the column's, its ids its own."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)width="([\d.]+)pt" height="[\d.]+pt"', r'\1style="--natural-width: \2px"', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    # Links of points (#run-…) lead to the page's rows; all other references stay within the figure.
    svg = re.sub(r'(href="#|url\(#)(?!run-)', rf"\1{name}-", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    # A page of many figures stays small: places to a hundredth of a point, points without a clip of their own (they lie
    # within their panel), no line ends.
    svg = re.sub(r' (d|x|y|transform|points)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)
    svg = re.sub(
        r'(<a [^>]*?)(?: target="_blank")?>\s*<g clip-path="[^"]*">\s*(<use [^>]*/>)\s*</g>\s*</a>', r"\1>\2</a>", svg
    )
    svg = re.sub(r' d="[^"]*"', lambda found: re.sub(r"\s*\n", " ", found[0]), svg)
    return Markup(re.sub(r">\s+<", "><", svg))  # noqa: S704 (matplotlib has escaped the text in it)


def remove_stale(folder: Path, before: str, after: str) -> None:
    """Remove files that the page of an earlier report here links to and this one does not: figures that are no more."""
    old, new = (set(re.findall(r'href="((?:figures|tables)/[\w.-]+\.[a-z]+)"', page)) for page in (before, after))
    for name in old - new:
        (folder / name).unlink(missing_ok=True)


def heads(frame: pd.DataFrame, level: int) -> list[tuple[str, int]]:
    """The header cells of one level of a table's columns: (text, columns that it spans)."""
    found: list[tuple[str, int]] = []
    last: object = None
    for column in frame.columns:
        key = column[: level + 1]
        if level < frame.columns.nlevels - 1 and found and key == last:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((str(column[level]), 1))
        last = key
    return found
