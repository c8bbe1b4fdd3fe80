"""Claims about fewer negatives (figure 6): which of them count, and how many."""

import math
from collections.abc import Iterator

from repro.report.claims.claim import Claim
from repro.report.claims.evidence import (
    Difference,
    Evidence,
    accuracy_metric,
    difference,
    retrieval_metric,
    weigh,
    where,
)
from repro.report.claims.runs import of, pairs
from repro.report.found import Found

SMALL_COST = 1.0
"""Points: what 'almost keeps' may cost."""


def random_negatives(found: Found) -> Claim:
    parts = _negatives(found, "random", "lower")
    text = "Leaving out most negatives at random costs accuracy."
    return _of_figure_6("random-negatives", text, weigh(parts))


def easy_negatives(found: Found) -> Claim:
    text = "Keeping the easiest negatives only fails."
    return _of_figure_6("easy-negatives", text, weigh(_negatives(found, "easy", "lower")))


def hard_negatives(found: Found) -> Claim:
    parts = list(_negatives(found, "hard", "not lower", shares=(0.1,)))
    return _of_figure_6(
        "hard-negatives",
        "The hardest negatives alone almost keep the quality of all.",
        weigh(parts, f"one tenth of the negatives costs at most {SMALL_COST:g} point", SMALL_COST),
    )


def matched_negatives(found: Found) -> Claim:
    runs = of(found, "negatives")
    lengths = sorted(runs["examples_seen"].dropna().unique()) if len(runs) else []
    everything = where(runs, negatives="all")
    parts = []
    if len(lengths) > 1:
        longer = where(runs, negatives="hard", examples_seen=lengths[-1])
        parts = pairs({"matched minus all": (longer, everything)}, found, "negatives", "higher", both_metrics=True)
    text = "With training lengthened until as many pairs were seen, the hardest negatives surpass all of them."
    return _of_figure_6("matched-negatives", text, weigh(parts))


CLAIMS = (random_negatives, easy_negatives, hard_negatives, matched_negatives)


def _negatives(
    found: Found, kind: str, expected: str, shares: tuple[float, ...] = ()
) -> Iterator[tuple[str, Difference | None, str]]:
    """A kind of negatives minus all of them, at each share, in training of the same length; retrieval is told, too."""
    runs = of(found, "negatives")
    runs = runs[runs["examples_seen"] == runs["examples_seen"].min()]
    own = where(runs, negatives=kind)
    for metric, name, expects in ((accuracy_metric(runs), "", expected), (retrieval_metric(runs), "retrieval, ", "")):
        for share in sorted(own["negatives_share"].unique(), reverse=True) if metric else ():
            if not shares or any(math.isclose(share, wanted) for wanted in shares):
                pair = (where(own, negatives_share=float(share)), where(runs, negatives="all"))
                yield f"{name}{100 * share:g}% {kind} minus all", difference(*pair, metric, runs), expects


def _of_figure_6(name: str, text: str, evidence: Evidence) -> Claim:
    return Claim(name, text, "figure 6", "a figure; no numbers are published", "figure-6", evidence)
