"""Claims about fewer negatives (figure 6): which of them count, and how many."""

import math
from collections.abc import Iterator

from repro.report.claims.claim import Claim
from repro.report.claims.evidence import Evidence, Part, part, weigh, where
from repro.report.claims.runs import groups
from repro.report.found import Found

SMALL_COST = 1.0
"""Points: what 'almost keeps' may cost."""


def random_negatives(found: Found) -> Claim:
    evidence = weigh(_fewer(found, "random", "lower"))
    return _of_figure_6("random-negatives", "Leaving out most negatives at random costs accuracy.", evidence)


def easy_negatives(found: Found) -> Claim:
    evidence = weigh(_fewer(found, "easy", "lower"))
    return _of_figure_6("easy-negatives", "Keeping the easiest negatives only fails.", evidence)


def hard_negatives(found: Found) -> Claim:
    parts = _fewer(found, "hard", "not lower", shares=(0.1,))
    evidence = weigh(parts, f"one tenth of the negatives costs at most {SMALL_COST:g} point")
    return _of_figure_6("hard-negatives", "The hardest negatives alone almost keep the quality of all.", evidence)


def matched_negatives(found: Found) -> Claim:
    parts = []
    for group in groups(found, "figure 6"):
        everything = group.of(negatives="all")
        usual = everything["examples_seen"].min()
        longer = group.of(negatives="hard")
        longer = longer[longer["examples_seen"] > usual]
        for metric, name, expected in ((group.accuracy, "", "higher"), (group.retrieval, "retrieval, ", "")):
            found_here = group.difference(longer, everything, metric) if metric else None
            parts.append(part(group.named(f"{name}matched minus all"), found_here, expected))
    text = "With training lengthened until as many pairs were seen, the hardest negatives surpass all of them."
    return _of_figure_6("matched-negatives", text, weigh(parts))


CLAIMS = (random_negatives, easy_negatives, hard_negatives, matched_negatives)


def _fewer(found: Found, kind: str, expected: str, shares: tuple[float, ...] = ()) -> Iterator[Part | None]:
    """A kind of negatives minus all of them, at each share, in training of the same length; retrieval is told, too."""
    for group in groups(found, "figure 6"):
        everything = group.of(negatives="all")
        own = group.of(negatives=kind)
        own = own[own["examples_seen"] == everything["examples_seen"].min()]
        for metric, name, expects in ((group.accuracy, "", expected), (group.retrieval, "retrieval, ", "")):
            for share in sorted(own["negatives_share"].unique(), reverse=True) if metric else ():
                if not shares or any(math.isclose(share, wanted) for wanted in shares):
                    lost = group.difference(where(own, negatives_share=float(share)), everything, metric)
                    label = group.named(f"{name}{100 * share:g}% {kind} minus all")
                    yield part(label, lost, expects, SMALL_COST)


def _of_figure_6(name: str, text: str, evidence: Evidence) -> Claim:
    return Claim(name, text, "figure 6", "a figure; no numbers are published", "figure-6", evidence)
