"""The two losses compared at each batch size: sigmoid minus softmax in points, tested and corrected."""

from collections.abc import Sequence

import pandas as pd

from repro.results.series import split
from repro.results.stats.cells import default_by
from repro.results.stats.differences import holm, p_equal, verdicts
from repro.results.stats.pairs import differences, measured, sides_of
from repro.results.stats.saturation import widest_margin

COLUMNS = ("sigmoid_percent", "softmax_percent", "difference_points", "low_points", "high_points")
COLUMNS += ("p", "p_holm", "p_equal", "margin_points", "verdict", "seeds", "noise_source")


def compare_losses(table: pd.DataFrame, metric: str, by: Sequence[str] | None = None) -> pd.DataFrame:
    """One row for each series and batch size that both losses have; empty where there is none.

    Columns: `by` (without loss), batch_size, sigmoid_percent, softmax_percent, difference_points (sigmoid − softmax)
    with low_points and high_points (95 %, not corrected), p, p_holm (over the batch sizes of a series), p_equal (TOST
    within margin_points), verdict ('sigmoid', 'softmax', 'equal' or 'cannot tell'), seeds and noise_source.
    """
    by = [column for column in (default_by(table) if by is None else by) if column != "loss"]
    rows = measured(table, metric, [*by, "loss"])
    softmax, sigmoid = (rows[rows["loss"] == loss].drop(columns="loss") for loss in ("softmax", "sigmoid"))
    pairs = softmax.merge(sigmoid, on=[*by, "batch_size"], suffixes=("_first", "_second"))
    parts = [_of_series(part, by) for _, part in split(pairs, by)] if len(pairs) else []
    columns = [*by, "batch_size", *COLUMNS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _of_series(pairs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    found = differences(pairs).rename(columns={"first_percent": "softmax_percent", "second_percent": "sigmoid_percent"})
    margin = widest_margin(sides_of(pairs))
    points, error = found["difference_points"].to_numpy(float), found["error_points"].to_numpy(float)
    corrected = holm(found["p"].to_numpy(float))
    equal = p_equal(points, error, found["degrees"].to_numpy(float), margin)
    words = verdicts(points, corrected, equal, "sigmoid", "softmax", equal_first=False)
    found = found.assign(p_holm=corrected, p_equal=equal, margin_points=margin, verdict=words)
    return pd.concat([pairs[[*by, "batch_size"]], found], axis=1).sort_values("batch_size")
