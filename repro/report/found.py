"""All that a report is drawn from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Found:
    """runs: results.load of all sweeps, with mean recall; rows with an `origin` were imported. evaluations, curves: of
    the same runs. published: the paper's numbers, one a row. bench: tables of `repro bench` by name. metrics: those to
    draw; () means each data set's main one.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    curves: pd.DataFrame
    published: pd.DataFrame
    bench: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()


def ours(found: Found) -> pd.DataFrame:
    """Runs of this project, without those imported."""
    return found.runs[found.runs["origin"].isna()] if "origin" in found.runs else found.runs
