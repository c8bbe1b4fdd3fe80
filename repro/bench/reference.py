"""Gradients of the plain formulas in float64, a few rows of the similarity matrix at a time.

Written straight from the formulas (docs/architecture.md), with none of the tricks of what is held against it.
"""

import torch

TILE_ELEMENTS = 2**22


def gradients(
    loss: str, images: torch.Tensor, texts: torch.Tensor, logit_scale: float, logit_bias: float
) -> dict[str, torch.Tensor]:
    """∂L/∂(images, texts, logit_scale, logit_bias) of the mean over the whole batch [B, d]; softmax has no bias."""
    x, y = images.double(), texts.double()
    size = len(x)
    rows = max(1, TILE_ELEMENTS // size)
    probabilities = _sigmoid(logit_bias) if loss == "sigmoid" else _softmax(x, y, logit_scale, rows)
    found = {"images": torch.empty_like(x), "texts": torch.zeros_like(y)}
    found |= {"logit_scale": x.new_zeros(()), "logit_bias": x.new_zeros(())}
    for first in range(0, size, rows):
        tile = slice(first, first + rows)
        similarity = x[tile] @ y.T  # [rows, B]
        residual = probabilities(logit_scale * similarity, tile)
        residual.diagonal(offset=first).sub_(1)
        residual /= size
        found["images"][tile] = logit_scale * residual @ y
        found["texts"] += logit_scale * residual.T @ x[tile]
        found["logit_scale"] += (residual * similarity).sum()
        found["logit_bias"] += residual.sum()
    if loss == "softmax":
        del found["logit_bias"]
    return found


def _sigmoid(logit_bias: float):
    return lambda logits, _: torch.sigmoid(logits + logit_bias)


def _softmax(x: torch.Tensor, y: torch.Tensor, logit_scale: float, rows: int):
    """Half of each row's softmax and half of each column's, from their log-sum-exps."""
    of_rows = x.new_empty(len(x))
    of_columns = x.new_full((len(x),), -torch.inf)
    for first in range(0, len(x), rows):
        tile = slice(first, first + rows)
        logits = logit_scale * x[tile] @ y.T
        of_rows[tile] = logits.logsumexp(1)
        of_columns = torch.logaddexp(of_columns, logits.logsumexp(0))
    return lambda logits, tile: ((logits - of_rows[tile, None]).exp() + (logits - of_columns).exp()) / 2
