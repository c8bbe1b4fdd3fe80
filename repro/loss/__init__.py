"""The contrastive losses, for any trainer: loss = module(image_features, text_features, logit_scale, logit_bias)."""

import importlib
from typing import TYPE_CHECKING, Any

from repro.loss.registry import LOSSES, LossKind

if TYPE_CHECKING:
    import torch

    from repro.loss.negatives import Negatives

__all__ = ["LOSSES", "LossKind", "MeanLogits", "Negatives", "NonFiniteError", "SigmoidLoss", "SoftmaxLoss", "make_loss"]

_WHERE = {
    "MeanLogits": "negatives",
    "Negatives": "negatives",
    "NonFiniteError": "check",
    "SigmoidLoss": "sigmoid",
    "SoftmaxLoss": "softmax",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is asked for: the table of losses is read by `--help`, too."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def make_loss(name: str, exchange: str = "ring", negatives: "Negatives | None" = None) -> "torch.nn.Module":
    """Return the module of the loss of this name (see LOSSES), on the default process group if there is one."""
    return LOSSES[name].make(exchange, negatives)
