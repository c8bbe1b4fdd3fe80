"""What a report says in sentences, computed from its table: what was run, what to note, what was found."""

import math
from collections.abc import Callable, Sequence

import pandas as pd

from repro.config.sweep import stands_in
from repro.config.units import format_batch_size, format_examples
from repro.report import tables
from repro.results.sources import ORIGIN


def summary(runs: pd.DataFrame) -> str:
    """What was run, in a sentence or two, counted from the table; imported rows are no runs of ours."""
    imported = _imported(runs)
    rows = count(int(imported.sum()), "imported row")
    if imported.any() and not imported.all():
        return f"{summary(runs[~imported])} Beside them {rows}."
    statuses = runs["status"].value_counts()
    done = int(statuses.get("finished", 0))
    others = ", ".join(f"{number} {status}" for status, number in statuses.items() if status != "finished")
    sweeps = sorted(set(runs["sweep"].dropna().astype(str)) - {""}) if "sweep" in runs else []
    of = f" of {count(len(sweeps), 'sweep')} ({', '.join(sweeps)})" if sweeps else ""
    text = f"{count(len(runs), 'run')}{of}{f': {done} finished, {others}' if others else ', all finished'}."
    if imported.any():
        text = f"{rows}, no runs of ours."
    told = _settings(tables.placed(runs))
    return f"{text} {told[0].upper()}{told[1:]}." if told else text


def _settings(placed: pd.DataFrame) -> str:
    """Setups, losses, batch sizes, lengths and seeds of runs with a place in a figure; what is unknown left out."""
    if placed.empty:
        return ""
    kinds = placed[["setup", "scale"]].fillna("").drop_duplicates().sort_values(["setup", "scale"])
    setups = [f"{setup} at {scale or 'unknown'} scale" for setup, scale in kinds.to_numpy() if setup]
    parts = [f"setup {', '.join(setups)}"] if setups else []
    parts.append(f"{' and '.join(sorted(placed['loss'].astype(str).unique()))} loss")
    parts.append(f"batch sizes {_ends(placed['batch_size'], lambda size: format_batch_size(int(size)))}")
    lengths = tables.numbers(placed["examples_seen"]) if "examples_seen" in placed else pd.Series(dtype=float)
    if (lengths > 0).any():
        parts.append(f"{_ends(lengths[lengths > 0], format_examples)} examples seen")
    seeds = placed["seed"].nunique() if "seed" in placed else 0
    return "; ".join([*parts, *([count(seeds, "seed")] if seeds else [])])


def _ends(numbers: pd.Series, write: Callable[[float], str]) -> str:
    """'32 to 2k': the least and the greatest, or the one that there is."""
    return " to ".join(dict.fromkeys(write(number) for number in (numbers.min(), numbers.max())))


def _imported(runs: pd.DataFrame) -> pd.Series:
    """Whether each row is of other origin."""
    return runs[ORIGIN].fillna("") != "" if ORIGIN in runs else pd.Series(False, runs.index)


def cautions(runs: pd.DataFrame) -> list[str]:
    """What a reader must know before reading the figures."""
    found = []
    if tables.finished(runs).empty:
        found.append(
            "No run has finished: the panels of our runs are empty but for marks, and nothing can be compared."
        )
    kinds = runs[["setup", "scale"]].dropna().drop_duplicates()
    texts = [stands_in(setup, scale) for setup, scale in kinds.itertuples(index=False)]
    found += dict.fromkeys(text for text in texts if text)
    if "laptop" in set(runs["scale"].dropna()):
        drawn = "data" in runs and runs["data"].astype(str).str.startswith("shapes").any()
        world = ", on the embedded data, which are drawn scenes" if drawn else ""
        found.append(
            f"Laptop scale: small towers trained for minutes{world}. These numbers do not reproduce the paper's "
            "absolute ones; they let you see how both losses behave as the batch grows, beside the paper's curves."
        )
    if "git_dirty" in runs and runs["git_dirty"].eq(True).any():
        found.append("Some runs were made from code with uncommitted changes (see provenance).")
    if (several := versions(runs)) and len(several) > 1:
        found.append(f"Runs were made by {len(several)} versions of the code (see provenance).")
    if len(broken := runs[runs["status"] == "corrupt"]):
        found.append(f"{count(len(broken), 'run')} cannot be read; they are listed with the reason, and count nowhere.")
    if (imported := _imported(runs)).any():
        names = sorted(runs.loc[imported, ORIGIN].astype(str).unique())
        found.append(
            f"Imported from elsewhere: {', '.join(names)}. How those numbers were made is their makers' to say."
        )
    return found


def versions(runs: pd.DataFrame) -> list[str]:
    return sorted(runs["git_commit"].dropna().astype(str).unique()) if "git_commit" in runs else []


def verdict_counts(verdicts: Sequence[str]) -> str:
    """'Of 25 claims 7 agree, 2 contradict, …', in the order in which they are worth reading."""
    words = {
        "agrees": ("agrees", "agree"),
        "mixed": ("is mixed", "are mixed"),
        "contradicts": ("contradicts", "contradict"),
        "not shown at this scale": ("is not shown at this scale", "are not shown at this scale"),
        "too few runs": ("has too few runs", "have too few runs"),
        "not run": ("was not run", "were not run"),
    }
    numbers = [(sum(verdict == name for verdict in verdicts), *forms) for name, forms in words.items()]
    told = [f"{number} {one if number == 1 else many}" for number, one, many in numbers if number]
    return f"Of the paper's {count(len(verdicts), 'claim')} " + ", ".join(told) + "."


def count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
