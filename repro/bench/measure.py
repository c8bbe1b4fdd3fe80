"""Measurements in one process: seconds, memory and gradient error of a loss, and the rate of matrix products.

Functions that start with `rank` run in fresh processes, one a rank (ranks.py).
"""

import contextlib
import ctypes
import gc
import itertools
import math
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from repro.bench.implementations import DTYPES, LOGIT_BIAS, LOGIT_SCALE, Implementation, Setting, embeddings
from repro.loss.registry import LOSSES

WARM_UPS = {"cpu": 1, "cuda": 3}
WARM_UP_BATCH = 64
LARGEST_PRODUCT = 8192
"""Rows and columns of the local matrix product at most: larger ones are no faster."""
ROOM = 1.5
"""Memory that a process may reserve, relative to what it may use."""
TILE_ELEMENTS = 2**22
"""Elements of the similarity matrix that the float64 reference makes at a time."""


def forward_and_backward(implementation: Implementation, setting: Setting, rank: int) -> Callable[[], dict]:
    """One call takes the loss and its gradients, which it returns by name."""
    leaves = dict(zip(("images", "texts"), embeddings(setting, rank), strict=True))
    dtype = torch.float64 if setting.dtype == "fp64" else torch.float32  # t and b as trainers hold them
    scalars = {"logit_scale": LOGIT_SCALE} | ({"logit_bias": LOGIT_BIAS} if LOSSES[setting.loss].has_bias else {})
    leaves |= {name: torch.tensor(value, dtype=dtype, device=setting.device) for name, value in scalars.items()}
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
    """Time each repeat, after calls to warm up. All ranks start together; the caller takes the slowest."""
    call = forward_and_backward(implementation, setting, rank)
    for _ in range(WARM_UPS[setting.device]):
        call()
    return [timed(call, setting) for _ in range(repeats)]


def timed(call: Callable[[], object], setting: Setting) -> float:
    if setting.ranks > 1:
        dist.barrier()
    synchronize(setting.device)
    started = time.perf_counter()
    call()
    synchronize(setting.device)
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def median_seconds(
    work: Callable[[int], object], device: torch.device, limit_seconds: float, repeats: int = 20, warm_ups: int = 3
) -> float:
    """Median time of a call, after calls to warm up; fewer repeats, but one at least, where they exceed the limit.

    work: gets the number of the call, to take another of its inputs each time: one that stays in the cache is faster.
    Measured by events in a GPU's stream, by the clock on a CPU.
    """
    for number in range(warm_ups):
        work(number)
    (first,) = seconds_each(work, device, range(warm_ups, warm_ups + 1))
    count = max(1, min(repeats, int(limit_seconds / max(first, 1e-9))))
    if count == 1:
        return first
    return statistics.median(seconds_each(work, device, range(warm_ups + 1, warm_ups + 1 + count)))


def seconds_each(work: Callable[[int], object], device: torch.device, numbers: range) -> list[float]:
    """Time the calls with these numbers, with what each leaves a GPU to do."""
    if device.type != "cuda":
        stamps = [time.perf_counter()]
        for number in numbers:
            work(number)
            stamps.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(stamps)]
    # One call is queued behind the other, so that the host's time between them is hidden where it can be.
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(numbers) + 1)]
    torch.cuda.synchronize(device)
    marks[0].record()
    for number, mark in zip(numbers, marks[1:], strict=True):
        work(number)
        mark.record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) / 1e3 for before, after in itertools.pairwise(marks)]


def peak_memory(rank: int, implementation: Implementation, setting: Setting, most_bytes: int | None = None) -> int:
    """Bytes at the peak of the process's first forward and backward of this size, over what it held with its inputs.

    A call with a tiny batch goes before, so that libraries and the group have made what they make once. What the
    matrix library keeps for its first large product (some 10 MiB on a CPU) is counted, for all implementations alike.
    most_bytes: beyond the inputs; at more an error says that memory is out.
    """
    forward_and_backward(implementation, replace(setting, local_batch=WARM_UP_BATCH), rank)()
    call = forward_and_backward(implementation, setting, rank)
    synchronize(setting.device)
    limit_memory(setting.device, most_bytes)
    return peak_growth_bytes(call, setting.device)


