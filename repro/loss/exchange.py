"""How ranks see each other's embeddings: an all-gather whose backward sums every rank's gradient of what it saw."""

import torch
import torch.distributed as dist


def ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if ranks() > 1 else 0


def gather(features: torch.Tensor) -> torch.Tensor:
    """[b, d] on each rank → [B, d], the ranks' blocks in order. Gradients flow back to the rank they came from."""
    return _Gather.apply(features) if ranks() > 1 else features


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: torch.Tensor) -> torch.Tensor:
        blocks = [torch.empty_like(features) for _ in range(ranks())]
        dist.all_gather(blocks, features.contiguous())
        return torch.cat(blocks)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)  # gloo has no reduce_scatter
        return gradient.chunk(ranks())[rank()]
