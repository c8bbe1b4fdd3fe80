"""Found: all that a report is drawn from, and what exhibits ask of it: whose runs, of which experiment."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pandas.api.types import is_object_dtype

from repro.config.errors import InputError
from repro.config.sweep import Sweep, load_sweep
from repro.report import tables
from repro.results.sources import ORIGIN, PAPER, published_runs

NEEDED = {
    **dict.fromkeys(("run_id", "sweep", "setup", "scale", "status", "reason", ORIGIN), ""),
    **dict.fromkeys(("loss", "batch_size", "examples_seen", "seed"), np.nan),
}
"""Columns that exhibits count on, and what stands in a table that lacks them."""
NUMBERS = (
    *("batch_size", "micro_batch", "examples_seen", "seed", "threads", "ranks", "steps", "step_seconds"),
    *("learning_rate", "weight_decay", "image_weight_decay", "beta1", "beta2", "token_bottleneck"),
    *("image_learning_rate_multiplier", "text_learning_rate_multiplier", "init_logit_scale", "init_logit_bias"),
    *("negatives_share", "corruption_probability"),
)
TEXTS = ("run_id", "sweep", "setup", "scale", "reason", ORIGIN)
DEFAULTS = {"negatives": "all", "negatives_share": 1.0, "corruption": "none", "corruption_probability": 0.0}
"""Of columns that rows of an older version lack."""


@dataclass(frozen=True)
class Found:
    """All that a report is drawn from."""

    runs: pd.DataFrame
    """Runs of all sweeps, one a row; rows of other origin have its name in the column `origin`."""
    evaluations: pd.DataFrame
    """Accuracy along the way (repro.results.load_evaluations) of all sweeps; may be empty."""
    curves: pd.DataFrame
    """Columns of the logs (repro.results.load_curves) of all sweeps; may be empty."""
    published: pd.DataFrame
    """The paper's numbers, one a row (repro.results.published)."""
    bench: Mapping[str, pd.DataFrame]
    """Tables of results/bench by name; may be empty."""
    logs: pd.DataFrame = field(default_factory=pd.DataFrame)
    """More columns of the logs, of all runs, for those who look at a single one; may be empty."""
    metrics: tuple[str, ...] = ()
    """Metrics to draw; () for each data set's main one."""

    @functools.cached_property
    def all(self) -> pd.DataFrame:
        """Every row with the columns that exhibits count on, and numbers where numbers belong."""
        runs = self.runs.reset_index(drop=True)
        columns = {name: _scalars(column) for name, column in runs.items()}
        columns |= {name: pd.Series(value, runs.index) for name, value in NEEDED.items() if name not in runs}
        columns |= {name: tables.numbers(columns[name]) for name in NUMBERS if name in columns}
        columns |= {name: columns[name].fillna("").astype(str) for name in TEXTS}
        columns |= {name: columns[name].fillna(value) for name, value in DEFAULTS.items() if name in columns}
        columns["status"] = columns["status"].fillna("finished").replace("", "finished").astype(str)
        return pd.DataFrame(columns)

    @functools.cached_property
    def ours(self) -> pd.DataFrame:
        """Runs of this project."""
        return _filled(self.all[self.all["origin"] == ""])

    @functools.cached_property
    def imported(self) -> pd.DataFrame:
        """Rows of other origin: another project's numbers."""
        return _filled(self.all[~self.all["origin"].isin(["", PAPER])])

    @functools.cached_property
    def origins(self) -> tuple[str, ...]:
        """Names of the imported series, in the order of their colours."""
        return tuple(sorted(self.imported["origin"].unique()))

    @functools.cached_property
    def paper(self) -> pd.DataFrame:
        """The paper's numbers as runs, metrics from 0 to 1; `source` is the table."""
        if self.published.empty:
            return self.ours[:0].assign(source="")
        return tables.with_mean_recall(published_runs(self.published))

    def paper_table(self, source: str) -> pd.DataFrame:
        """One of the paper's tables, with those columns only that it has."""
        return _filled(self.paper[self.paper["source"] == source])

    @functools.cached_property
    def sweeps(self) -> dict[str, Sweep | None]:
        """The sweep files of our runs' sweeps, by name; None where there is none (any more)."""
        return {name: _sweep(name) for name in sorted(self.ours["sweep"].unique())}

    def of(self, *exhibits: str) -> pd.DataFrame:
        """Our runs of the sweeps that reproduce any of these: 'figure 2', 'table 4', 'section 4.3'."""
        return _filled(self.ours[self.ours["sweep"].isin(self.sweeps_of(*exhibits))])

    def sweeps_of(self, *exhibits: str) -> list[str]:
        wanted = set(exhibits)
        return [name for name, sweep in self.sweeps.items() if sweep and reproduced(sweep.reproduces) & wanted]

    def claim(self, *exhibits: str) -> str:
        """What the paper says, in the words of the sweep's file."""
        claims = (self.sweeps[name].claim for name in self.sweeps_of(*exhibits))
        return " ".join(" ".join(dict.fromkeys(claims)).split())


def reproduced(text: str) -> set[str]:
    """'figures 2, 3 and 8, tables 2' → {'figure 2', 'figure 3', 'figure 8', 'table 2'}."""
    found, kind = set(), ""
    for word, number in re.findall(r"(figure|table|section)s?|(\d+(?:\.\d+)?)", text):
        kind = word or kind
        if number and kind:
            found.add(f"{kind} {number}")
    return found


def _sweep(name: str) -> Sweep | None:
    try:
        return load_sweep(name)
    except InputError:
        return None


def _scalars(column: pd.Series) -> pd.Series:
    """What is no scalar, such as a list in a run's result, as a word: it can be neither counted nor compared."""
    if not is_object_dtype(column):
        return column
    return column.map(lambda value: str(value) if isinstance(value, list | dict | tuple | set) else value)


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Without metrics that none of these rows has: other sweeps' data sets."""
    empty = [column for column in table.columns if "/" in column and not table[column].notna().any()]
    return table.drop(columns=empty)
