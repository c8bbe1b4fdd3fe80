"""The report without a browser: report.md, for a repository or a wiki, and report.tex, to take into a paper."""

from collections.abc import Sequence
from pathlib import Path

from repro.report import words, written
from repro.report.claims import Claim
from repro.report.exhibits import Exhibit
from repro.report.folder import numbered
from repro.report.found import Found
from repro.rundir import write_text

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
    exhibits: Sequence[Exhibit],
    provenance: Exhibit,
    command: str,
) -> None:
    """report.md and report.tex beside figures/ and tables/, to which they refer."""
    summary, cautions = words.summary(found.runs), words.cautions(found.runs)
    counted = words.verdict_counts([claim.evidence.verdict for claim in said])
    lines = [f"# {_markdown(title)}", _markdown(summary), *(f"> {_markdown(text)}" for text in cautions)]
    lines += ["## At a glance", counted]
    lines += [(folder / "tables/claims.md").read_text()]
    for exhibit in exhibits:
        lines += [f"## {_markdown(numbered(exhibit))}"]
        if exhibit.figure is not None:
            lines += [f"![{_markdown(exhibit.title)}](figures/{exhibit.name}.png)"]
        if exhibit.table is not None:
            lines += [written.markdown(exhibit.table)]
        lines += [_markdown(exhibit.caption)]
    lines += ["## Provenance", written.markdown(provenance.data)]
    lines += [f"Made by `{command}`"] if command else []
    write_text(folder / "report.md", "\n\n".join(line.rstrip("\n") for line in lines) + "\n")

    latex = written.latex_text
    body = [rf"\title{{{latex(title)}}}\date{{}}", r"\begin{document}", r"\maketitle", latex(summary)]
    body += [rf"\paragraph{{Beware.}} {latex(text)}" for text in cautions]
    body += [r"\section*{At a glance}", latex(counted), r"\begin{description}"]
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


def _markdown(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
