"""One tile of the similarity matrix at a time: its three kinds of matrix product, and what the losses make of it.

A tile of [m, n] logits is made, turned in place into the gradient with respect to the logits, and multiplied into
the gradients of its images and texts; nothing of it is kept. Everything but the products costs some memory-bound
passes over a tile that stays in the cache: at d = 512 about a twentieth of the products' time.

Features in half precision: products accumulate in fp32, logits are fp32. Features in fp32 at a temperature where the
rounding of the logits would show in the gradient: logits are fp64 (see `logits_dtype`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from repro.loss.kernels import FLOAT16_FACTOR

SAFE_LOGIT = 32.0
"""Up to this size a logit's rounding in fp32 changes its probability by less than 1e-6."""


@dataclass(frozen=True)
class Tile:
    """Rows of this rank's images and columns of one block of texts."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def offset(self, first: int | None) -> int | None:
        """Positives of this tile lie where column == row + offset; None where the block holds no positives.

        first: the block's column that is the positive of this rank's row 0, or None.
        """
        return None if first is None else first + self.rows.start - self.columns.start


def tiles(rows: int, columns: int, size: tuple[int, int]) -> Iterator[Tile]:
    for top in range(0, rows, size[0]):
        for left in range(0, columns, size[1]):
            yield Tile(slice(top, min(top + size[0], rows)), slice(left, min(left + size[1], columns)))


def tile_size(device: torch.device, fused: bool) -> tuple[int, int]:
    """CPU: a tile and its scratch space stay in the cache. GPU: few products, of which each fills the card."""
    if device.type == "cpu":
        return 512, 1024
    return (16_384, 16_384) if fused else (4096, 4096)


def logits_dtype(features: torch.dtype, largest_logit: float | None) -> torch.dtype:
    """In what a tile's logits are held. largest_logit: a bound on |t·x·y|, where it is known."""
    if features == torch.float64 or (features == torch.float32 and (largest_logit or 0) > SAFE_LOGIT):
        return torch.float64
    return torch.float32


def gradient_dtype(features: torch.dtype) -> torch.dtype:
    """In what gradients are summed over tiles and travel between ranks."""
    return torch.float64 if features == torch.float64 else torch.float32


