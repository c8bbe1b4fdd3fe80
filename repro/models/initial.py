"""Initial weights as the authors draw them (big_vision's vit.py, text_transformer.py), for open_clip and timm towers.

Flax takes the fans of attention's query, key and value each for itself; torch holds the three as one matrix, and a
bound that follows from its own shape would be too small. So each tensor's distribution is named here.
"""

import math
from dataclasses import dataclass

import torch

from repro.config.errors import InputError

KEPT = ("logit_scale", "logit_bias")
"""The spec says where they start."""
TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal distribution cut at ±2, as jax corrects for it."""
BLOCKS = {"in_proj_weight": 3, "qkv.weight": 3, "kv.weight": 2}
"""Kernels that lie in one matrix, and how many they are."""


@dataclass(frozen=True)
class Distribution:
    """kind: uniform (on ±√3 std), normal, truncated (normal, cut at ±2 std of what is cut), or constant (mean)."""

    kind: str
    std: float = 0.0
    mean: float = 0.0

    def draw(self, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
        """fp32, on the CPU."""
        drawn = torch.full(shape, self.mean)
        if self.kind == "uniform":
            bound = math.sqrt(3) * self.std
            drawn.uniform_(-bound, bound, generator=generator)
        elif self.kind == "normal":
            drawn.normal_(0, self.std, generator=generator)
        elif self.kind == "truncated":
            std = self.std / TRUNCATED_STD
            torch.nn.init.trunc_normal_(drawn, 0.0, std, -2 * std, 2 * std, generator=generator)
        return drawn

    def __str__(self) -> str:
        return f"{self.kind} {self.mean:g}" if self.kind == "constant" else f"{self.kind}, std {self.std:.4g}"


ZEROS, ONES = Distribution("constant"), Distribution("constant", mean=1.0)


def xavier_uniform(fan_in: int, fan_out: int) -> Distribution:
    return Distribution("uniform", math.sqrt(2 / (fan_in + fan_out)))


def lecun_normal(fan_in: int) -> Distribution:
    return Distribution("truncated", math.sqrt(1 / fan_in))


def distributions(model: torch.nn.Module) -> dict[str, Distribution]:
    """Every parameter's distribution by name, t and b aside.

    Raises InputError for one that the authors' towers have nothing like.
    """
    found = {}
    for place, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{place}.{own}" if place else own
            if name in KEPT:
                continue
            chosen = _of_layer(module, own, name, parameter.shape) or _of_tensor(own, parameter.shape)
            if chosen is None:
                raise InputError(
                    f"init authors: {name} {list(parameter.shape)}: the authors' towers have no such tensor; "
                    "expected a ViT and a text transformer of open_clip or timm, or init open_clip"
                )
            found[name] = chosen
    return found


def _of_layer(module: torch.nn.Module, own: str, name: str, shape: torch.Size) -> Distribution | None:
    is_bias = own.endswith("bias")
    if isinstance(module, torch.nn.LayerNorm):
        return ZEROS if is_bias else ONES
    if isinstance(module, torch.nn.Embedding):
        return Distribution("normal", 1 / math.sqrt(shape[1]))
    if isinstance(module, torch.nn.modules.conv._ConvNd):
        return ZEROS if is_bias else lecun_normal(math.prod(shape[1:]))
    if not isinstance(module, torch.nn.Linear | torch.nn.MultiheadAttention):
        return None
    if ".mlp." in name:
        return Distribution("normal", 1e-6) if is_bias else xavier_uniform(*shape)
    if ".attn." in name or ".attn_pool." in name:
        blocks = next((count for end, count in BLOCKS.items() if name.endswith(f".{end}")), 1)
        return ZEROS if is_bias else xavier_uniform(shape[1], shape[0] // blocks)
    if name.rpartition(".")[0].endswith(("text_projection", "head.proj")):
        return ZEROS if is_bias else lecun_normal(shape[1])
    return None


def _of_tensor(own: str, shape: torch.Size) -> Distribution | None:
    """Of a parameter that is no layer's."""
    if own in ("positional_embedding", "pos_embed"):
        return Distribution("normal", 1 / math.sqrt(shape[-1]))
    if own in ("class_embedding", "cls_token"):
        return ZEROS
    if own == "latent":  # the probe of attention pooling, [1, 1, width]
        return xavier_uniform(1, shape[-1])
    return lecun_normal(shape[0]) if own in ("proj", "text_projection") else None  # [width, d], open_clip's heads


@torch.no_grad()
def initialise(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew, t and b aside: the same values on every device. Raises InputError."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    for name, distribution in distributions(model).items():
        parameters[name].copy_(distribution.draw(parameters[name].shape, generator))
