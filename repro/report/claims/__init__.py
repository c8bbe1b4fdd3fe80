"""The paper's claims as a list: what it says, its number, ours, and the verdict that our runs bear.

Each claim is a function of what the report has found. The paper's numbers are looked up in its tables (`published`);
where it published a curve only, the claim stands in words.
"""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from repro.config.spec import RunSpec
from repro.report.claims import batch_size, negatives, settings, systems, training
from repro.report.claims.claim import Claim
from repro.report.found import Found
from repro.results.sources import ORIGIN

CLAIMS: tuple[Callable[[Found], Claim], ...] = (
    *batch_size.CLAIMS,
    *training.CLAIMS,
    *negatives.CLAIMS,
    *settings.BIAS,
    *training.NOISE,
    *settings.CLAIMS,
    *systems.CLAIMS,
)


def claims(found: Found) -> list[Claim]:
    """All of the paper's claims, in the order of its sections."""
    told = replace(found, runs=columns_of_claims(found.runs))
    return [claim(told) for claim in CLAIMS]


def columns_of_claims(runs: pd.DataFrame) -> pd.DataFrame:
    """Every field of a run (empty where an older version lacks it) and the main metrics: few columns are fast."""
    metrics = [name for name in runs.columns if name.endswith(("acc1", "/mean_recall@1"))]
    columns = ["run_id", "sweep", "status", "reason", ORIGIN, *RunSpec.model_fields, *metrics]
    return runs.reindex(columns=columns)
