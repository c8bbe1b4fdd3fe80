"""Optimizer, parameter groups by tower, and the learning-rate schedule counted in examples.

Weight decay is the paper's (big_vision's): a share of the weight itself, scaled by the schedule but not by the
learning rate, nor by a tower's multiplier of it. torch and timm multiply theirs by the group's learning rate, so theirs
is ours ÷ (peak learning rate × multiplier): the paper's 1e-4 at 1e-3 is 0.1 in torch's terms, and 1.0 for a tower
that learns at a tenth of the rate.
"""

import math
from typing import Any

import torch

from repro.config.spec import RunSpec
from repro.models.pretrained import VISUAL

OF_THE_LOSS = ("logit_scale", "logit_bias")
HEADS = ("proj", "text_projection")
"""Dense layers that open_clip holds as bare matrices."""


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


def decays(model: torch.nn.Module, decay_on: str) -> set[str]:
    """Names of the parameters that decay.

    kernels: the weights of dense and convolution layers, attention's projections among them, as in big_vision; not
    token tables, position embeddings, class tokens, the probe of attention pooling, gains, biases, t and b.
    matrices: every parameter of two or more dimensions that is no bias.
    """
    if decay_on == "matrices":
        return {n for n, p in model.named_parameters() if p.ndim >= 2 and not n.endswith("bias")}
    kernels = set()
    for place, module in model.named_modules():
        prefix = f"{place}." if place else ""
        own = [name for name, p in module.named_parameters(recurse=False) if p.ndim >= 2]
        layer = isinstance(module, torch.nn.Linear | torch.nn.modules.conv._ConvNd | torch.nn.MultiheadAttention)
        kernels |= {prefix + name for name in own if name in HEADS or (layer and name.endswith("weight"))}
    return kernels


def parameter_groups(model: torch.nn.Module, spec: RunSpec) -> list[dict[str, Any]]:
    """The parameters that learn, one group for each learning-rate multiplier and weight decay.

    A group: multiplier, decay (a share of the weight at the peak of the schedule), and {name: parameter}.
    """
    multipliers = {"image": spec.image_learning_rate_multiplier, "text": spec.text_learning_rate_multiplier}
    own = {"image": spec.image_weight_decay, "text": spec.text_weight_decay}
    chosen = decays(model, spec.decay_on)
    groups: dict[tuple[float, float], dict[str, torch.nn.Parameter]] = {}
    for decayed in (True, False):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and decayed == (name in chosen):
                tower = tower_of(name)
                decay = spec.weight_decay if own.get(tower) is None else own[tower]
                groups.setdefault((multipliers.get(tower, 1.0), decay if decayed else 0.0), {})[name] = parameter
    return [
        {"multiplier": multiplier, "decay": decay, "parameters": parameters}
        for (multiplier, decay), parameters in groups.items()
    ]


def describe_groups(model: torch.nn.Module, spec: RunSpec) -> list[dict[str, Any]]:
    """`parameter_groups` for a run's directory: which tensor is where, by name."""
    return [group | {"parameters": list(group["parameters"])} for group in parameter_groups(model, spec)]


def make_optimizer(model: torch.nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    """The spec's optimizer over `parameter_groups`."""
    groups = [
        {
            "params": list(group["parameters"].values()),
            "lr": spec.learning_rate * group["multiplier"],
            "multiplier": group["multiplier"],
            "weight_decay": group["decay"] / (spec.learning_rate * group["multiplier"]),
        }
        for group in parameter_groups(model, spec)
    ]
    betas = (spec.beta1, spec.beta2)
    if spec.optimizer == "adafactor":
        from timm.optim import AdafactorBigVision

        return AdafactorBigVision(
            groups,
            lr=spec.learning_rate,
            momentum=spec.beta1,
            momentum_dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[spec.momentum_precision],
            beta2_cap=spec.beta2,
            min_dim_size_to_factor=32,
            clipping_threshold=None,
        )
    if spec.optimizer == "lion":
        from timm.optim import Lion

        return Lion(groups, lr=spec.learning_rate, betas=betas)
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=betas, eps=spec.epsilon, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all groups, each times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["multiplier"]


def schedule(spec: RunSpec, examples_seen: int) -> float:
    """Share of the peak learning rate for the step that begins after `examples_seen`: warm-up, then decay to 0.

    Warm-up is read where the step ends, so that none is lost to a short run, or where it starts, as in big_vision.
    """
    warmed = examples_seen + (spec.batch_size if spec.schedule_at == "end" else 0)
    warmup = 1.0 if warmed >= spec.warmup_examples else warmed / spec.warmup_examples
    length = spec.steps * spec.batch_size - spec.warmup_examples
    done = min(1.0, max(0.0, examples_seen - spec.warmup_examples) / max(1, length))
    return warmup * {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[spec.schedule]
