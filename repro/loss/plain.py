"""The losses as published: the plain formulas on this rank's rows of the whole similarity matrix, memory O(b·B).

What the tiled losses are measured and tested against. Signature and scaling are theirs.
"""

import torch
import torch.nn.functional as F

from repro.loss.exchange import gather, rank


class PlainSigmoidLoss(torch.nn.Module):
    """L = (1/B) Σᵢⱼ softplus(−zᵢⱼ lᵢⱼ), l = t·x·yᵀ + b, z = +1 on the diagonal and −1 elsewhere (section 3.2)."""

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor,
        logit_bias: torch.Tensor | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """See SigmoidLoss."""
        local = len(image_features)
        logits = logit_scale * image_features @ gather(text_features).T  # [b, B]
        if logit_bias is not None:
            logits = logits + logit_bias
        signs = -torch.ones_like(logits)
        signs.diagonal(offset=rank() * local).fill_(1)
        loss = -F.logsigmoid(signs * logits).sum() / local
        return {"contrastive_loss": loss} if output_dict else loss


class PlainSoftmaxLoss(torch.nn.Module):
    """L = −(1/2B) Σᵢ (log softmax of row i at i + log softmax of column i at i) of l = t·x·yᵀ (section 3.1)."""

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor,
        logit_bias: torch.Tensor | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """See SoftmaxLoss; a bias cancels in the softmax and is ignored."""
        local = len(image_features)
        targets = torch.arange(local, device=image_features.device) + rank() * local
        rows = logit_scale * image_features @ gather(text_features).T  # [b, B]
        columns = logit_scale * text_features @ gather(image_features).T  # [b, B]
        loss = (F.cross_entropy(rows, targets) + F.cross_entropy(columns, targets)) / 2
        return {"contrastive_loss": loss} if output_dict else loss
