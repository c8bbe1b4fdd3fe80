"""What can be wrong with a call of a loss, found on every rank before the first block travels.

A rank that fails alone leaves the others waiting. So every rank tells all others what it holds, in one small message;
then all go on, or all raise the same error.
"""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.distributed as dist

from repro.loss.exchange import EXCHANGES, Group, rank, ranks

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
NORM_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 5e-3}


class NonFiniteError(ValueError):
    """Features, logit_scale or logit_bias hold NaN or infinite values."""


@dataclass(frozen=True)
class Facts:
    """What all ranks know of a call."""

    text_gradient: bool
    """Some rank wants it, so every rank makes its part."""
    largest_logit: float | None
    """No |t·x·y| of the global batch is larger; None where nobody looked."""


def call_problem(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, exchange: str, count: int
) -> str | None:
    """What is wrong with this rank's arguments by themselves."""
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
    for name, scalar in (("logit_scale", scale), ("logit_bias", bias)):
        if scalar is not None and scalar.numel() != 1:
            return f"{name} has shape {list(scalar.shape)}; expected one number"
        if scalar is not None and scalar.device != images.device and scalar.device.type != "cpu":
            return f"{name} is on {scalar.device} and the features on {images.device}; expected the same"
    return None


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
    problem = call_problem(images, texts, scale, bias, exchange, ranks(group))
    facts = None if problem else _facts(images, texts, scale, bias, text_gradient)
    every = _tell_all(problem, facts, images.device, group)  # [ranks, 10]
    shapes = [f"[{int(row[0])}, {int(row[1])}] {_name(row[2])}" for row in every]
    if len(set(shapes)) > 1:
        raise ValueError(
            "local batches differ between ranks; expected the same [local batch, dim] and dtype on each, got "
            + "; ".join(f"{shape} on {_those(i, shapes)}" for i, shape in enumerate(shapes) if shape not in shapes[:i])
        )
    _check_finite(every)
    for column, name in ((4, "logit_scale"), (5, "logit_bias")):
        values = ["none" if math.isnan(row[column]) else f"{row[column]:.9g}" for row in every]
        if len(set(values)) > 1:
            raise ValueError(f"{name} differs between ranks: {', '.join(values)}; expected one value on all")
    smallest, largest = min(min(row[6], row[8]) for row in every), max(max(row[7], row[9]) for row in every)
    if max(1 - smallest, largest - 1) > NORM_TOLERANCE[images.dtype] and rank(group) == 0:
        warnings.warn(
            f"features are not L2-normalised: norms from {smallest:.3g} to {largest:.3g}, expected 1 "
            "(torch.nn.functional.normalize(features, dim=-1))",
            stacklevel=4,
        )
    image_norm, text_norm = max(row[7] for row in every), max(row[9] for row in every)
    return Facts(any(row[3] for row in every), abs(every[0][4]) * image_norm * text_norm)


def _facts(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, text_gradient: bool
) -> torch.Tensor:
    """[10]: b, d, dtype, text gradient, t, b, least and largest norm of images, and of texts; float64, on their device.

    A norm is NaN or infinite where a feature is.
    """
    known = [*images.shape, DTYPES.index(images.dtype), float(text_gradient)]
    scalars = [scale, scale.new_tensor(math.nan) if bias is None else bias]
    norms = [end for f in (images, texts) for end in torch.linalg.vector_norm(f, dim=1, dtype=_wide(f)).aminmax()]
    values = [value.detach().reshape(()).to(images.device, torch.float64) for value in (*scalars, *norms)]
    return torch.cat([torch.tensor(known, dtype=torch.float64, device=images.device), torch.stack(values)])


def _wide(features: torch.Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _tell_all(problem: str | None, facts: torch.Tensor | None, device: torch.device, group: Group) -> list[list[float]]:
    """Every rank's facts, or ValueError with the problems of those that have one."""
    if ranks(group) == 1:
        if facts is None:
            raise ValueError(problem)
        return [facts.tolist()]
    if "nccl" in dist.get_backend(group):
        device = torch.device("cuda", torch.cuda.current_device())
    elif "gloo" in dist.get_backend(group):
        device = torch.device("cpu")
    message = torch.zeros((1, 11), dtype=torch.float64, device=device)
    if facts is None:
        message[0, 0] = 1
    else:
        message[0, 1:] = facts
    received = message.new_empty((ranks(group), 11))
    dist.all_gather_into_tensor(received, message, group=group)
    every = received.tolist()
    if any(row[0] for row in every):
        problems: list[str | None] = [None] * ranks(group)
        dist.all_gather_object(problems, problem, group=group)
        raise ValueError("; ".join(f"rank {i}: {text}" for i, text in enumerate(problems) if text))
    return [row[1:] for row in every]


def _check_finite(every: list[list[float]]) -> None:
    for name, columns in (("image_features", (6, 7)), ("text_features", (8, 9)), ("logit_scale", (4,))):
        wrong = [i for i, row in enumerate(every) if not all(math.isfinite(row[column]) for column in columns)]
        if wrong:
            on = f" on rank {', '.join(map(str, wrong))}" if len(every) > 1 else ""
            raise NonFiniteError(f"{name} holds NaN or infinite values{on}")


def _name(dtype: float) -> str:
    return str(DTYPES[int(dtype)]).removeprefix("torch.")


def _those(first: int, shapes: list[str]) -> str:
    same = [str(i) for i, shape in enumerate(shapes) if shape == shapes[first]]
    return f"rank{'s' if len(same) > 1 else ''} {', '.join(same)}"
