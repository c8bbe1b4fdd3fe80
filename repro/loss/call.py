"""One call of a loss: its inputs made uniform and checked, and an autograd function that makes value and gradients
together, in the forward pass. The backward pass only scales what is there: no graph and no tile is kept between.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from repro.loss import kernels
from repro.loss.check import Facts, agree, call_problem
from repro.loss.exchange import Group
from repro.loss.tiles import logits_dtype, tile_size

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]
"""images [b, d], texts [b, d], t, b or None; the last two 0-dim."""


@dataclass(frozen=True)
class Plan:
    """How a call is carried out and what it has to make."""

    exchange: str
    group: Group
    tile: tuple[int, int]
    fused: bool
    """Tiles are made by the Triton kernels."""
    logits: torch.dtype
    largest_logit: float | None
    """A bound on |t·x·y| over the global batch, where it is known."""
    images: bool
    """The gradient of the images is wanted; likewise texts (on any rank), scale and bias."""
    texts: bool
    scale: bool
    bias: bool


@dataclass
class Made:
    """A loss, 0-dim float64, and its gradients in fp32 or fp64; those not wanted are None."""

    loss: torch.Tensor
    images: torch.Tensor | None = None
    texts: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None


TilePass = Callable[..., Made]
"""(plan, *inputs) → what the call makes. Communicates: all ranks make the pass or none."""


def prepare(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor | float,
    bias: torch.Tensor | float | None,
    exchange: str,
    group: Group,
    tile: tuple[int, int] | None,
    check: bool,
    may_fuse: bool = True,
) -> tuple[Plan, Inputs]:
    """Raises ValueError on all ranks where the arguments of one cannot work."""
    scale, bias = torch.as_tensor(scale), None if bias is None else torch.as_tensor(bias)
    text_gradient = torch.is_grad_enabled() and texts.requires_grad
    if check:
        facts = agree(images, texts, scale, bias, exchange, group, text_gradient)
    else:
        if problem := call_problem(images, texts, scale, bias, exchange, group):
            raise ValueError(problem)
        facts = Facts(text_gradient, largest_logit=None)
    device_type = images.device.type
    if torch.is_autocast_enabled(device_type) and images.dtype == torch.float32:  # as a matrix product would
        images, texts = (features.to(torch.get_autocast_dtype(device_type)) for features in (images, texts))
    scale = scale.to(images.device).reshape(())
    bias = None if bias is None else bias.to(images.device).reshape(())
    logits = logits_dtype(images.dtype, facts.largest_logit)
    fused = may_fuse and kernels.serve(images, logits)
    plan = Plan(
        exchange,
        group,
        tile or tile_size(images.device, fused),
        fused,
        logits,
        facts.largest_logit,
        images=torch.is_grad_enabled() and images.requires_grad,
        texts=facts.text_gradient,
        scale=torch.is_grad_enabled() and scale.requires_grad,
        bias=torch.is_grad_enabled() and bias is not None and bias.requires_grad,
    )
    return plan, (images, texts, scale, bias)


def differentiable(tile_pass: TilePass, plan: Plan, inputs: Inputs) -> torch.Tensor:
    """The loss as a 0-dim tensor in fp32 (fp64 for fp64 features) that hands out the gradients the pass made."""
    return _InForward.apply(tile_pass, plan, *inputs)


class _InForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tile_pass: TilePass, plan: Plan, *inputs: torch.Tensor | None) -> torch.Tensor:
        with torch.autocast(inputs[0].device.type, enabled=False):
            made = tile_pass(plan, *inputs)
        ctx.tile_pass, ctx.plan, ctx.made = tile_pass, plan, made
        ctx.save_for_backward(*inputs)
        return made.loss.to(torch.float64 if inputs[0].dtype == torch.float64 else torch.float32, copy=True)

    @staticmethod
    def backward(ctx, incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss makes its gradients without a graph and cannot be differentiated twice (create_graph=True); "
                "repro.loss.plain has the formulas that can, at O(b·B) memory"
            )
        made, ctx.made = ctx.made, None
        if made is None:  # a second time through a graph that was retained: what was handed out is no longer ours
            with torch.autocast(inputs[0].device.type, enabled=False):
                made = ctx.tile_pass(ctx.plan, *inputs)
        gradients = (made.images, made.texts, made.scale, made.bias)
        return None, None, *(_scaled(g, incoming, i) for g, i in zip(gradients, inputs, strict=True))


def _scaled(gradient: torch.Tensor | None, incoming: torch.Tensor, of: torch.Tensor | None) -> torch.Tensor | None:
    if gradient is None or of is None:
        return None
    return gradient.mul_(incoming).to(of.dtype)
