"""Optimizer, weight decay groups, and the learning-rate schedule counted in examples.

Weight decay is the paper's (big_vision's): a share of the weight itself, scaled by the schedule but not by the
learning rate. torch and timm multiply theirs by the learning rate, so theirs is ours ÷ the peak learning rate:
the paper's 1e-4 at 1e-3 is 0.1 in torch's terms.
"""

import math

import torch

from repro.spec import RunSpec


def make_optimizer(model: torch.nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """Decay for matrices and embeddings; none for gains, biases, t and b."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim >= 2 and not name.endswith("bias")]
    kept = [p for name, p in trained if p.ndim < 2 or name.endswith("bias")]
    groups = [
        {"params": decayed, "weight_decay": spec.weight_decay / spec.learning_rate},
        {"params": kept, "weight_decay": 0.0},
    ]
    if spec.optimizer == "adafactor":
        from timm.optim import AdafactorBigVision

        return AdafactorBigVision(
            groups,
            lr=spec.learning_rate,
            momentum=spec.beta1,
            beta2_cap=spec.beta2,
            min_dim_size_to_factor=32,
            clipping_threshold=1.0,
        )
    return torch.optim.AdamW(
        groups, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), eps=spec.epsilon, fused=True
    )


def schedule(spec: RunSpec, examples_seen: int) -> float:
    """Share of the peak learning rate for the step that begins after `examples_seen`: warm-up, then decay to 0."""
    end_of_step = examples_seen + spec.batch_size
    if end_of_step < spec.warmup_examples:
        return end_of_step / spec.warmup_examples
    length = spec.steps * spec.batch_size - spec.warmup_examples
    done = min(1.0, max(0.0, examples_seen - spec.warmup_examples) / max(1, length))
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[spec.schedule]
