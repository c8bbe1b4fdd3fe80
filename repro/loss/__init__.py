"""The contrastive losses, for any trainer: loss = module(image_features, text_features, logit_scale, logit_bias)."""

from repro.loss.check import NonFiniteError
from repro.loss.negatives import MeanLogits, Negatives
from repro.loss.sigmoid import SigmoidLoss
from repro.loss.softmax import SoftmaxLoss

__all__ = ["MeanLogits", "Negatives", "NonFiniteError", "SigmoidLoss", "SoftmaxLoss", "make_loss"]


def make_loss(name: str, exchange: str = "ring", negatives: Negatives | None = None) -> SigmoidLoss | SoftmaxLoss:
    """'sigmoid' or 'softmax' → its module, on the default process group if there is one."""
    return SoftmaxLoss(exchange) if name == "softmax" else SigmoidLoss(exchange, negatives=negatives)
