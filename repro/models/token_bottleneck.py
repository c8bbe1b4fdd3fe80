"""The bottlenecked token embedding of a large vocabulary: a table of K columns, then K × width (section 4.3).

It holds N·K + K·width numbers instead of N·width. Training learns both factors, and checkpoints to resume from hold
both; final weights hold their product, the plain table that open_clip and clip-benchmark know.

The table starts with the standard deviation σ of the table that it replaces (open_clip's: 0.02) and the K × width
matrix with 1/√K, so the product of both has the standard deviation σ, too: √K · σ · 1/√K.
"""

from typing import Any

import torch
from torch import nn

from repro.config.errors import InputError


class BottleneckedEmbedding(nn.Module):
    """In place of an nn.Embedding(N, width); drawn from torch's random state."""

    def __init__(self, replaced: nn.Embedding, columns: int):
        super().__init__()
        rows, width = replaced.weight.shape
        device = replaced.weight.device
        self.table = nn.Embedding(rows, columns, device=device)
        self.projection = nn.Linear(columns, width, bias=False, device=device)
        nn.init.normal_(self.table.weight, std=replaced.weight.std().item())
        nn.init.normal_(self.projection.weight, std=columns**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[m, L] → [m, L, width]"""
        return self.projection(self.table(tokens))

    @torch.no_grad()
    def product(self) -> torch.Tensor:
        """The one table that gives the same embeddings, [N, width]."""
        return self.table.weight @ self.projection.weight.T


def bottleneck_tokens(model: nn.Module, columns: int, where: str = "model") -> None:
    """Replace the token embedding of an open_clip model by one of so many columns. Raises InputError."""
    text = getattr(model, "text", model)  # CustomTextCLIP's text tower; CLIP has its parts itself
    embedding = getattr(text, "token_embedding", None)
    if not isinstance(embedding, nn.Embedding):
        raise InputError(f"{where}: token_bottleneck {columns}: its text tower has no token embedding of open_clip's")
    text.token_embedding = BottleneckedEmbedding(embedding, columns)


def stock_weights(model: nn.Module) -> dict[str, Any]:
    """The model's weights as stock open_clip has them: a bottleneck's factors are multiplied."""
    weights = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, BottleneckedEmbedding):
            del weights[f"{name}.table.weight"], weights[f"{name}.projection.weight"]
            weights[f"{name}.weight"] = module.product()
    return weights
