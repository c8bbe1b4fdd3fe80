"""What one rank does in one measurement of a loss: seconds, memory, gradient error, or the machine's matrix products.

Each function runs in fresh processes, one a rank (see ranks.py), and starts with `rank`.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from repro.bench import reference, resident
from repro.bench.implementations import Implementation
from repro.bench.ranks import watch_from_here
from repro.bench.setting import DTYPES, LOGIT_BIAS, LOGIT_SCALE, Setting, embeddings, scalars
from repro.loss.registry import LOSSES

WARM_UPS = {"cpu": 1, "cuda": 3}
WARM_UP_BATCH = 64
LARGEST_PRODUCT = 8192
"""Rows and columns of the local matrix product at most: larger ones are no faster."""


def forward_and_backward(implementation: Implementation, setting: Setting, rank: int) -> Callable[[], dict]:
    """One call takes the loss and its gradients, which it returns by name."""
    leaves = dict(zip(("images", "texts"), embeddings(setting, rank), strict=True))
    leaves |= zip(("logit_scale", "logit_bias"), scalars(setting), strict=True)
    if not LOSSES[setting.loss].has_bias:
        del leaves["logit_bias"]
    for leaf in leaves.values():
        leaf.requires_grad_()
    loss = implementation.make(rank, setting.ranks)

    def call() -> dict[str, torch.Tensor]:
        for leaf in leaves.values():
            leaf.grad = None
        loss(*leaves.values()).backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    return call


def seconds(rank: int, implementation: Implementation, setting: Setting, repeats: int) -> list[float]:
    """Of each repeat, after calls to warm up. All ranks start together; the caller takes the slowest."""
    call = forward_and_backward(implementation, setting, rank)
    for _ in range(WARM_UPS[setting.device]):
        call()
    return [timed(call, setting) for _ in range(repeats)]


def timed(call: Callable[[], object], setting: Setting) -> float:
    if setting.ranks > 1:
        dist.barrier()
    _synchronize(setting.device)
    started = time.perf_counter()
    call()
    _synchronize(setting.device)
    return time.perf_counter() - started


def peak_memory(rank: int, implementation: Implementation, setting: Setting, most_bytes: int | None = None) -> int:
    """Bytes at the peak of the process's first forward and backward of this size, over what it held with its inputs.

    A call with a tiny batch goes before, so that libraries and the group have made what they make once. What the
    matrix library keeps for its first large product (some 10 MiB on a CPU) is counted, for all implementations alike.
    most_bytes: of the card, beyond the inputs; torch then raises OutOfMemoryError at more.
    """
    forward_and_backward(implementation, replace(setting, local_batch=WARM_UP_BATCH), rank)()
    call = forward_and_backward(implementation, setting, rank)
    _synchronize(setting.device)
    if setting.device == "cuda" and most_bytes is not None:
        limit_card(torch.cuda.memory_allocated() + most_bytes)
    watch_from_here()
    return resident.peak_growth_bytes(call, setting.device)


def limit_card(total_bytes: int) -> None:
    torch.cuda.empty_cache()
    share = total_bytes / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, share))


def write_reference(rank: int, setting: Setting, file: Path) -> None:
    """The float64 gradients of the whole batch; one process makes all ranks' inputs."""
    blocks = [embeddings(setting, owner) for owner in range(setting.ranks)]
    images, texts = (torch.cat(part) for part in zip(*blocks, strict=True))
    found = reference.gradients(setting.loss, images, texts, LOGIT_SCALE, LOGIT_BIAS)
    torch.save({name: gradient.cpu() for name, gradient in found.items()}, file)


def squared_errors(
    rank: int, implementation: Implementation, setting: Setting, file: Path
) -> dict[str, tuple[float, float]]:
    """(‖g − g64‖², ‖g64‖²) of this rank's part of each gradient; for t and b (g, g64), which are to be averaged."""
    expected = torch.load(file, mmap=True, weights_only=True)
    rows = slice(rank * setting.local_batch, (rank + 1) * setting.local_batch)
    found = {}
    for name, gradient in forward_and_backward(implementation, setting, rank)().items():
        gradient = gradient.double().cpu()
        if gradient.ndim:
            exact = expected[name][rows] * setting.ranks  # each rank's loss is (1/b)·its rows, not (1/B)
            gradient *= implementation.feature_factor(setting.ranks)
            found[name] = ((gradient - exact).square().sum().item(), exact.square().sum().item())
        else:
            gradient *= implementation.scale_factor(setting.ranks)
            found[name] = (gradient.item(), expected[name].item())
    return found


def matmul_rate(rank: int, setting: Setting, square: int = 0) -> dict[str, float]:
    """Operations a second of one rank's matrix products while all ranks multiply: [b, d]·[d, b], and square ones."""
    local = min(setting.local_batch, LARGEST_PRODUCT)
    shapes = {"local": (local, setting.dim, local)}
    if square:
        shapes["square"] = (square, square, square)
    return {name: _best_rate(shape, setting) for name, shape in shapes.items()}


def _best_rate(shape: tuple[int, int, int], setting: Setting, repeats: int = 3) -> float:
    rows, inner, columns = shape
    options = {"dtype": DTYPES[setting.dtype], "device": setting.device}
    left, right = torch.randn(rows, inner, **options), torch.randn(columns, inner, **options)
    out = torch.empty(rows, columns, **options)
    fastest = min(timed(lambda: torch.mm(left, right.T, out=out), setting) for _ in range(repeats + 1))
    return 2 * rows * inner * columns / fastest


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
