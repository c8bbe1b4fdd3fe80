"""CLIP's symmetric cross-entropy (SigLIP, section 3.1): every image picks its text among all, and every text its image.

The plain formula on this rank's rows and columns of the similarity matrix: memory O(b·B).
"""

import torch
import torch.nn.functional as F

from repro.loss.exchange import gather, rank


class SoftmaxLoss(torch.nn.Module):
    """L = −(1/2B) Σᵢ (log softmax of row i at i + log softmax of column i at i) of l = t·x·yᵀ."""

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor,
        logit_bias: torch.Tensor | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Arguments and scaling as SigmoidLoss; a bias cancels in the softmax and is ignored."""
        local = len(image_features)
        targets = torch.arange(local, device=image_features.device) + rank() * local
        rows = logit_scale * image_features @ gather(text_features).T  # [b, B]
        columns = logit_scale * text_features @ gather(image_features).T  # [b, B]
        loss = (F.cross_entropy(rows, targets) + F.cross_entropy(columns, targets)) / 2
        return {"contrastive_loss": loss} if output_dict else loss
