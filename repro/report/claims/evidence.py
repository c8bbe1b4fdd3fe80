"""What runs say of a claim: differences of means with intervals, and the verdicts that they bear.

Seed noise is pooled over all cells of a group of runs that have several seeds, so that two or three seeds a cell say
something: a difference of two cells then has the degrees of freedom of the whole group. Where no cell has two seeds
there is no noise, and so no verdict. Rows of the same cell and seed are one draw.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from repro.report import tables

MARGIN = 0.5
"""Points within which accuracies count as the same, where a claim is that they are."""
LEVEL = 0.05


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
    """ours: our numbers in words. runs: how many runs (or what `of` says) they are of. detail: how it was judged."""

    verdict: Verdict
    ours: str = ""
    runs: int = 0
    detail: str = ""
    of: str = "run"


NOTHING = Evidence(Verdict.NOT_RUN)


@dataclass(frozen=True)
class Difference:
    """Of two means, in points, by Student's t. error: its standard error; freedom: of the noise, 0 where unknown."""

    points: float
    error: float
    freedom: int
    runs: frozenset[str]

    def interval(self, comparisons: int = 1) -> tuple[float, float]:
        """The 95 % interval, surer where it is one of several (Bonferroni); infinite where the noise is unknown."""
        from scipy.special import stdtrit

        if not self.freedom:
            return -math.inf, math.inf
        half = float(stdtrit(self.freedom, 1 - LEVEL / 2 / comparisons)) * self.error
        return self.points - half, self.points + half

    def told(self, comparisons: int = 1) -> str:
        """'+1.2 (+0.3 to +2.1)'."""
        if not self.freedom:
            return f"{tables.signed(self.points)} (one seed)"
        low, high = self.interval(comparisons)
        return f"{tables.signed(self.points)} ({tables.signed(low)} to {tables.signed(high)})"


@dataclass(frozen=True)
class Part:
    """One of the things that a claim rests on. judge: number of parts → verdict; None where it is shown and not judged.

    Each of several parts has to agree, but one alone may contradict: the more parts, the surer it has to be.
    """

    text: str
    judge: Callable[[int], Verdict] | None
    runs: frozenset[str]


def seed_noise(pool: pd.DataFrame, metric: str, scale: float = 100) -> tuple[float, int]:
    """Standard deviation over seeds in points, pooled over all cells with several, and its degrees of freedom."""
    by = ["loss", "batch_size", *tables.series_columns(pool)]
    cells = _draws(pool, metric, by).groupby(by, dropna=False)["value"].agg(["count", "var"])
    cells = cells[cells["count"] > 1]
    freedom = int((cells["count"] - 1).sum())
    if not freedom:
        return math.nan, 0
    return scale * math.sqrt(((cells["count"] - 1) * cells["var"]).sum() / freedom), freedom


def difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    metric: str,
    pool: pd.DataFrame,
    on: Sequence[str] = (),
    scale: float = 100,
) -> Difference | None:
    """Mean of `first` minus mean of `second` in points, averaged over the cells of `on` that both have; None of none.

    pool: the runs whose spread over seeds is the noise of both. scale: of a unit of the metric in points.
    """
    draws = [_draws(runs, metric, on).assign(all=0) for runs in (first, second)]
    means = [own.groupby(["all", *on], dropna=False)["value"].agg(["mean", "count"]) for own in draws]
    both = means[0].join(means[1], how="inner", lsuffix="_first", rsuffix="_second")
    if both.empty:
        return None
    points = scale * float((both["mean_first"] - both["mean_second"]).mean())
    noise, freedom = seed_noise(pool, metric, scale)
    variances = noise**2 * (1 / both["count_first"] + 1 / both["count_second"])
    error = math.sqrt(variances.sum()) / len(both) if freedom else math.nan
    return Difference(points, error, freedom, _ids(first, metric) | _ids(second, metric))


def _draws(runs: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """One value for each cell and seed, of the finished runs that have one."""
    done = tables.finished(runs)
    done = done.assign(value=tables.numbers(done[metric])).dropna(subset=["value"])
    keys = list(dict.fromkeys([*by, "seed"]))
    return done.groupby(keys, dropna=False)["value"].mean().reset_index()


def _ids(runs: pd.DataFrame, metric: str) -> frozenset[str]:
    done = tables.finished(runs)
    return frozenset(done.loc[tables.numbers(done[metric]).notna(), "run_id"].astype(str))


def part(
    label: str, found: Difference | None, expected: str, margin: float = MARGIN, comparisons: int = 1
) -> Part | None:
    """A difference as a part of a claim; None of none.

    expected: 'higher' or 'lower' (the interval leaves zero out on that side), 'equal' (it lies within the margin), 'not
    lower' (above −margin), '' (shown and not judged). comparisons: among how many this one was chosen by looking at
    the same runs.
    """
    if found is None:
        return None
    text = f"{label}: {found.told(comparisons)}" if label else found.told(comparisons)

    def judged(parts: int) -> Verdict:
        if not found.freedom:
            return Verdict.TOO_FEW
        verdict = judge(found.interval(comparisons), expected, margin)
        if verdict == Verdict.CONTRADICTS:  # of several parts one by chance would do
            verdict = judge(found.interval(comparisons * parts), expected, margin)
        return verdict

    return Part(text, judged if expected else None, found.runs)


def said(text: str, verdict: Verdict, runs: Iterable[str] = ()) -> Part:
    """A part whose verdict is no matter of an interval."""
    return Part(text, lambda parts: verdict, frozenset(runs))


def judge(interval: tuple[float, float], expected: str, margin: float = MARGIN) -> Verdict:
    """What an interval says of an expectation (see `part`)."""
    low, high = interval if expected != "lower" else (-interval[1], -interval[0])
    if expected == "equal":
        agrees, contradicts = low > -margin and high < margin, low > margin or high < -margin
    elif expected == "not lower":
        agrees, contradicts = low > -margin, high < -margin
    else:
        agrees, contradicts = low > 0, high < 0
    return Verdict.AGREES if agrees else Verdict.CONTRADICTS if contradicts else Verdict.NOT_SHOWN


def weigh(parts: Iterable[Part | None], detail: str = "", of: str = "run") -> Evidence:
    """Parts → one evidence: agreement needs all that are judged, contradiction one; some of each are mixed."""
    known = [each for each in parts if each is not None]
    if not known:
        return NOTHING
    runs = frozenset().union(*(each.runs for each in known))
    judges = [each.judge for each in known if each.judge is not None]
    verdicts = [judged(len(judges)) for judged in judges]
    return Evidence(together(verdicts), "; ".join(each.text for each in known), len(runs), detail, of)


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
