"""The runs that a claim is weighed by, in groups that may be compared: one scale, one world, one metric."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from repro.report import tables
from repro.report.claims.evidence import Difference, difference, where
from repro.report.found import Found

APART = ("scale", "data_fingerprint")
"""What is never compared with each other."""


@dataclass(frozen=True)
class Group:
    """Runs of one scale and data. label: '' where there is but one group. accuracy, retrieval: their metrics, or ''."""

    label: str
    runs: pd.DataFrame
    accuracy: str
    retrieval: str

    def of(self, **conditions: object) -> pd.DataFrame:
        return where(self.runs, **conditions)

    def named(self, text: str) -> str:
        return ", ".join(filter(None, [self.label, text]))

    def difference(
        self, first: pd.DataFrame, second: pd.DataFrame, metric: str = "", on: tuple[str, ...] = ()
    ) -> Difference | None:
        """Of accuracy, or the given metric, with the noise of the whole group; None where either has no run."""
        metric = metric or self.accuracy
        return difference(first, second, metric, self.runs, on) if metric and len(first) and len(second) else None


def groups(found: Found, *exhibits: str) -> Iterator[Group]:
    """Our runs of the sweeps that reproduce these exhibits ('table 4')."""
    runs = tables.placed(found.of(*exhibits))
    if runs.empty:
        return
    by = [column for column in APART if column in runs and runs[column].nunique(dropna=False) > 1]
    for key, part in tables.split(runs, by):
        yield group_of(tables.series_label(key), part)


def group_of(label: str, runs: pd.DataFrame) -> Group:
    return Group(label, runs, _metric(runs, "acc1"), _metric(runs, "mean_recall@1"))


def _metric(runs: pd.DataFrame, name: str) -> str:
    """The metric of this name that these runs have, ImageNet's first; of several languages their mean."""
    done = tables.finished(runs)
    metrics = [m for m in tables.main_metrics(runs) if m.rpartition("/")[2] == name]
    metrics = [m for m in metrics if tables.numbers(done[m]).notna().any()]
    return next((m for m in metrics if m == "imagenet1k/acc1"), next(iter(metrics), ""))
