"""What runs say of a claim: differences of means with intervals, and the verdicts that they bear.

Seed noise is pooled over all cells of a sweep that have several seeds, so that two or three seeds a cell say something:
a difference of two cells then has the degrees of freedom of the whole sweep. Where no cell has two seeds there is no
noise, and so no verdict.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from repro.report import tables

MARGIN = 0.5
"""Points within which accuracies count as the same, where a claim is that they are."""


class Verdict(StrEnum):
    """What our runs say of a claim. Only the first four are verdicts; the last two say that none can be given."""

    AGREES = "agrees"
    MIXED = "mixed"
    NOT_SHOWN = "not shown at this scale"
    CONTRADICTS = "contradicts"
    TOO_FEW = "too few runs"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Evidence:
    """ours: our numbers in words. runs: how many finished runs (or what `of` says) they are of. detail: how the verdict
    was reached.
    """

    verdict: Verdict
    ours: str = ""
    runs: int = 0
    detail: str = ""
    of: str = "run"


NOTHING = Evidence(Verdict.NOT_RUN)


@dataclass(frozen=True)
class Difference:
    """Of two means, in points, with the 95 % interval (Student's t); infinite where no cell has two seeds."""

    points: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"{tables.signed(self.points)} (one seed)"
        return f"{tables.signed(self.points)} ({tables.signed(self.low)} to {tables.signed(self.high)})"


def seed_noise(pool: pd.DataFrame, metric: str) -> tuple[float, int]:
    """Standard deviation over seeds in points, pooled over all cells with several, and its degrees of freedom."""
    cells = tables.summarise(pool, metric, tables.series_columns(pool))
    cells = cells[cells["seeds"] > 1]
    freedom = int((cells["seeds"] - 1).sum())
    if not freedom:
        return math.nan, 0
    return 100 * math.sqrt(((cells["seeds"] - 1) * cells["std"] ** 2).sum() / freedom), freedom


def difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    metric: str,
    pool: pd.DataFrame,
    on: Sequence[str] = (),
    comparisons: int = 1,
) -> Difference | None:
    """Mean of `first` minus mean of `second` in points, averaged over the cells of `on` that both have; None of none.

    pool: the runs whose spread over seeds is the noise of both. comparisons: among how many this one was chosen by
    looking at the same runs; the interval is that much surer (Bonferroni).
    """
    from scipy.special import stdtrit

    cells = [_cells(runs, metric, on) for runs in (first, second)]
    both = cells[0].join(cells[1], how="inner", lsuffix="_first", rsuffix="_second")
    if both.empty:
        return None
    points = 100 * float((both["mean_first"] - both["mean_second"]).mean())
    noise, freedom = seed_noise(pool, metric)
    half = math.inf
    if freedom:
        variances = noise**2 * (1 / both["count_first"] + 1 / both["count_second"])
        half = float(stdtrit(freedom, 1 - 0.025 / comparisons)) * math.sqrt(variances.sum()) / len(both)
    return Difference(points, points - half, points + half, int(both[["count_first", "count_second"]].sum(axis=None)))


def _cells(runs: pd.DataFrame, metric: str, on: Sequence[str]) -> pd.DataFrame:
    runs = tables.finished(runs)
    runs = runs.assign(value=tables.numbers(runs[metric]), all=0).dropna(subset=["value"])
    return runs.groupby(["all", *on], dropna=False)["value"].agg(["mean", "count"])


def judge(found: Difference | None, expected: str, margin: float = MARGIN) -> Verdict:
    """expected: 'higher' or 'lower' (the interval leaves zero out on that side), 'equal' (it lies within the margin),
    'not lower' (it lies above −margin).
    """
    if found is None:
        return Verdict.NOT_RUN
    if not math.isfinite(found.low):
        return Verdict.TOO_FEW
    low, high = (-found.high, -found.low) if expected == "lower" else (found.low, found.high)
    if expected == "equal":
        agrees, contradicts = low > -margin and high < margin, low > margin or high < -margin
    elif expected == "not lower":
        agrees, contradicts = low > -margin, high < -margin
    else:
        agrees, contradicts = low > 0, high < 0
    return Verdict.AGREES if agrees else Verdict.CONTRADICTS if contradicts else Verdict.NOT_SHOWN


def weigh(parts: Iterable[tuple[str, Difference | None, str]], detail: str = "", margin: float = MARGIN) -> Evidence:
    """Several differences (label, difference, what the claim expects of it) → one verdict: what all say, or 'mixed'.

    Where nothing is expected ('') the difference is shown, and not judged.
    """
    parts = [(label, found, expected) for label, found, expected in parts if found is not None]
    if not parts:
        return NOTHING
    ours = "; ".join(f"{label}: {found}" if label else str(found) for label, found, _ in parts)
    verdicts = [judge(found, expected, margin) for _, found, expected in parts if expected]
    return Evidence(together(verdicts), ours, sum(found.runs for _, found, _ in parts), detail)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """All that can be told agree: that; some agree and some contradict: mixed; else the weaker of them."""
    told = {verdict for verdict in verdicts if verdict not in (Verdict.NOT_RUN, Verdict.TOO_FEW)}
    if not told:
        return Verdict.TOO_FEW if Verdict.TOO_FEW in verdicts else Verdict.NOT_RUN
    if {Verdict.AGREES, Verdict.CONTRADICTS} <= told:
        return Verdict.MIXED
    return next(v for v in (Verdict.CONTRADICTS, Verdict.NOT_SHOWN, Verdict.AGREES) if v in told)


def where(runs: pd.DataFrame, **conditions: object) -> pd.DataFrame:
    """Rows whose columns have these values; None stands for an empty cell. An absent column holds nothing."""
    for column, wanted in conditions.items():
        if column not in runs:
            return runs[:0] if wanted is not None else runs
        values = runs[column]
        if wanted is None:
            runs = runs[values.isna()]
        elif isinstance(wanted, float):
            runs = runs[np.isclose(tables.numbers(values), wanted)]
        else:
            runs = runs[values == wanted]
    return runs


def accuracy_metric(runs: pd.DataFrame) -> str | None:
    """The zero-shot accuracy that these runs have, ImageNet's first."""
    return _first(runs, "acc1", "imagenet1k/acc1")


def retrieval_metric(runs: pd.DataFrame) -> str | None:
    """The mean recall at 1 that these runs have, of several languages their mean."""
    found = _first(runs, "mean_recall@1", "")
    return found


def _first(runs: pd.DataFrame, name: str, preferred: str) -> str | None:
    metrics = [m for m in tables.main_metrics(runs) if m.rpartition("/")[2] == name and runs[m].notna().any()]
    return preferred if preferred in metrics else next(iter(metrics), None)
