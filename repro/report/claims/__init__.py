"""The paper's claims, declared in paper.yaml, with the verdicts that our runs bear."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pandas as pd

from repro.config.spec import RunSpec
from repro.report.claims import batch_size, experiments
from repro.report.claims.evidence import Part, Verdict, groups, weigh, where
from repro.report.inputs import Inputs, declared
from repro.results.tables import ORIGIN

JUDGES = vars(batch_size) | vars(experiments)
"""Claim's `judge` → function, for claims that are not comparisons of cells."""


@dataclass(frozen=True)
class Claim:
    """An entry of paper.yaml, which says what each field is, with our verdict, numbers in words, and their runs."""

    name: str
    text: str
    source: str
    paper: str
    exhibit: str = ""
    how: str = ""
    of: str = "run"
    expected: str = ""
    judge: str = ""
    cells: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    verdict: Verdict = Verdict.NOT_RUN
    ours: str = ""
    runs: int = 0

    @property
    def anchor(self) -> str:
        return self.exhibit or self.source.partition(",")[0].replace(" ", "-")

    def parts(self, inputs: Inputs) -> Iterator[Part | None]:
        """Yield the parts of our evidence."""
        if not self.cells:
            yield from JUDGES[self.judge](inputs)
        for group in groups(inputs, self.source) if self.cells else ():
            for label, pair in self.cells.items():
                yield group.part(label, [where(group.runs, **cell) for cell in pair], self.expected)


def claims(inputs: Inputs) -> list[Claim]:
    """All of the paper's claims in the order of its sections, with our evidence."""
    inputs = replace(inputs, runs=columns_of_claims(inputs.runs))
    entries = [Claim(name, **entry) for name, entry in declared()["claims"].items()]
    judged = [(claim, weigh(claim.parts(inputs))) for claim in entries]
    return [replace(claim, verdict=verdict, ours=ours, runs=runs) for claim, (verdict, ours, runs) in judged]


def columns_of_claims(runs: pd.DataFrame) -> pd.DataFrame:
    """Every field of a run (empty where an older version lacks it) and the main metrics: few columns are fast."""
    metrics = [name for name in runs.columns if name.endswith(("acc1", "/mean_recall@1"))]
    columns = ["run_id", "sweep", "status", "reason", ORIGIN, *RunSpec.model_fields, *metrics]
    return runs.reindex(columns=columns)
