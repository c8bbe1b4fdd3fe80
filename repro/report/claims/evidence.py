"""Evidence for a claim: differences of means with intervals, and the verdicts that they bear.

Seed noise is pooled over all cells of a group of runs that have several seeds, so that two or three seeds a cell say
something: a difference of two cells then has the degrees of freedom of the whole group. Where no cell has two seeds
there is no noise, and so no verdict. Rows of the same cell and seed are one draw.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from repro.report.inputs import Inputs
from repro.results import tables
from repro.results.stats.differences import pooled_noise

MARGIN = 0.5
"""Points within which accuracies count as the same, where a claim is that they are."""
SMALL_COST = 1.0
"""Points: the paper's small cost (half a percent), to one digit."""
LEVEL = 0.05
NEVER_COMPARED = ("scale", "data_fingerprint")


class Verdict(StrEnum):
    """Verdict of our runs on a claim. Only the first four are verdicts; the last two say that none can be given."""

    AGREES = "agrees"
    MIXED = "mixed"
    NOT_SHOWN = "not shown at this scale"
    CONTRADICTS = "contradicts"
    TOO_FEW = "too few runs"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Difference:
    """Two means' difference in points, by Student's t. error: its standard error; freedom: 0 where it is unknown."""

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

    def text(self, comparisons: int = 1) -> str:
        """'+1.2 (+0.3 to +2.1)'."""
        if not self.freedom:
            return f"{tables.signed(self.points)} (one seed)"
        low, high = self.interval(comparisons)
        return f"{tables.signed(self.points)} ({tables.signed(low)} to {tables.signed(high)})"

    def minus(self, other: "Difference") -> "Difference":
        """The difference of two differences with the same noise."""
        error = math.hypot(self.error, other.error)
        return Difference(self.points - other.points, error, self.freedom, self.runs | other.runs)


@dataclass(frozen=True)
class Part:
    """One of the things that a claim rests on. judge: number of parts → verdict; None where it is shown and not judged.

    Each of several parts has to agree, but one alone may contradict: the more parts, the surer it has to be.
    """

    text: str
    judge: Callable[[int], Verdict] | None
    runs: frozenset[str]


@dataclass(frozen=True)
class Group:
    """Runs that may be compared: one scale, one data set. label: '' where there is but one group."""

    label: str
    runs: pd.DataFrame

    @functools.cached_property
    def accuracy(self) -> str:
        return self._metric("acc1")

    @functools.cached_property
    def retrieval(self) -> str:
        return self._metric("mean_recall@1")

    def _metric(self, name: str) -> str:
        """The metric of this name that these runs have, ImageNet's first; '' for none. Of languages it is the mean."""
        done = tables.finished(self.runs)
        metrics = [m for m in tables.main_metrics(self.runs) if m.rpartition("/")[2] == name]
        metrics = [m for m in metrics if tables.numbers(done[m]).notna().any()]
        return next((m for m in metrics if m == "imagenet1k/acc1"), next(iter(metrics), ""))

    def of(self, **conditions: object) -> pd.DataFrame:
        return where(self.runs, **conditions)

    def named(self, text: str) -> str:
        return ", ".join(filter(None, [self.label, text]))

    def difference(
        self, first: pd.DataFrame, second: pd.DataFrame, metric: str = "", on: tuple[str, ...] = ()
    ) -> Difference | None:
        """Difference of accuracy, or the given metric, with the noise of the whole group; None where a run lacks."""
        metric = metric or self.accuracy
        return difference(first, second, metric, self.runs, on) if metric and len(first) and len(second) else None

    def part(
        self, label: str, pair: Sequence[pd.DataFrame], expected: str, metric: str = "", on: tuple = (), **how: float
    ) -> "Part | None":
        """The difference as a part of a claim (see `part`)."""
        return part(self.named(label), self.difference(*pair, metric, on), expected, **how)


