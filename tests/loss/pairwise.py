"""A third loss, as somebody would add one: pairwise logistic, L = (1/B) Σᵢⱼ softplus(−zᵢⱼ l'ᵢⱼ) without a bias, whose
logits l' = t·x·yᵀ − log(B − 1) start at the prior. On one rank.
"""

import math

import torch
import torch.nn.functional as F

from repro.loss.registry import LossKind


class PairwiseLoss(torch.nn.Module):
    def __init__(self, exchange: str = "ring"):
        super().__init__()

    def forward(self, image_features, text_features, logit_scale, logit_bias=None):
        size = len(image_features)
        logits = logit_scale * image_features @ text_features.T - math.log(size - 1)
        return F.softplus(logits).sum() / size - logits.diagonal().mean()


PAIRWISE = LossKind(
    "pairwise",
    "tests.loss.pairwise:PairwiseLoss",
    "tests.loss.pairwise:PairwiseLoss",
    has_bias=False,
    chooses_negatives=False,
    products=3,
    passes=1,
    colour="#009e73",
    marker="^",
)
