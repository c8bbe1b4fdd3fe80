"""Losses compared at each batch size, two by two: the difference in points, tested and corrected."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from repro.loss.registry import LOSSES
from repro.results.series import split
from repro.results.stats.cells import default_by
from repro.results.stats.differences import holm, p_equal, verdicts
from repro.results.stats.pairs import differences, measured, sides_of
from repro.results.stats.saturation import widest_margin

PAIR = ("loss_a", "loss_b")
COLUMNS = (*PAIR, "a_percent", "b_percent", "difference_points", "low_points", "high_points")
COLUMNS += ("p", "p_holm", "p_equal", "margin_points", "verdict", "seeds", "noise_source")


def compare_losses(table: pd.DataFrame, metric: str, by: Sequence[str] | None = None) -> pd.DataFrame:
    """One row for each series, two losses and batch size that both have; empty where there is none.

    Columns: `by` (without loss), batch_size, loss_a and loss_b (in the order of loss.registry), a_percent, b_percent,
    difference_points (a − b) with low_points and high_points (95 %, not corrected), p, p_holm (over the batch sizes of
    a series), p_equal (TOST within margin_points), verdict (the loss that is ahead, 'equal' or 'cannot tell'), seeds
    and noise_source.
    """
    by = [column for column in (default_by(table) if by is None else by) if column != "loss"]
    rows = measured(table, metric, [*by, "loss"])
    parts = []
    for pair in combinations(_in_order(rows["loss"].unique()), 2):
        a, b = (rows[rows["loss"] == loss].drop(columns="loss") for loss in pair)
        both = b.merge(a, on=[*by, "batch_size"], suffixes=("_first", "_second"))
        parts += [_of_series(part, by, *pair) for _, part in split(both, by)] if len(both) else []
    columns = [*by, "batch_size", *COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _in_order(losses: Sequence[str]) -> list[str]:
    known = list(LOSSES)
    return sorted(losses, key=lambda loss: (known.index(loss) if loss in known else len(known), str(loss)))


def _of_series(pairs: pd.DataFrame, by: Sequence[str], loss_a: str, loss_b: str) -> pd.DataFrame:
    found = differences(pairs).rename(columns={"first_percent": "b_percent", "second_percent": "a_percent"})
    margin = widest_margin(sides_of(pairs))
    points, error = found["difference_points"].to_numpy(float), found["error_points"].to_numpy(float)
    corrected = holm(found["p"].to_numpy(float))
    equal = p_equal(points, error, found["degrees"].to_numpy(float), margin)
    words = verdicts(points, corrected, equal, loss_a, loss_b, equal_first=False)
    found = found.assign(p_holm=corrected, p_equal=equal, margin_points=margin, verdict=words)
    found = found.assign(loss_a=loss_a, loss_b=loss_b)
    return pd.concat([pairs[[*by, "batch_size"]], found], axis=1).sort_values("batch_size")
