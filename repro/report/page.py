"""One HTML page that holds a report and needs nothing but itself: no network, no fonts, no library.

Figures are inline SVG whose points are links to rows; the script (page.js) draws the table of runs from the page's own
data. Everything that comes from a run passes through the template's escaping, or is set as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from repro.config.errors import InputError
from repro.config.files import write_text
from repro.report import document, growth, rows, tables, words
from repro.report.claims import Claim, claims
from repro.report.exhibits import Exhibit, exhibits
from repro.report.folder import Shown, heads, remove_stale, write_exhibit
from repro.report.found import Found
from repro.report.provenance import provenance
from repro.results import write_csv

HERE = Path(__file__).parent
SECTIONS = {"figures": "Figures", "tables": "Tables", "cost": "Cost"}


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    exhibits: tuple[Shown, ...]


def write(found: Found, folder: Path, title: str, command: str = "") -> Path:
    """Write the report and return the page's path. Raises InputError where the folder cannot be written."""
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps

    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("page.html.j2")
    style, script = ((HERE / name).read_text() for name in ("page.css", "page.js"))
    runs = found.all
    metrics = list(found.metrics) or tables.main_metrics(runs)
    said = claims(found)
    glance, growing, drawn, origin = _glance(said), growth.exhibits(found), exhibits(found), _provenance(found)
    try:
        for name in ("figures", "tables"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shown = {exhibit.name: write_exhibit(exhibit, folder) for exhibit in (*drawn, *growing, glance)}
        origin_files = write_exhibit(origin, folder).files
        write_csv(found.runs, folder / "runs.csv")
        document.write(folder, title, found, said, glance, [*drawn, *growing], origin, command)
        text = template.render(
            title=title,
            summary=words.summary(runs),
            warnings=words.cautions(runs),
            counted=glance.caption,
            claims=said,
            claim_files=shown["claims"].files,
            sections=_sections(drawn, shown),
            growth=[shown[exhibit.name] for exhibit in growing],
            anchors={*shown, "saturation"} - {"claims"},
            provenance=origin.data.to_dict("records"),
            provenance_files=origin_files,
            command=command,
            maker=f"siglip-repro {version('siglip-repro')}",
            style=Markup(style),  # noqa: S704 (ours)
            script=Markup(script),  # noqa: S704 (ours)
            data=htmlsafe_json_dumps(rows.payload(runs, metrics, found.logs), separators=(",", ":")),
            heads=heads,
            counting=words.count,
        )
        page = folder / "index.html"
        before = page.read_text() if page.exists() else ""
        write_text(page, text)
        remove_stale(folder, before, text)
    except OSError as error:
        raise InputError(f"{folder}: the report cannot be written here: {error.strerror}") from None
    return folder / "index.html"


def _sections(drawn: Sequence[Exhibit], shown: dict[str, Shown]) -> list[Section]:
    kinds = {name: tuple(shown[e.name] for e in drawn if _section(e.name) == name) for name in SECTIONS}
    return [Section(name, SECTIONS[name], kinds[name]) for name in SECTIONS if kinds[name]]


def _section(name: str) -> str:
    if name.startswith("figure-"):
        return "figures"
    return "cost" if name.startswith(("cost-", "pareto-")) else "tables"


def _glance(said: Sequence[Claim]) -> Exhibit:
    """The claims as a table to read, and with everything."""
    every: list[dict[str, Any]] = [
        {
            "claim": claim.text,
            "paper": claim.paper,
            "ours": claim.evidence.ours or "–",
            "verdict": str(claim.evidence.verdict),
            "source": claim.source,
            "runs": claim.evidence.runs,
            "how": claim.evidence.detail,
            "name": claim.name,
        }
        for claim in said
    ]
    counted = words.verdict_counts([claim.evidence.verdict for claim in said])
    table = pd.DataFrame(every)
    read = table[["claim", "paper", "ours", "verdict"]]
    return Exhibit("claims", "The paper's claims", counted, None, None, read, table)


def _provenance(found: Found) -> Exhibit:
    return Exhibit("provenance", "Where the numbers come from", "", None, None, None, provenance(found))
