"""Find mistakes in a call of a loss, on every rank before the first block travels.

A rank that fails alone leaves the others waiting. So every rank tells all others what it holds, in one small message;
then all go on, or all raise the same error.
"""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist

from repro.loss.exchange import EXCHANGES, Group, all_gather_single, rank, ranks, waiting

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
NORM_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}


class NonFiniteError(ValueError):
    """Features, logit_scale or logit_bias hold NaN or infinite values."""


@dataclass(frozen=True)
class Facts:
    """A call of a loss, as all ranks know it."""

    text_gradient: bool
    """Some rank wants it, so every rank makes its part."""
    largest_logit: float | None
    """No |t·x·y| of the global batch is larger; None where nobody looked."""


def call_problem(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    exchange: str,
    group: Group,
) -> str | None:
    """Mistakes in this rank's own arguments."""
    count = ranks(group)
    if exchange not in EXCHANGES:
        return f"exchange {exchange!r} is not known; expected one of {', '.join(EXCHANGES)}"
    if exchange == "none" and count > 1:
        return f"exchange 'none' on {count} ranks would leave out the other ranks' negatives; use 'ring' or 'gather'"
    for name, features in (("image_features", images), ("text_features", texts)):
        if features.ndim != 2 or 0 in features.shape:
            return f"{name} has shape {list(features.shape)}; expected [local batch, dim], neither of them 0"
        if features.dtype not in DTYPES:
            return f"{name} is {features.dtype}; expected float32, bfloat16, float16 or float64"
    if images.shape != texts.shape:
        return f"image_features {list(images.shape)} and text_features {list(texts.shape)} differ; expected pairs"
    if images.dtype != texts.dtype:
        return f"image_features is {images.dtype} and text_features {texts.dtype}; expected the same"
    if images.device != texts.device:
        return f"image_features is on {images.device} and text_features on {texts.device}; expected the same"
    if count > 1 and images.device.type == "cpu" and dist.get_backend(group) == "nccl":
        return "image_features is on cpu and the process group's backend is nccl; expected cuda"
    for name, scalar in (("logit_scale", scale), ("logit_bias", bias)):
        if scalar is not None and scalar.numel() != 1:
            return f"{name} has shape {list(scalar.shape)}; expected one number"
        if scalar is not None and scalar.device != images.device and scalar.device.type != "cpu":
            return f"{name} is on {scalar.device} and the features on {images.device}; expected the same"
    return None


class _Held(NamedTuple):
    """One rank's values, as they travel: float64."""

    problem: float
    local: float = 0
    dim: float = 0
    dtype: float = 0
    exchange: float = 0
    text_gradient: float = 0
    has_bias: float = 0
    scale: float = 0
    bias: float = 0
    least_image_norm: float = 0
    most_image_norm: float = 0
    least_text_norm: float = 0
    most_text_norm: float = 0

    @property
    def shape(self) -> str:
        return f"[{int(self.local)}, {int(self.dim)}] {str(DTYPES[int(self.dtype)]).removeprefix('torch.')}"


@torch.no_grad()
def agree(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    exchange: str,
    group: Group,
    text_gradient: bool,
) -> Facts:
    """Facts, the same on all ranks. Raises ValueError, on all ranks, where the call cannot work on one of them.

    images, texts: [b, d], this rank's. Warns of features that are not L2-normalised.
    """
    problem = call_problem(images, texts, scale, bias, exchange, group)
    mine = None if problem else _held(images, texts, scale, bias, exchange, text_gradient)
    every = _tell_all(problem, mine, images.device, group)
    _refuse_differences("local batches differ", "the same [local batch, dim] and dtype", [held.shape for held in every])
    _refuse_differences("exchange differs", "the same", [EXCHANGES[int(held.exchange)] for held in every])
    _refuse_non_finite(every)
    _refuse_differences("logit_scale differs", "the same", [f"{held.scale:.9g}" for held in every])
    _refuse_differences(
        "logit_bias differs", "the same", [f"{held.bias:.9g}" if held.has_bias else "none" for held in every]
    )
    least = min(min(held.least_image_norm, held.least_text_norm) for held in every)
    image_norm = max(held.most_image_norm for held in every)
    text_norm = max(held.most_text_norm for held in every)
    if max(1 - least, image_norm - 1, text_norm - 1) > NORM_TOLERANCE[images.dtype] and rank(group) == 0:
        warnings.warn(
            f"features are not L2-normalised: norms from {least:.3g} to {max(image_norm, text_norm):.3g}, expected 1 "
            "(torch.nn.functional.normalize(features, dim=-1))",
            stacklevel=4,
        )
    return Facts(any(held.text_gradient for held in every), abs(every[0].scale) * image_norm * text_norm)


def _held(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    exchange: str,
    text_gradient: bool,
) -> torch.Tensor:
    """A _Held as a float64 tensor on the features' device. A norm is NaN or infinite where a feature is."""
    known = [0, *images.shape, DTYPES.index(images.dtype), EXCHANGES.index(exchange), text_gradient, bias is not None]
    wide = torch.promote_types(images.dtype, torch.float32)
    norms = [end for f in (images, texts) for end in torch.linalg.vector_norm(f, dim=1, dtype=wide).aminmax()]
    values = [scale, torch.zeros_like(scale) if bias is None else bias, *norms]
    values = [value.reshape(()).to(images.device, torch.float64) for value in values]
    return torch.cat([torch.tensor(known, dtype=torch.float64, device=images.device), torch.stack(values)])


def _tell_all(problem: str | None, mine: torch.Tensor | None, device: torch.device, group: Group) -> list[_Held]:
    """Return every rank's values; raises ValueError with the problems of those that have one."""
    if ranks(group) == 1:
        if mine is None:
            raise ValueError(problem)
        return [_Held(*mine.tolist())]
    backend = dist.get_backend(group)
    if "nccl" in backend:
        device = torch.device("cuda", torch.cuda.current_device())
    elif "gloo" in backend:
        device = torch.device("cpu")
    empty = torch.tensor(_Held(problem=1), dtype=torch.float64)
    message = (empty if mine is None else mine).to(device)[None]
    received = message.new_empty((ranks(group), len(_Held._fields)))
    with waiting():
        all_gather_single(received, message, group=group)
        every = [_Held(*row) for row in received.tolist()]  # on a GPU the host waits here
    if any(held.problem for held in every):
        problems: list[str | None] = [None] * ranks(group)
        dist.all_gather_object(problems, problem, group=group)
        raise ValueError("; ".join(f"rank {i}: {text}" for i, text in enumerate(problems) if text))
    return every


def _refuse_non_finite(every: list[_Held]) -> None:
    fields = {
        "image_features": ("least_image_norm", "most_image_norm"),
        "text_features": ("least_text_norm", "most_text_norm"),
        "logit_scale": ("scale",),
        "logit_bias": ("bias",),
    }
    for name, values in fields.items():
        wrong = [i for i, held in enumerate(every) if not all(math.isfinite(getattr(held, v)) for v in values)]
        if wrong:
            on = f" on rank {', '.join(map(str, wrong))}" if len(every) > 1 else ""
            raise NonFiniteError(f"{name} holds NaN or infinite values{on}")


def _refuse_differences(what: str, expected: str, values: list[str]) -> None:
    if len(set(values)) > 1:
        who = {value: ", ".join(str(i) for i, other in enumerate(values) if other == value) for value in values}
        got = "; ".join(f"{value} on rank {those}" for value, those in who.items())
        raise ValueError(f"{what} between ranks: expected {expected} on all, got {got}")
