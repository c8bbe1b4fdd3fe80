"""Optimizer, parameter groups by tower, and the learning-rate schedule counted in examples.

Weight decay is the paper's (big_vision's): a share of the weight itself, scaled by the schedule but not by the
learning rate, nor by a tower's multiplier of it. torch and timm multiply theirs by the group's learning rate, so theirs
is ours ÷ (peak learning rate × multiplier): the paper's 1e-4 at 1e-3 is 0.1 in torch's terms, and 1.0 for a tower
that learns at a tenth of the rate.
"""

import math

import torch

from repro.config.spec import RunSpec
from repro.models.pretrained import VISUAL

OF_THE_LOSS = ("logit_scale", "logit_bias")


def lock_towers(model: torch.nn.Module, spec: RunSpec) -> dict[str, bool]:
    """Hold towers still whose multiplier is 0; returns which are ('image', 'text').

    Their parameters ask for no gradient and get no optimizer state; what they count while training stays as it is.
    """
    locked = {"image": spec.image_learning_rate_multiplier == 0, "text": spec.text_learning_rate_multiplier == 0}
    for name, parameter in model.named_parameters():
        if locked.get(tower_of(name)):
            parameter.requires_grad_(False)
    for name, module in model.named_modules():
        if name and locked.get(tower_of(f"{name}.")):
            module.eval()
    return locked


def tower_of(name: str) -> str:
    """'image', 'text', or 'loss' for t and b, which belong to neither tower."""
    if name.startswith(VISUAL):
        return "image"
    return "loss" if name in OF_THE_LOSS else "text"


def make_optimizer(model: torch.nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """Over the parameters that learn; one group for each weight decay and learning-rate multiplier.

    Decay is for matrices and embeddings; none for gains, biases, t and b.
    """
    multipliers = {"image": spec.image_learning_rate_multiplier, "text": spec.text_learning_rate_multiplier}
    decays = {"image": spec.image_weight_decay, "text": spec.text_weight_decay}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for decayed in (True, False):
        for name, parameter in model.named_parameters():
            tower = tower_of(name)
            if parameter.requires_grad and decayed == (parameter.ndim >= 2 and not name.endswith("bias")):
                decay = decays.get(tower) if decays.get(tower) is not None else spec.weight_decay
                key = (multipliers.get(tower, 1.0), decay if decayed else 0.0)
                groups.setdefault(key, []).append(parameter)
    made = [
        {
            "params": parameters,
            "lr": spec.learning_rate * multiplier,
            "multiplier": multiplier,
            "weight_decay": decay / (spec.learning_rate * multiplier),
        }
        for (multiplier, decay), parameters in groups.items()
    ]
    betas = (spec.beta1, spec.beta2)
    if spec.optimizer == "adafactor":
        from timm.optim import AdafactorBigVision

        return AdafactorBigVision(
            made,
            lr=spec.learning_rate,
            momentum=spec.beta1,
            beta2_cap=spec.beta2,
            min_dim_size_to_factor=32,
            clipping_threshold=1.0,
        )
    if spec.optimizer == "lion":
        from timm.optim import Lion

        return Lion(made, lr=spec.learning_rate, betas=betas)
    return torch.optim.AdamW(made, lr=spec.learning_rate, betas=betas, eps=spec.epsilon, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all groups, each times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["multiplier"]


def schedule(spec: RunSpec, examples_seen: int) -> float:
    """Share of the peak learning rate for the step that begins after `examples_seen`: warm-up, then decay to 0."""
    end_of_step = examples_seen + spec.batch_size
    if end_of_step < spec.warmup_examples:
        return end_of_step / spec.warmup_examples
    length = spec.steps * spec.batch_size - spec.warmup_examples
    done = min(1.0, max(0.0, examples_seen - spec.warmup_examples) / max(1, length))
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[spec.schedule]
