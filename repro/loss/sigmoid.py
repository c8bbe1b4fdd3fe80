"""The sigmoid loss (SigLIP, section 3.2 and Algorithm 1): every image-text pair is a binary decision of its own.

The plain formula on this rank's rows of the similarity matrix: memory O(b·B).
"""

import torch
import torch.nn.functional as F

from repro.loss.exchange import gather, rank


class SigmoidLoss(torch.nn.Module):
    """L = (1/B) Σᵢⱼ softplus(−zᵢⱼ lᵢⱼ), l = t·x·yᵀ + b, z = +1 on the diagonal and −1 elsewhere."""

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor,
        logit_bias: torch.Tensor | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """image_features, text_features: [b, d], L2-normalised, this rank's. logit_scale: t (not its logarithm).

        Each rank returns (1/b)·(the sum of its rows), so that averaging over ranks, as DDP does with gradients,
        gives the mean over the global batch.
        """
        local = len(image_features)
        logits = logit_scale * image_features @ gather(text_features).T  # [b, B]
        if logit_bias is not None:
            logits = logits + logit_bias
        # −log σ(−l) = softplus(l) for negatives, and softplus(−l) = softplus(l) − l for positives.
        positives = logits.diagonal(offset=rank() * local)
        loss = (F.softplus(logits).sum() - positives.sum()) / local
        return {"contrastive_loss": loss} if output_dict else loss
