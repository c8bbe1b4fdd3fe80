"""The paper's claims as a list: what it says, its number, ours, and the verdict that our runs bear.

Each claim is a function of what the report has found. The paper's numbers are looked up in its tables (`published`);
where it published a curve only, the claim stands in words.
"""

from collections.abc import Callable
from dataclasses import replace

from repro.report.claims import batch_size, recipe, systems
from repro.report.claims.claim import Claim
from repro.report.found import Found
from repro.spec import RunSpec

CLAIMS: tuple[Callable[[Found], Claim], ...] = (*batch_size.CLAIMS, *recipe.CLAIMS, *systems.CLAIMS)


def claims(found: Found) -> list[Claim]:
    """All of the paper's claims, in the order of its sections."""
    # Tables of older versions lack newer fields: empty columns in their place.
    lacking = [name for name in RunSpec.model_fields if name not in found.runs]
    runs = found.runs.reindex(columns=[*found.runs.columns, *lacking])
    return [claim(replace(found, runs=runs)) for claim in CLAIMS]
