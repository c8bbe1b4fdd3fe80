"""The report without a browser: report.md, for a repository or a wiki, and report.tex, to take into a paper."""

from collections.abc import Sequence
from pathlib import Path

from repro.config.files import write_text
from repro.report import words, written
from repro.report.claims import Claim
from repro.report.exhibits import Exhibit
from repro.report.folder import numbered
from repro.report.found import Found

PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,graphicx,longtable,multirow,textcomp}
"""


FLOATS = 4


def write(
    folder: Path,
    title: str,
    found: Found,
    said: Sequence[Claim],
    glance: Exhibit,
    exhibits: Sequence[Exhibit],
    provenance: Exhibit,
    command: str,
) -> None:
    """report.md and report.tex beside figures/ and tables/, to which they refer. glance: the claims as a table."""
    summary, cautions = words.summary(found.all), words.cautions(found.all)
    markdown = written.markdown_text
    lines = [f"# {markdown(title)}", markdown(summary), *(f"> {markdown(text)}" for text in cautions)]
    lines += ["## At a glance", markdown(glance.caption), written.markdown(glance.table)]
    for exhibit in exhibits:
        lines += [f"## {markdown(numbered(exhibit))}"]
        if exhibit.figure is not None:
            lines += [f"![{markdown(exhibit.title)}](figures/{exhibit.name}.png)"]
        if exhibit.table is not None:
            lines += [written.markdown(exhibit.table)]
        lines += [markdown(exhibit.caption)]
    lines += ["## Provenance", written.markdown(provenance.data)]
    lines += [f"Made by {written.markdown_code(command)}"] if command else []
    write_text(folder / "report.md", "\n\n".join(line.rstrip("\n") for line in lines) + "\n")

    latex = written.latex_text
    body = [rf"\title{{{latex(title)}}}\date{{}}", r"\begin{document}", r"\maketitle", latex(summary)]
    body += [rf"\paragraph{{Note.}} {latex(text)}" for text in cautions]
    body += [r"\section*{At a glance}", latex(glance.caption), r"\begin{description}"]
    for claim in said:
        ours = claim.evidence.ours or "–"
        body.append(
            rf"\item[{latex(str(claim.evidence.verdict))}] {latex(claim.text)} \emph{{Paper:}} {latex(claim.paper)}. "
            rf"\emph{{Ours:}} {latex(ours)}."
        )
    body += [r"\end{description}", r"\section*{Figures and tables}"]
    for place, exhibit in enumerate(exhibits, start=1):
        if exhibit.figure is not None:
            body += [
                r"\begin{figure}[htbp]\centering",
                rf"\includegraphics[width=\linewidth,height=.8\textheight,keepaspectratio]{{figures/{exhibit.name}.pdf}}",
                rf"\caption{{{latex(exhibit.title)}. {latex(exhibit.caption)}}}\label{{fig:{exhibit.name}}}",
                r"\end{figure}",
            ]
        if exhibit.table is not None:
            body += [rf"{{\footnotesize\setlength{{\tabcolsep}}{{3pt}}\input{{tables/{exhibit.name}.tex}}}}"]
        body += [r"\clearpage"] * (place % FLOATS == 0)  # or TeX runs out of room for what waits for a page
    text = "\n".join([PREAMBLE, *body, r"\end{document}"])
    write_text(folder / "report.tex", text + "\n")
