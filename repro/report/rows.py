"""Runs as the page holds them: columns that are shown, every column for the row that is opened, training curves.

Columns travel one by one, constant ones as one value and repeated words as numbers of a list, so that 500 runs take
some 200 KB. Numbers keep six digits, which is more than any of them means; runs.csv has them whole.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from repro.config.units import format_batch_size, format_bytes, format_examples
from repro.report import tables
from repro.report.inputs import LOGGED
from repro.report.words import is_number

MOST_POINTS = 40
"""Points of a training curve: its drawing is too narrow to show more."""


def payload(runs: pd.DataFrame, metrics: Sequence[str], curves: pd.DataFrame) -> dict[str, Any]:
    """Data of the page's script: {count, shown: [{name, by, …}], columns, curves by the row's number}.

    runs: with the columns that exhibits count on (Inputs.all).
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
