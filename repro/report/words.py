"""Sentences of a report, computed from its table: what was run, what to note, where the numbers come from."""

import math
from collections.abc import Callable, Sequence

import pandas as pd

from repro.config.sweep import stands_in
from repro.config.units import format_batch_size, format_examples
from repro.results import tables
from repro.results.tables import ORIGIN

PAPER = "arXiv 2303.15343"
VERDICTS = {
    "agrees": ("agrees", "agree"),
    "mixed": ("is mixed", "are mixed"),
    "contradicts": ("contradicts", "contradict"),
    "not shown at this scale": ("is not shown at this scale", "are not shown at this scale"),
    "too few runs": ("has too few runs", "have too few runs"),
    "not run": ("was not run", "were not run"),
}


def summary(runs: pd.DataFrame) -> str:
    """Say what was run, in a sentence or two, counted from the table; imported rows are no runs of ours."""
    imported = _imported(runs)
    rows = count(int(imported.sum()), "imported row")
    if imported.any() and not imported.all():
        return f"{summary(runs[~imported])} Beside them {rows}."
    statuses = runs["status"].value_counts()
    others = ", ".join(f"{number} {status}" for status, number in statuses.items() if status != "finished")
    sweeps = distinct(runs, "sweep")
    of = f" of {count(len(sweeps), 'sweep')} ({', '.join(sweeps)})" if sweeps else ""
    done = f": {statuses.get('finished', 0)} finished, {others}" if others else ", all finished"
    text = f"{rows}, no runs of ours." if imported.any() else f"{count(len(runs), 'run')}{of}{done}."
    settings = _settings(tables.placed(runs))
    return f"{text} {settings[0].upper()}{settings[1:]}." if settings else text


def _settings(placed: pd.DataFrame) -> str:
    """Setups, losses, batch sizes, lengths and seeds of runs with a place in a figure; what is unknown left out."""
    if placed.empty:
        return ""
    kinds = placed[["setup", "scale"]].fillna("").drop_duplicates().sort_values(["setup", "scale"])
    setups = [f"{setup} at {scale or 'unknown'} scale" for setup, scale in kinds.to_numpy() if setup]
    parts = [f"setup {', '.join(setups)}"] if setups else []
    parts.append(f"{' and '.join(sorted(placed['loss'].astype(str).unique()))} loss")
    parts.append(f"batch sizes {_ends(placed['batch_size'], lambda size: format_batch_size(int(size)))}")
    lengths = tables.column(placed, "examples_seen")
    parts += [f"{_ends(lengths[lengths > 0], format_examples)} examples seen"] if (lengths > 0).any() else []
    seeds = placed["seed"].nunique() if "seed" in placed else 0
    return "; ".join([*parts, *([count(seeds, "seed")] if seeds else [])])


def _ends(numbers: pd.Series, write: Callable[[float], str]) -> str:
    """'32 to 2k': the least and the greatest, or the one that there is."""
    return " to ".join(dict.fromkeys(write(number) for number in (numbers.min(), numbers.max())))


def _imported(runs: pd.DataFrame) -> pd.Series:
    return runs[ORIGIN].fillna("") != "" if ORIGIN in runs else pd.Series(False, runs.index)


def cautions(runs: pd.DataFrame) -> list[str]:
    """Notes that a reader must know before reading the figures."""
    notes = []
    if tables.finished(runs).empty:
        notes.append(
            "No run has finished: the panels of our runs are empty but for marks, and nothing can be compared."
        )
    kinds = runs[["setup", "scale"]].dropna().drop_duplicates()
    notes += dict.fromkeys(text for kind in kinds.itertuples(index=False) if (text := stands_in(*kind)))
    if "laptop" in set(runs["scale"].dropna()):
        drawn = "data" in runs and runs["data"].astype(str).str.startswith("shapes").any()
        world = ", on the embedded data, which are drawn scenes" if drawn else ""
        notes.append(
            f"Laptop scale: small towers trained for minutes{world}. These numbers do not reproduce the paper's "
            "absolute ones; they let you see how both losses behave as the batch grows, beside the paper's curves."
        )
    if "git_dirty" in runs and runs["git_dirty"].eq(True).any():
        notes.append("Some runs were made from code with uncommitted changes (see provenance).")
    if len(versions := distinct(runs, "git_commit")) > 1:
        notes.append(f"Runs were made by {len(versions)} versions of the code (see provenance).")
    if broken := int((runs["status"] == "corrupt").sum()):
        notes.append(f"{count(broken, 'run')} cannot be read; they are listed with the reason, and count nowhere.")
    if names := distinct(runs, ORIGIN):
        notes.append(
            f"Imported from elsewhere: {', '.join(names)}. How those numbers were made is their makers' to say."
        )
    return notes


def verdict_counts(verdicts: Sequence[str]) -> str:
    """'Of the paper's 25 claims 7 agree, 2 contradict, …', in the order in which they are worth reading."""
    numbers = [(verdicts.count(name), *forms) for name, forms in VERDICTS.items()]
    counts = [f"{number} {one if number == 1 else many}" for number, one, many in numbers if number]
    return f"Of the paper's {count(len(verdicts), 'claim')} " + ", ".join(counts) + "."


def provenance(runs: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row for each sweep, setup and scale, and one for the paper's: every distinct value, so that mixed ones show."""
    rows = []
    named = runs.reindex(columns=[ORIGIN, "sweep", "setup", "scale"]).fillna("")
    for (origin, *names), part in runs.groupby([column for _, column in named.items()], sort=True):
        done = int((part["status"] == "finished").sum())
        dirty = part.get("git_dirty", pd.Series(dtype=object)).eq(True).any()
        named = ", ".join(filter(None, names)) or "unnamed"
        rows.append(
            {
                "series": f"imported: {named}" if origin else named,
                "source": f"{count(len(part), 'run')}, {done} finished",
                "commits": _listed(part, "git_commit", 12) + (" (some with uncommitted changes)" if dirty else ""),
                "versions": ", ".join(
                    f"{column.removesuffix('_version')} {text}"
                    for column in part.columns
                    if column.endswith("_version") and (text := _listed(part, column))
                ),
                "machines": _listed(part, "machine"),
                "gpus": _listed(part, "gpu"),
                "data": _listed(part, "data"),
                "data fingerprints": _listed(part, "data_fingerprint"),
                "models": _listed(part, "model"),
                "seeds": _listed(part, "seed"),
                "last run finished": max(distinct(part, "finished_at"), default=""),
                "commands": _listed(part, "command"),
                "files": _listed(part, "source_file"),
            }
        )
    if published is not None:
        sources = ", ".join(str(source).replace("-", " ") for source in published["source"].unique())
        rows.append({"series": "the paper", "source": f"{PAPER}; {len(published)} numbers of {sources}"})
    return pd.DataFrame(rows).fillna("")


def _listed(runs: pd.DataFrame, column: str, length: int | None = None) -> str:
    values = sorted(distinct(runs, column), key=lambda value: (len(value), value))
    return ", ".join(dict.fromkeys(value[:length] for value in values))


def distinct(runs: pd.DataFrame, column: str) -> list[str]:
    values = runs[column].dropna().unique() if column in runs else []
    return sorted({f"{v:g}" if isinstance(v, float) else str(v) for v in values if v != ""})


def count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
