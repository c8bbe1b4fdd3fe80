"""Where the numbers of a report come from: one row for each sweep, setup and scale, and one for the paper's."""

import pandas as pd

from repro.report.found import Found
from repro.report.words import count

PAPER = "arXiv 2303.15343"
APART = ("origin", "sweep", "setup", "scale")


def provenance(found: Found) -> pd.DataFrame:
    """Commits, versions, machines, data, models: every distinct value, so that mixed ones show."""
    rows = []
    for key, part in found.all.groupby(list(APART), sort=True):
        known = dict(zip(APART, key, strict=True))
        done = int((part["status"] == "finished").sum())
        dirty = part.get("git_dirty", pd.Series(dtype=object)).eq(True).any()
        named = ", ".join(filter(None, (known["sweep"], known["setup"], known["scale"])))
        rows.append(
            {
                "series": f"{'imported: ' if known['origin'] else ''}{named or 'unnamed'}",
                "source": f"{count(len(part), 'run')}, {done} finished",
                "commits": _distinct(part, "git_commit", 12) + (" (some with uncommitted changes)" if dirty else ""),
                "versions": ", ".join(_versions(part)),
                "machines": _distinct(part, "machine"),
                "gpus": _distinct(part, "gpu"),
                "data": _distinct(part, "data"),
                "data fingerprints": _distinct(part, "data_fingerprint"),
                "models": _distinct(part, "model"),
                "seeds": _distinct(part, "seed"),
                "last run finished": str(max(_values(part, "finished_at"), default="")),
                "commands": _distinct(part, "command"),
                "files": _distinct(part, "source_file"),
            }
        )
    tables = ", ".join(str(source).replace("-", " ") for source in found.published["source"].unique())
    rows.append({"series": "the paper", "source": f"{PAPER}; {len(found.published)} numbers of {tables}"})
    return pd.DataFrame(rows).fillna("")


def _versions(runs: pd.DataFrame) -> list[str]:
    """'torch 2.9.0' for each package that the runs name, several versions after one another."""
    columns = [column for column in runs.columns if column.endswith("_version")]
    return [f"{c.removesuffix('_version')} {_distinct(runs, c)}" for c in columns if _distinct(runs, c)]


def _distinct(runs: pd.DataFrame, column: str, length: int | None = None) -> str:
    return ", ".join(dict.fromkeys(value[:length] for value in _values(runs, column)))


def _values(runs: pd.DataFrame, column: str) -> list[str]:
    if column not in runs:
        return []
    values = runs[column].dropna().unique()
    return sorted({f"{v:g}" if isinstance(v, float) else str(v) for v in values if v != ""}, key=lambda v: (len(v), v))
