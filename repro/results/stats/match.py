"""Two tables side by side: which rows are the same experiment, and by how much the second is ahead.

Rows match on every column that both tables have, that tells rows of either apart, and in which they share a value.
Ours and the paper's share no number of examples, say: then that column is not matched on, and said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size
from repro.results.series import SPLITS, placed
from repro.results.stats.cells import default_by
from repro.results.stats.differences import holm, p_equal, verdicts
from repro.results.stats.pairs import differences, measured, sides_of
from repro.results.stats.saturation import widest_margin

FIRST = ("setup", "loss", "batch_size", "examples_seen")
PLACES = ("format", "seed", "data", "evals", "micro_batch", "threads", "pretrained", "embeddings")
"""Fields of a spec whose difference says nothing of the result, or that the pairs are made of."""


@dataclass(frozen=True)
class Matching:
    """columns: matched on; own: columns that tell rows apart on one side alone, by side; apart: other columns in
    which the tables differ throughout, with the values of each.
    """

    columns: tuple[str, ...]
    own: tuple[tuple[str, ...], tuple[str, ...]]
    apart: dict[str, tuple[tuple[object, ...], tuple[object, ...]]]


@dataclass(frozen=True)
class Comparison:
    """Of one metric. rows: matched columns, own ones (with _a, _b), a_percent, b_percent, difference_points (B − A),
    low_points, high_points, p, p_holm, p_equal, verdict ('A', 'B', 'equal', 'cannot tell'), seeds, noise_source.
    only_a, only_b: rows without a partner.
    """

    metric_a: str
    metric_b: str
    rows: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame


def matching(a: pd.DataFrame, b: pd.DataFrame, by: Sequence[str] | None = None) -> Matching:
    """What rows of two tables can be matched on. by: these columns and no others, besides loss and batch size.

    Raises InputError where the tables share no batch size.
    """
    tables = placed(a), placed(b)
    wanted = [default_by(table) for table in tables] if by is None else [[*by, "loss"]] * 2
    names = [c for c in dict.fromkeys([*FIRST, *wanted[0], *wanted[1]]) if c in (*wanted[0], *wanted[1], "batch_size")]
    columns, apart = [], {}
    for name in names:
        values = [_values(table, name) for table in tables]
        if all(values) and set(values[0]) & set(values[1]):
            columns.append(name)
        elif all(values):
            apart[name] = values[0], values[1]
    if "batch_size" not in columns:
        sizes = [
            ", ".join(format_batch_size(int(s)) for s in _values(table, "batch_size")) or "none" for table in tables
        ]
        raise InputError(f"no row has a partner: A has batch sizes {sizes[0]}; B {sizes[1]}")
    own = tuple(
        tuple(name for name in want if name not in columns and len(_values(table, name)) > 1)
        for table, want in zip(tables, wanted, strict=True)
    )
    if by is None:
        apart |= _apart(*tables, skip=(*columns, *apart))
    return Matching(tuple(columns), own, apart)


def compare(a: pd.DataFrame, b: pd.DataFrame, metric_a: str, metric_b: str, found: Matching) -> Comparison:
    """Row by row, B minus A. found: of matching(a, b)."""
    keys = [column for column in found.columns if column != "batch_size"]
    sides = [
        measured(table, metric, [*keys, *own])
        for table, metric, own in zip((a, b), (metric_a, metric_b), found.own, strict=True)
    ]
    first, second = (side.assign(key=_keys(side, found.columns)) for side in sides)
    renamed = [
        side.rename(columns={name: f"{name}_{letter}" for name in own})
        for side, own, letter in zip((first, second), found.own, "ab", strict=True)
    ]
    pairs = renamed[0].merge(renamed[1].drop(columns=list(found.columns)), on="key", suffixes=("_first", "_second"))
    told = [*found.columns, *(f"{name}_a" for name in found.own[0]), *(f"{name}_b" for name in found.own[1])]
    alone = [
        side[~side["key"].isin(set(other["key"]))][[*found.columns, *own]].reset_index(drop=True)
        for side, other, own in ((first, second, found.own[0]), (second, first, found.own[1]))
    ]
    rows = _tested(pairs, told).sort_values(told, ignore_index=True)
    return Comparison(metric_a, metric_b, rows, *alone)


def _tested(pairs: pd.DataFrame, told: Sequence[str]) -> pd.DataFrame:
    tested = differences(pairs).rename(columns={"first_percent": "a_percent", "second_percent": "b_percent"})
    margin = widest_margin(sides_of(pairs))
    points = tested["difference_points"].to_numpy(float)
    corrected = holm(tested["p"].to_numpy(float))
    error, degrees = (tested[name].to_numpy(float) for name in ("error_points", "degrees"))
    equal = p_equal(points, error, degrees, margin)
    words = verdicts(points, corrected, equal, "B", "A", equal_first=False)
    tested = tested.assign(p_holm=corrected, p_equal=equal, margin_points=margin, verdict=words)
    return pd.concat([pairs[list(told)], tested.drop(columns=["error_points", "degrees"])], axis=1)


def _keys(table: pd.DataFrame, columns: Sequence[str]) -> list[tuple]:
    """Of each row, comparable between tables that hold the same numbers in different types."""
    return [tuple(map(_plain, row)) for row in table[list(columns)].itertuples(index=False)]


def _values(table: pd.DataFrame, column: str) -> tuple[object, ...]:
    found = {_plain(value) for value in table[column].dropna().unique()} if column in table else set()
    return tuple(sorted(found - {""}, key=str if any(isinstance(value, str) for value in found) else None))


def _plain(value: object) -> object:
    if pd.isna(value):
        return ""
    return value if isinstance(value, str) else float(value) if not isinstance(value, bool) else str(value)


def _apart(a: pd.DataFrame, b: pd.DataFrame, skip: Sequence[str]) -> dict:
    """Columns of a spec in which the two tables have no value in common."""
    found = {}
    for name in dict.fromkeys([*SPLITS, *RunSpec.model_fields]):
        if name not in (*skip, *PLACES):
            values = _values(a, name), _values(b, name)
            if all(values) and not set(values[0]) & set(values[1]):
                found[name] = values
    return found
