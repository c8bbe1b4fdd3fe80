"""One claim of the paper, and how its published numbers are looked up."""

import math
from dataclasses import dataclass

import pandas as pd

from repro.report.claims.evidence import Evidence, where


@dataclass(frozen=True)
class Claim:
    """text: what it says. source: where the paper does. paper: its number. exhibit: the figure or table to look at."""

    name: str
    text: str
    source: str
    paper: str
    exhibit: str
    evidence: Evidence


def value(published: pd.DataFrame, source: str, **conditions: object) -> float:
    """The first number in percent of one of the paper's tables that has these values; NaN where it has none."""
    rows = where(published[published["source"] == source], **conditions)
    return float(rows["value"].iloc[0]) if len(rows) else math.nan
