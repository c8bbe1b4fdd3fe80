"""Comparisons: two losses of one table at each batch size, or two tables row by row.

Rows of two tables match on every column that both have, that tells rows of either apart, and in which they share a
value. Ours and the paper's share no number of examples, say: then that column is not matched on, and said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size
from repro.loss.registry import LOSSES
from repro.results.stats.differences import default_by, measured, tested
from repro.results.tables import SPLITS, batch_sizes, placed, signed, split

PAIR = ("loss_a", "loss_b")
COLUMNS = (*PAIR, "a_percent", "b_percent", "difference_points", "low_points", "high_points")
COLUMNS += ("p", "p_holm", "p_equal", "margin_points", "verdict", "seeds", "noise_source")
FIRST = ("setup", "loss", "batch_size", "examples_seen")
NOT_THE_RESULT = ("format", "seed", "data", "evals", "micro_batch", "threads", "pretrained", "embeddings")
"""Fields of a spec whose difference says nothing of the result, or that the pairs are made of."""


def compare_losses(table: pd.DataFrame, metric: str, by: Sequence[str] | None = None) -> pd.DataFrame:
    """One row for each series, two losses and batch size that both have; empty where there is none.

    Columns: `by` (without loss), batch_size, loss_a and loss_b (in the order of loss.registry), then those of
    differences.tested, of a − b: a_percent, b_percent, …, verdict (the loss that is ahead, 'equal' or 'cannot tell').
    """
    by = [column for column in (default_by(table) if by is None else by) if column != "loss"]
    rows = measured(table, metric, [*by, "loss"])
    known = list(LOSSES)
    losses = sorted(rows["loss"].unique(), key=lambda loss: (known.index(loss) if loss in known else len(known), loss))
    parts, columns = [], [*by, "batch_size", *COLUMNS]
    for pair in combinations(losses, 2):
        a, b = (rows[rows["loss"] == loss].drop(columns="loss") for loss in pair)
        both = b.merge(a, on=[*by, "batch_size"], suffixes=("_first", "_second"))
        for _, pairs in split(both, by) if len(both) else []:
            found = tested(pairs, *pair).rename(columns={"first_percent": "b_percent", "second_percent": "a_percent"})
            found = pd.concat([pairs[[*by, "batch_size"]], found.assign(**dict(zip(PAIR, pair, strict=True)))], axis=1)
            parts.append(found.sort_values("batch_size"))
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def in_words(rows: pd.DataFrame) -> str:
    """'sigmoid ahead from 512 to 8k (+1.2 to +4.1); equal at 32k': rows of compare_losses, of one pair and series."""
    rows = rows.sort_values("batch_size")
    sizes, losses = rows["batch_size"].tolist(), rows.iloc[0][list(PAIR)].tolist()
    parts = []
    for verdict in (*losses, "equal", "cannot tell"):
        of_it = rows[rows["verdict"] == verdict]
        if len(of_it):
            ahead = f"{verdict} ahead" if verdict in losses else verdict
            low, high = (signed(end) for end in (of_it["difference_points"].min(), of_it["difference_points"].max()))
            where = _span(of_it["batch_size"].tolist(), sizes)
            parts.append(f"{ahead} {where} ({low if low == high else f'{low} to {high}'})")
    return "; ".join(parts)


def _span(chosen: Sequence[int], sizes: Sequence[int]) -> str:
    """'from 512 to 8k' where they follow one another in `sizes`, 'at 512, 8k and 32k' otherwise."""
    first, last = sizes.index(chosen[0]), sizes.index(chosen[-1])
    if last - first >= 2 and last - first + 1 == len(chosen):
        return f"from {format_batch_size(chosen[0])} to {format_batch_size(chosen[-1])}"
    return f"at {batch_sizes(chosen)}"


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
    """Two tables in one metric. rows: matched columns, own ones (with _a, _b), then those of differences.tested, of
    B − A: a_percent, b_percent, …, verdict ('A', 'B', 'equal', 'cannot tell'). only_a, only_b: rows without a partner.
    """

    metric_a: str
    metric_b: str
    rows: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame


def matching(a: pd.DataFrame, b: pd.DataFrame, by: Sequence[str] | None = None) -> Matching:
    """Find the columns that rows of two tables can be matched on.

    by: these and no others, besides loss and batch size. Raises InputError where the tables share no batch size.
    """
    tables = placed(a), placed(b)
    wanted = [default_by(table) for table in tables] if by is None else [[*by, "loss"]] * 2
    every = (*wanted[0], *wanted[1], "batch_size")
    names = [name for name in dict.fromkeys([*FIRST, *every]) if name in every]
    columns, apart = [], {}
    for name in [*names, *(dict.fromkeys([*SPLITS, *RunSpec.model_fields]) if by is None else ())]:
        values = tuple(_values(table, name) for table in tables)
        if all(values) and not set(values[0]) & set(values[1]):
            apart |= {name: values} if name in names or name not in NOT_THE_RESULT else {}
        elif all(values) and name in names and name not in columns:
            columns.append(name)
    if "batch_size" not in columns:
        sizes = [", ".join(format_batch_size(int(s)) for s in _values(each, "batch_size")) or "none" for each in tables]
        raise InputError(f"no row has a partner: A has batch sizes {sizes[0]}; B {sizes[1]}")
    own = tuple(
        tuple(name for name in want if name not in columns and len(_values(table, name)) > 1)
        for table, want in zip(tables, wanted, strict=True)
    )
    return Matching(tuple(columns), own, apart)


def compare(a: pd.DataFrame, b: pd.DataFrame, metric_a: str, metric_b: str, found: Matching) -> Comparison:
    """Row by row, B minus A. found: of matching(a, b)."""
    keys, columns = [column for column in found.columns if column != "batch_size"], list(found.columns)
    sides = []
    for table, metric, own in zip((a, b), (metric_a, metric_b), found.own, strict=True):
        side = measured(table, metric, [*keys, *own])
        comparable = [tuple(map(_plain, row)) for row in side[columns].itertuples(index=False)]
        sides.append(side.assign(key=comparable))  # the same numbers in different types are one
    renamed = [
        side.rename(columns={name: f"{name}_{letter}" for name in own})
        for side, own, letter in zip(sides, found.own, "ab", strict=True)
    ]
    pairs = renamed[0].merge(renamed[1].drop(columns=columns), on="key", suffixes=("_first", "_second"))
    named = [*columns, *(f"{name}_{letter}" for letter, own in zip("ab", found.own, strict=True) for name in own)]
    alone = [
        side[~side["key"].isin(set(other["key"]))][[*columns, *own]].reset_index(drop=True)
        for side, other, own in zip(sides, sides[::-1], found.own, strict=True)
    ]
    rows = tested(pairs, "B", "A").rename(columns={"first_percent": "a_percent", "second_percent": "b_percent"})
    rows = pd.concat([pairs[named], rows], axis=1).sort_values(named, ignore_index=True)
    return Comparison(metric_a, metric_b, rows, *alone)


def _values(table: pd.DataFrame, column: str) -> tuple[object, ...]:
    found = {_plain(value) for value in table[column].dropna().unique()} if column in table else set()
    return tuple(sorted(found - {""}, key=str if any(isinstance(value, str) for value in found) else None))


def _plain(value: object) -> object:
    if pd.isna(value):
        return ""
    return value if isinstance(value, str) else float(value) if not isinstance(value, bool) else str(value)
