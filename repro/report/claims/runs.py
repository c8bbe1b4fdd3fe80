"""The runs that a claim is weighed by."""

import pandas as pd

from repro.report import tables
from repro.report.claims.evidence import Difference, accuracy_metric, difference, retrieval_metric, where
from repro.report.found import Found


def of(found: Found, sweep: str, **conditions: object) -> pd.DataFrame:
    """Our runs of one sweep that have a place in a figure and these values."""
    return tables.placed(where(found.ours, sweep=sweep, **conditions))


def pairs(
    named: dict[str, tuple[pd.DataFrame, pd.DataFrame]],
    found: Found,
    sweep: str,
    expected: str,
    both_metrics: bool = False,
) -> list[tuple[str, Difference | None, str]]:
    """Each pair's difference, by the metric of the paper's table: zero-shot accuracy (and retrieval, where both)."""
    runs = of(found, sweep)
    metrics = [accuracy_metric(runs), retrieval_metric(runs) if both_metrics else None]
    return [
        (f"{'retrieval, ' if place else ''}{label}", difference(*pair, metric, runs), expected)
        for place, metric in enumerate(metrics)
        for label, pair in named.items()
        if metric is not None and all(len(part) for part in pair)
    ]
