"""The losses there are: what each one needs, costs and looks like. Imports nothing heavy.

A new loss is a module and an entry here: specs, sweeps, estimates, benchmarks, help and figures read this table.
The two that the paper compares have more elsewhere, which a third does without: measured costs (estimate/costs.py), a
float64 reference that needs no matrix (bench/measure.py), and a place of their own in crowded figures
(report/draw/series.py).
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from repro.loss.negatives import Negatives


@dataclass(frozen=True)
class LossKind:
    """module, plain: 'package.module:Class' of the loss and of the formula that it is held against.

    has_bias: takes a logit_bias. chooses_negatives: takes `negatives` (section 4.8). products: matrix products of
    forward and backward where no similarity matrix is kept. passes: of the texts round the ring, of which each but the
    last needs sums of the rows and columns. other_names: what other projects call it. colour, marker, line: in figures.
    """

    name: str
    module: str
    plain: str
    has_bias: bool
    chooses_negatives: bool
    products: int
    passes: int
    other_names: tuple[str, ...] = ()
    colour: str = "#7a7f87"
    marker: str = "D"
    line: str | tuple = ":"

    @property
    def flops(self) -> int:
        """Multiplications and additions a pair of the global batch and dimension, forward and backward."""
        return 2 * self.products

    @property
    def style(self) -> dict[str, object]:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}

    def make(self, exchange: str = "ring", negatives: "Negatives | None" = None) -> "torch.nn.Module":
        """The loss, on the default process group if there is one."""
        options = {"negatives": negatives} if self.chooses_negatives else {}
        return _named(self.module)(exchange, **options)

    def make_plain(self) -> "torch.nn.Module":
        return _named(self.plain)()


def _named(place: str) -> type:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


LOSSES = {
    kind.name: kind
    for kind in (
        LossKind(
            "sigmoid",
            "repro.loss.sigmoid:SigmoidLoss",
            "repro.loss.plain:PlainSigmoidLoss",
            has_bias=True,
            chooses_negatives=True,
            products=3,
            passes=1,
            other_names=("siglip",),
            colour="#0072b2",
            marker="o",
            line="-",
        ),
        LossKind(
            "softmax",
            "repro.loss.softmax:SoftmaxLoss",
            "repro.loss.plain:PlainSoftmaxLoss",
            has_bias=False,
            chooses_negatives=False,
            products=4,
            passes=2,
            other_names=("clip", "infonce", "info_nce", "contrastive"),
            colour="#d55e00",
            marker="s",
            line=(0, (4, 1.6)),
        ),
    )
}
"""Blue and vermilion of Okabe and Ito, told apart with any colour vision; marker and line tell them apart in grey."""