def limit_memory(device: str, most_bytes: int | None) -> None:
    """Have this process fail where it takes so much more than it has, before the machine is out of memory.

    On CPUs not all that is reserved is used: there is some room beyond the limit, and what was held decides.
    """
    if most_bytes is None:
        return
    if device == "cuda":
        torch.cuda.empty_cache()
        share = (torch.cuda.memory_allocated() + most_bytes) / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    else:
        most = psutil.Process().memory_info().data + int(ROOM * most_bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def peak_growth_bytes(work: Callable[[], object], device: str) -> int:
    """The most memory held during `work()`, less what was held right before it; of a GPU as torch's allocator says.

    On CPUs the growth of the resident set. What earlier work freed must not hide growth, so malloc gives its free pages
    back to the system first, and the kernel's own peak is reset. Where it lets no process do that, the growth is too
    little when the process held more before than at the start of `work`.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with contextlib.suppress(OSError, AttributeError):  # C libraries other than glibc have no such call
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    work()
    peak_kib = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    return max(0, peak_kib * 1024 - before)


def matmul_rate(rank: int, setting: Setting, square: int = 0) -> dict[str, float]:
    """Operations a second of one rank's matrix products while all ranks multiply: [b, d]·[d, b], and square ones."""
    local = min(setting.local_batch, LARGEST_PRODUCT)
    shapes = {"local": (local, setting.dim, local)} | ({"square": (square, square, square)} if square else {})
    options, found = {"dtype": DTYPES[setting.dtype], "device": setting.device}, {}
    for name, (rows, inner, columns) in shapes.items():
        left, right = torch.randn(rows, inner, **options), torch.randn(columns, inner, **options)
        out = torch.empty(rows, columns, **options)
        fastest = min(timed(lambda a=left, b=right, out=out: torch.mm(a, b.T, out=out), setting) for _ in range(4))
        found[name] = 2 * rows * inner * columns / fastest
    return found


def write_reference(rank: int, setting: Setting, file: Path) -> None:
    """The float64 gradients of the whole batch; one process makes all ranks' inputs."""
    blocks = [embeddings(setting, owner) for owner in range(setting.ranks)]
    images, texts = (torch.cat(part) for part in zip(*blocks, strict=True))
    found = reference_gradients(setting.loss, images, texts, LOGIT_SCALE, LOGIT_BIAS)
    torch.save({name: gradient.cpu() for name, gradient in found.items()}, file)


def squared_errors(
    rank: int, implementation: Implementation, setting: Setting, file: Path
) -> dict[str, tuple[float, float]]:
    """error_parts of this rank's rows of each gradient."""
    ranks = setting.ranks
    rows = slice(rank * setting.local_batch, (rank + 1) * setting.local_batch)
    expected = torch.load(file, mmap=True, weights_only=True)
    # Each rank's loss is (1/b)·its rows, not (1/B).
    exact = {name: value[rows] * ranks if value.ndim else value for name, value in expected.items()}
    powers = (implementation.scale_power, implementation.feature_power)
    found = forward_and_backward(implementation, setting, rank)()
    return error_parts({name: g.double() * float(ranks) ** powers[g.ndim > 0] for name, g in found.items()}, exact)


def error_parts(found: Mapping[str, torch.Tensor], exact: Mapping[str, torch.Tensor]) -> dict[str, tuple[float, float]]:
    """(‖g − g64‖², ‖g64‖²) of each gradient; for t and b (g, g64), which are to be averaged over ranks."""
    parts = {}
    for name, gradient in found.items():
        theirs = exact[name]
        mine = gradient.double().to(theirs.device)
        errors = ((mine - theirs).square().sum(), theirs.square().sum()) if gradient.ndim else (mine, theirs)
        parts[name] = (errors[0].item(), errors[1].item())
    return parts


def relative_errors(ranks: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """‖g − g64‖ ÷ ‖g64‖ over all ranks' parts; for t and b the error of the mean over ranks."""
    found = {}
    for name in ranks[0]:
        first, second = (sum(part[name][i] for part in ranks) for i in range(2))
        features = name in ("images", "texts")
        found[f"error_{name}"] = math.sqrt(first / second) if features else abs(first / second - 1)
    return found


def reference_gradients(
    loss: str, images: torch.Tensor, texts: torch.Tensor, logit_scale: float, logit_bias: float
) -> dict[str, torch.Tensor]:
    """∂L/∂(images, texts, logit_scale, logit_bias) of the mean over the whole batch [B, d], in float64.

    Written straight from the formulas (docs/loss.md), a few rows of the similarity matrix at a time, with none
    of the tricks of what is held against it. Softmax has no bias.
    """
    if loss not in ("sigmoid", "softmax"):
        return plain_gradients(loss, images, texts, logit_scale, logit_bias)
    x, y = images.double(), texts.double()
    size = len(x)
    rows = max(1, TILE_ELEMENTS // size)
    tiles = [slice(first, first + rows) for first in range(0, size, rows)]
    if loss == "softmax":  # half of each row's softmax and half of each column's, from their log-sum-exps
        of_rows, of_columns = x.new_empty(size), x.new_full((size,), -torch.inf)
        for tile in tiles:
            logits = logit_scale * x[tile] @ y.T
            of_rows[tile] = logits.logsumexp(1)
            of_columns = torch.logaddexp(of_columns, logits.logsumexp(0))
    found = {"images": torch.empty_like(x), "texts": torch.zeros_like(y)}
    found |= {"logit_scale": x.new_zeros(()), "logit_bias": x.new_zeros(())}
    for tile in tiles:
        similarity = x[tile] @ y.T  # [rows, B]
        logits = logit_scale * similarity
        if loss == "sigmoid":
            residual = torch.sigmoid(logits + logit_bias)
        else:
            residual = ((logits - of_rows[tile, None]).exp() + (logits - of_columns).exp()) / 2
        residual.diagonal(offset=tile.start).sub_(1)
        residual /= size
        found["images"][tile] = logit_scale * residual @ y
        found["texts"] += logit_scale * residual.T @ x[tile]
        found["logit_scale"] += (residual * similarity).sum()
        found["logit_bias"] += residual.sum()
    if loss == "softmax":
        del found["logit_bias"]
    return found


def plain_gradients(
    loss: str, images: torch.Tensor, texts: torch.Tensor, logit_scale: float, logit_bias: float
) -> dict[str, torch.Tensor]:
    """Gradients of any loss, by autograd through its plain formula in float64, with the whole similarity matrix."""
    inputs = {"images": images, "texts": texts, "logit_scale": logit_scale}
    inputs |= {"logit_bias": logit_bias} if LOSSES[loss].has_bias else {}
    leaves = {name: torch.as_tensor(value, dtype=torch.float64).clone() for name, value in inputs.items()}
    for leaf in leaves.values():
        leaf.requires_grad_()
    LOSSES[loss].make_plain()(*leaves.values()).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}