def buffers(count: int, features: torch.Tensor, size: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """[count, entries] for tiles of this size, or of the whole [b, b] where that is smaller."""
    rows, columns = (min(side, len(features)) for side in size)
    return features.new_empty((count, rows * columns), dtype=dtype)


def zeros(room: torch.Tensor | None, shape: torch.Size, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of this shape on the device of `like`; in `room` where there is one."""
    return like.new_zeros(shape, dtype=dtype) if room is None else room.zero_()


def view(buffer: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The start of a flat buffer as a contiguous [m, n]."""
    return buffer[: shape[0] * shape[1]].view(shape)


def similarities(images: torch.Tensor, texts: torch.Tensor, out: torch.Tensor, offset: int | None) -> torch.Tensor:
    """images [m, d] · texts [n, d]ᵀ, accumulated and kept in out's dtype: out, or a new tensor in its place.

    Positives, where column == row + offset, are summed in fp64: theirs are the largest logits, so the rounding of
    their sums would be most of the gradient's error.
    """
    products = _products(images, texts, out)
    positives = diagonal(products, offset)
    if len(positives):
        left, right = images[max(0, -offset) :][: len(positives)], texts[max(0, offset) :][: len(positives)]
        positives.copy_((left.to(out.dtype) * right.to(out.dtype)).sum(dim=1, dtype=torch.float64))
    return products


def _products(images: torch.Tensor, texts: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    if _by_onednn(images) and out.dtype == torch.float32:
        return _onednn(images, texts)
    if images.dtype == out.dtype:
        return torch.mm(images, texts.T, out=out)
    if images.device.type == "cuda" and images.dtype != torch.float32:
        return out.copy_(torch.mm(images, texts.T, out_dtype=torch.float32))
    with _half_products(images.dtype):
        return torch.mm(images.to(out.dtype), texts.to(out.dtype).T, out=out)


def tile_logits(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    room: torch.Tensor,
    logits: torch.Tensor,
    offset: int | None,
) -> torch.Tensor:
    """logits ← t·x·yᵀ + b; returns x·yᵀ, in `room` or a new tensor. [m, n] all."""
    similarity = similarities(images, texts, room, offset)
    torch.mul(similarity, scale.to(logits.dtype), out=logits)
    if bias is not None:
        logits.add_(bias.to(logits.dtype))
    return similarity


def add_product(gradient: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """gradient [m, d] += left [m, n] · right [n, d]; gradient in fp32 or fp64, left a tile, right features.

    A tile in fp16 holds kernels.FLOAT16_FACTOR times its values, the kernels' way to keep the tiny ones.
    """
    if right.device.type == "cuda" and right.dtype != gradient.dtype:
        if left.dtype == torch.float32 and right.dtype == torch.float16:
            left = left * FLOAT16_FACTOR
        factor = 1 / FLOAT16_FACTOR if right.dtype == torch.float16 else 1.0
        torch.addmm(gradient, left.to(right.dtype), right, alpha=factor, out_dtype=gradient.dtype, out=gradient)
    elif left.dtype == torch.float16:
        gradient.addmm_(left.to(gradient.dtype), right.to(gradient.dtype), alpha=1 / FLOAT16_FACTOR)
    elif _by_onednn(right) and left.dtype == gradient.dtype:
        gradient.add_(_onednn(left, right.T))
    elif right.dtype == torch.bfloat16:
        gradient.add_(left.to(torch.bfloat16) @ right)
    else:
        gradient.addmm_(left.to(gradient.dtype), right.to(gradient.dtype))


def _by_onednn(features: torch.Tensor) -> bool:
    """On CPUs with AVX-512 oneDNN multiplies fp32 matrices as fast as torch.mm's MKL, and on AMD's twice as fast."""
    return (
        features.dtype == torch.float32
        and features.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def _onednn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left [m, k] · right [n, k]ᵀ, with any strides."""
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


class _half_products:
    """fp32 matrices that hold bf16 values are multiplied by the CPU's bf16 units: exact products, fp32 sums."""

    def __init__(self, dtype: torch.dtype):
        settings = torch.backends.mkldnn
        self.settings = getattr(settings, "matmul", None) if dtype == torch.bfloat16 else None

    def __enter__(self) -> None:
        if self.settings is not None:
            self.before = self.settings.fp32_precision
            self.settings.fp32_precision = "bf16"

    def __exit__(self, *_: object) -> None:
        if self.settings is not None:
            self.settings.fp32_precision = self.before


def diagonal(tile: torch.Tensor, offset: int | None) -> torch.Tensor:
    """The positives' entries of a tile, as a view; empty where it has none."""
    if offset is None or not -tile.shape[0] < offset < tile.shape[1]:
        return tile.new_empty(0)
    return tile.diagonal(offset)


def total(tile: torch.Tensor) -> torch.Tensor:
    """Σ of a tile as 0-dim float64: rows in the tile's dtype, their sums in fp64."""
    return tile.sum(dim=1).sum(dtype=torch.float64)


def sigmoid_tile(
    similarity: torch.Tensor, logits: torch.Tensor, offset: int | None, scratch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Summed loss of one tile, Σ dL/dlogits and Σ dL/dlogits∘x·yᵀ, 0-dim float64, not yet divided by the batch.

    similarity, logits: contiguous [m, n] of x·yᵀ and t·x·yᵀ + b, overwritten: logits with dL/dlogits = σ(l) −
    [positive], similarity with what is of no use. scratch: the same size. (SigLIP, section 3.2)
    """
    positives = diagonal(logits, offset)
    positives.neg_()  # so that each entry's loss is softplus, with no difference of large numbers
    loss = softplus_sum(logits, scratch)
    logits.sigmoid_()
    positives.neg_()
    return loss, total(logits), total(similarity.mul_(logits))


def softplus_sum(logits: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """Σ log(1 + exp l) = Σ max(l, 0) + Σ log(1 + exp −|l|), float64, to the rounding of the logits' dtype.

    log1p is the one slow function here (20 times exp2), and the sum of logarithms is the logarithm of the product:
    e₁ ⊕ e₂ = e₁ + e₂ + e₁e₂ is (1 + e₁)(1 + e₂) − 1 without cancellation, and no e is more than 1, so 64 of them
    are folded into one before its logarithm is taken.
    """
    folded = torch.clamp_min(logits.view(-1), 0, out=scratch.view(-1))
    loss = total(scratch)
    torch.abs(logits.view(-1), out=folded).mul_(-math.log2(math.e)).exp2_()
    count = len(folded)
    for _ in range(6):
        half = count // 2
        left, right = folded[:half], folded[count - half : count]
        left.addcmul_(left, right).add_(right)
        count -= half  # an odd one in the middle waits for the next round
    return loss + folded[:count].log1p_().sum(dtype=torch.float64)