def groups(inputs: Inputs, *exhibits: str) -> Iterator[Group]:
    """Our runs of the sweeps that reproduce these exhibits ('table 4')."""
    runs = tables.placed(inputs.of(*exhibits))
    by = [column for column in NEVER_COMPARED if column in runs and runs[column].nunique(dropna=False) > 1]
    for key, part in tables.split(runs, by) if len(runs) else ():
        yield Group(tables.series_label(key), part)


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
    noise = pooled_noise(pool, metric)
    error = scale / 100 * noise.of_contrast((1 / both["count_first"] + 1 / both["count_second"]).sum()) / len(both)
    runs = pd.concat([_measured(first, metric), _measured(second, metric)])["run_id"]
    return Difference(points, error, noise.degrees, frozenset(runs.astype(str)))


def _measured(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    done = tables.finished(runs)
    return done.assign(value=tables.numbers(done[metric])).dropna(subset=["value"])


def _draws(runs: pd.DataFrame, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """One value for each cell and seed, of the finished runs that have one."""
    keys = list(dict.fromkeys([*by, "seed"]))
    return _measured(runs, metric).groupby(keys, dropna=False)["value"].mean().reset_index()


def part(
    label: str, measured: Difference | None, expected: str, margin: float = MARGIN, comparisons: int = 1
) -> Part | None:
    """A difference as a part of a claim; None of none.

    expected: 'higher' or 'lower' (the interval leaves zero out on that side), 'equal' (it lies within the margin), 'not
    lower' (above −margin), '' (shown and not judged). comparisons: among how many this one was chosen by looking at
    the same runs.
    """
    if measured is None:
        return None

    def judged(parts: int) -> Verdict:
        if not measured.freedom:
            return Verdict.TOO_FEW
        verdict = judge(measured.interval(comparisons), expected, margin)
        if verdict == Verdict.CONTRADICTS:  # of several parts one by chance would do
            verdict = judge(measured.interval(comparisons * parts), expected, margin)
        return verdict

    text = measured.text(comparisons)
    return Part(f"{label}: {text}" if label else text, judged if expected else None, measured.runs)


def fixed(text: str, verdict: Verdict | None, runs: Iterable[object] = ()) -> Part:
    """A part whose verdict does not depend on an interval; None: shown and not judged."""
    return Part(text, verdict and (lambda parts: verdict), frozenset(map(str, runs)))


def judge(interval: tuple[float, float], expected: str, margin: float = MARGIN) -> Verdict:
    """Verdict that an interval bears on an expectation (see `part`)."""
    low, high = interval if expected != "lower" else (-interval[1], -interval[0])
    if expected == "equal":
        agrees, contradicts = low > -margin and high < margin, low > margin or high < -margin
    elif expected == "not lower":
        agrees, contradicts = low > -margin, high < -margin
    else:
        agrees, contradicts = low > 0, high < 0
    return Verdict.AGREES if agrees else Verdict.CONTRADICTS if contradicts else Verdict.NOT_SHOWN


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """Agreement needs all, contradiction one."""
    return next(v for v in (Verdict.CONTRADICTS, Verdict.NOT_SHOWN, Verdict.AGREES) if v in verdicts)


def weigh(parts: Iterable[Part | None]) -> tuple[Verdict, str, int]:
    """Parts → verdict, our numbers in words, and how many runs they are of.

    Agreement needs all that are judged, contradiction one; some of each are mixed.
    """
    known = [each for each in parts if each is not None]
    judges = [each.judge for each in known if each.judge is not None]
    verdicts = {judged(len(judges)) for judged in judges}
    known_verdicts = verdicts - {Verdict.TOO_FEW}
    verdict = next(iter(verdicts), Verdict.NOT_RUN)
    if known_verdicts:
        verdict = Verdict.MIXED if {Verdict.AGREES, Verdict.CONTRADICTS} <= known_verdicts else weakest(known_verdicts)
    runs = frozenset().union(*(each.runs for each in known))
    return verdict, "; ".join(each.text for each in known), len(runs)


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
