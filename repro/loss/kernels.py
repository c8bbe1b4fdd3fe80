"""One tile of the losses on a GPU: the product x·yᵀ, and in its epilogue, while the logits are still in registers,
the partial sums and ∂L/∂logits. The [m, n] logits themselves never reach memory.

A kernel's block gives each sum in float32, in a place of its own, and torch adds those in float64: no atomics, so the
same bits every time. Nor does autotuning choose the blocks, since a timing would then decide the order of additions:
they follow from dtype and device, and whoever tunes them times `blocks=` over CANDIDATES.
Images x [m, d], texts y [n, d], logits l = t·x·yᵀ + b; the pair (i, j) is a positive where j = i + offset.
"""

from __future__ import annotations  # so that the kernels' signatures can be read without Triton

from collections.abc import Callable
from typing import NamedTuple

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

# The offset varies from tile to tile: not worth a kernel compiled for its divisors.
kernel = triton.jit(do_not_specialize=["offset"]) if triton else lambda function: function


def available(device: torch.device) -> bool:
    """Whether these kernels can run there: Triton is installed, and the device is a GPU or Triton interprets."""
    if triton is None:
        return False
    interpreted = not isinstance(_products, triton.JITFunction)
    return interpreted or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0))


def serve(images: torch.Tensor, logits: torch.dtype) -> bool:
    """Whether tiles of these embeddings, with logits in this dtype, are for the kernels."""
    return logits == torch.float32 and available(images.device)


def space(images: torch.Tensor, tile: tuple[int, int]) -> torch.Tensor:
    """Room for the gradient of one tile, flat, in the embeddings' dtype, by which it is multiplied."""
    rows, columns = (min(side, len(images)) for side in tile)
    return images.new_empty(rows * columns)


FLOAT16_FACTOR = 2.0**14
"""A gradient in float16 is held times this: |∂l| is at most 2, and what is as small as 2⁻²⁸ keeps all its digits."""


class Blocks(NamedTuple):
    """How a product is cut: each program makes [rows, columns] logits, `depth` embedding dimensions at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int  # how many loads of [rows + columns, depth] are in flight, in shared memory


CANDIDATES = (
    Blocks(128, 256, 64, warps=8, stages=3),
    Blocks(128, 256, 64, warps=8, stages=4),
    Blocks(256, 128, 64, warps=8, stages=3),
    Blocks(128, 128, 64, warps=4, stages=3),
    Blocks(128, 128, 64, warps=8, stages=3),
    Blocks(64, 128, 32, warps=4, stages=3),
)


def default_blocks(images: torch.Tensor) -> Blocks:
    """The first candidate that fits the device's shared memory. The smallest for float32, which the tensor cores would
    cut to 10 bits (TF32) and which is therefore bound by arithmetic."""
    if not images.is_cuda:
        return Blocks(32, 32, 32, warps=4, stages=1)
    if images.dtype == torch.float32:
        return CANDIDATES[-1]
    limit_bytes = torch.cuda.get_device_properties(images.device).shared_memory_per_block_optin
    return next(b for b in CANDIDATES if 2 * (b.rows + b.columns) * b.depth * b.stages < limit_bytes)


def sigmoid_tile(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor | None,
    offset: int | None,
    gradient: torch.Tensor,
    blocks: Blocks | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ softplus(−z·l), Σ ∂l and Σ ∂l∘x·yᵀ of one tile, and ∂l itself: σ(l) − [positive], written into `gradient`.

    images [m, d], texts [n, d]: float32, bfloat16 or float16. logit_scale, logit_bias: one element, on the device.
    offset: None where the tile has no positives. gradient [m, n]: any float dtype, any row stride; in float16 it gets
    FLOAT16_FACTOR times ∂l.
    Returns 0-dim float64 tensors. Nothing is divided by the batch size. (SigLIP, section 3.2)
    """
    launch = _Launch(images, texts, blocks)
    logit_bias = torch.zeros_like(logit_scale) if logit_bias is None else logit_bias
    sums = images.new_empty(3, launch.programs, dtype=torch.float32)
    launch(_sigmoid_kernel, logit_scale, logit_bias, *launch.target(offset, gradient), sums)
    return sums.sum(dim=1, dtype=torch.float64).unbind()


def softmax_sums_tile(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    shift: torch.Tensor,
    blocks: Blocks | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σⱼ exp(lᵢⱼ − shift) [m] and Σᵢ exp(lᵢⱼ − shift) [n], float32; l = t·x·yᵀ.

    One exponential a pair, where the logits are known to lie less than 87 below `shift` (one element): normalised
    embeddings and t ≤ 40, with shift = t. Else softmax_lse_tile. Sums of tiles add up.
    """
    launch = _Launch(images, texts, blocks)
    rows, columns = launch.partial()
    launch(_softmax_sums_kernel, logit_scale, shift, rows, columns)
    return rows.sum(dim=0, dtype=torch.float64).float(), columns.sum(dim=0, dtype=torch.float64).float()


def softmax_lse_tile(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, blocks: Blocks | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """log Σⱼ exp lᵢⱼ [m] and log Σᵢ exp lᵢⱼ [n], float32; l = t·x·yᵀ, any t. Tiles combine by torch.logaddexp."""
    launch = _Launch(images, texts, blocks)
    rows, columns = launch.partial()
    launch(_softmax_lse_kernel, logit_scale, rows, columns)
    return rows.logsumexp(dim=0), columns.logsumexp(dim=0)


def softmax_gradient_tile(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    offset: int | None,
    gradient: torch.Tensor,
    blocks: Blocks | None = None,
) -> torch.Tensor:
    """gradient [m, n] ← exp(l − row_lse) + exp(l − column_lse) − 2·[positive]: 2B·∂L/∂l of the tile, any t.

    row_lse [m], column_lse [n]: float32, over the whole batch. The rest as sigmoid_tile. (SigLIP, section 3.1)
    Returns Σ gradient∘x·yᵀ, 0-dim float64.
    """
    launch = _Launch(images, texts, blocks)
    row_lse, column_lse = row_lse.contiguous(), column_lse.contiguous()
    sums = images.new_empty(launch.programs, dtype=torch.float32)
    launch(_softmax_gradient_kernel, logit_scale, row_lse, column_lse, *launch.target(offset, gradient), sums)
    return sums.sum(dtype=torch.float64)


class _Launch:
    """Arguments of every kernel: the embeddings, their sizes and strides, the blocks."""

    def __init__(self, images: torch.Tensor, texts: torch.Tensor, blocks: Blocks | None):
        if not images.is_cuda and images.dtype == torch.bfloat16:
            images, texts = images.float(), texts.float()  # Triton's interpreter would multiply the bits as integers
        self.images, self.texts = (x if x.stride(1) == 1 else x.contiguous() for x in (images, texts))
        self.blocks = blocks or default_blocks(images)
        self.m, self.n, self.d = len(images), *texts.shape
        self.row_blocks, self.column_blocks = -(-self.m // self.blocks.rows), -(-self.n // self.blocks.columns)
        self.programs = self.row_blocks * self.column_blocks

    def __call__(self, function: Callable, *arguments: torch.Tensor | int) -> None:
        with torch.cuda.device_of(self.images):
            function[(self.programs,)](
                *(self.images, self.texts, self.images.stride(0), self.texts.stride(0), self.m, self.n, self.d),
                *(*arguments, self.blocks.rows, self.blocks.columns, self.blocks.depth),
                num_warps=self.blocks.warps,
                num_stages=self.blocks.stages,
                enable_fp_fusion=False,  # both softmax kernels must round a logit alike, so that exp(l − lse) ≤ 1
            )

    def partial(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for one number a row and block of columns, and one a column and block of rows."""
        sizes = (self.column_blocks, self.m), (self.row_blocks, self.n)
        return tuple(self.images.new_empty(size, dtype=torch.float32) for size in sizes)

    def target(self, offset: int | None, gradient: torch.Tensor) -> tuple[int, torch.Tensor, int]:
        if gradient.shape != (self.m, self.n) or (self.n > 1 and gradient.stride(1) != 1):
            raise ValueError(
                f"gradient has shape {list(gradient.shape)} and strides {gradient.stride()}; "
                f"expected [{self.m}, {self.n}] with neighbouring columns side by side"
            )
        # From −m down and from n up there are no positives in the tile; so bounded, any offset fits 32 bits.
        offset = self.n if offset is None else min(max(offset, -self.m), self.n)
        return offset, gradient, gradient.stride(0)


@kernel
def _products(
    images, texts, image_stride, text_stride, m, n, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr
):
    """This program's block of x·yᵀ [ROWS, COLUMNS] in float32, its first row and its first column."""
    # Programs that run at the same time share 8 blocks of images, so that each block of texts is read once for 8.
    group_size = 8 * tl.cdiv(n, COLUMNS)
    group, place = tl.program_id(0) // group_size, tl.program_id(0) % group_size
    group_rows = tl.minimum(tl.cdiv(m, ROWS) - group * 8, 8)
    row, column = (group * 8 + place % group_rows) * ROWS, place // group_rows * COLUMNS

    # Past the edge the last row is read again, which needs no mask; what it gives is left out where it is used.
    depth = tl.arange(0, DEPTH)
    rows, columns = tl.minimum(row + tl.arange(0, ROWS), m - 1), tl.minimum(column + tl.arange(0, COLUMNS), n - 1)
    image = images + rows.to(tl.int64)[:, None] * image_stride + depth[None, :]
    text = texts + columns.to(tl.int64)[None, :] * text_stride + depth[:, None]
    products = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, d, DEPTH):
        x = tl.load(image, mask=depth[None, :] < d - start, other=0.0)
        y = tl.load(text, mask=depth[:, None] < d - start, other=0.0)
        products = tl.dot(x, y, products, input_precision="ieee")
        image, text = image + DEPTH, text + DEPTH
    return products, row, column


@kernel
def _halves(block, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] → left and right: an epilogue on all of a large block at once runs out of registers."""
    return tl.split(tl.permute(tl.reshape(block, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@kernel
def _exp(x, EXACT: tl.constexpr):
    """exp(x) for x up to 87. The hardware's rounds x·log₂e and so is off by |x|·2⁻²⁴; EXACT cuts x into n·ln 2 + r."""
    if EXACT:
        x = tl.where(x < -150.0, -150.0, x)  # below, 0; and NaN stays what it is
        n = tl.floor(x * 1.4426950216293335 + 0.5)
        return tl.exp2(n) * tl.exp((x - n * 0.693359375) + n * 2.12194440054691e-4)
    return tl.exp(x)


@kernel
def _softplus_and_sigmoid(x, EXACT: tl.constexpr):
    """log(1 + exp(x)) and 1/(1 + exp(−x)), with all their digits however small they are.

    log1p of e = exp(−|x|) in [0, 1] is e times a minimax polynomial of log(1 + e)/e, off by 2.1e-7 of itself at most:
    log(1 + e) would round a small e away, and costs more. σ as an exponential is shorter than a division.
    """
    e = _exp(-tl.abs(x), EXACT)
    p = tl.fma(e, 0.0052326930941379795, -0.02950523979961872)
    p = tl.fma(p, e, 0.07822595536708832)
    p = tl.fma(p, e, -0.13663245737552643)
    p = tl.fma(p, e, 0.19106006622314453)
    p = tl.fma(p, e, -0.2484298199415207)
    p = tl.fma(p, e, 0.3331909775733948)
    p = tl.fma(p, e, -0.4999949336051941)
    log1p = tl.fma(p, e, 0.9999999403953552) * e
    return tl.maximum(x, 0.0) + log1p, _exp(tl.minimum(x, 0.0) - log1p, EXACT)


@kernel
def _store(pointers, gradient, inside):
    dtype: tl.constexpr = pointers.dtype.element_ty
    if dtype == tl.float16:
        gradient = gradient * 16384.0  # FLOAT16_FACTOR
    tl.store(pointers, gradient.to(dtype), mask=inside)


@kernel
def _sigmoid_kernel(
    images, texts, image_stride, text_stride, m, n, d, logit_scale, logit_bias,
    offset, gradient, gradient_stride, sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    exact: tl.constexpr = images.dtype.element_ty == tl.float32
    products, row, column = _products(images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH)
    has_positives = (column - row - offset < ROWS) & (column - row - offset > -COLUMNS)
    plain = (row + ROWS <= m) & (column + COLUMNS <= n) & (has_positives == 0)
    t, b = tl.load(logit_scale).to(tl.float32), tl.load(logit_bias).to(tl.float32)
    left, right = _halves(products, ROWS, COLUMNS)
    quarters = _halves(left, ROWS, COLUMNS // 2) + _halves(right, ROWS, COLUMNS // 2)
    loss_sum, gradient_sum, scale_sum = 0.0, 0.0, 0.0
    for quarter in tl.static_range(4):
        rows, columns = row + tl.arange(0, ROWS), column + (quarter * COLUMNS // 4) + tl.arange(0, COLUMNS // 4)
        inside = (rows[:, None] < m) & (columns[None, :] < n)
        logits = tl.fma(quarters[quarter], t, b)
        if plain:  # as most blocks are: negatives only, and all inside the tile
            loss, signed = _softplus_and_sigmoid(logits, exact)
        else:
            # By −z·l a positive needs no softplus(l) − l or σ(l) − 1, which cancel. −∞: no loss, no gradient.
            positive = columns[None, :] == rows[:, None] + offset
            against = tl.where(inside, tl.where(positive, -logits, logits), float("-inf"))
            loss, signed = _softplus_and_sigmoid(against, exact)
            signed = tl.where(positive, -signed, signed)
        loss_sum += tl.sum(tl.sum(loss, axis=1), axis=0)
        gradient_sum += tl.sum(tl.sum(signed, axis=1), axis=0)
        scale_sum += tl.sum(tl.sum(signed * quarters[quarter], axis=1), axis=0)
        pointers = gradient + rows.to(tl.int64)[:, None] * gradient_stride + columns[None, :]
        _store(pointers, signed, inside)
    tl.store(sums + tl.program_id(0), loss_sum)
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), gradient_sum)
    tl.store(sums + 2 * tl.num_programs(0) + tl.program_id(0), scale_sum)


@kernel
def _softmax_sums_kernel(
    images, texts, image_stride, text_stride, m, n, d, logit_scale, shift, row_sums, column_sums,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    exact: tl.constexpr = images.dtype.element_ty == tl.float32
    products, row, column = _products(images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH)
    rows, columns = row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
    weights = _exp(products * tl.load(logit_scale).to(tl.float32) - tl.load(shift).to(tl.float32), exact)
    weights = tl.where((rows[:, None] < m) & (columns[None, :] < n), weights, 0.0)
    tl.store(row_sums + (column // COLUMNS).to(tl.int64) * m + rows, tl.sum(weights, axis=1), mask=rows < m)
    tl.store(column_sums + (row // ROWS).to(tl.int64) * n + columns, tl.sum(weights, axis=0), mask=columns < n)


@kernel
def _softmax_lse_kernel(
    images, texts, image_stride, text_stride, m, n, d, logit_scale, row_lse, column_lse,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    exact: tl.constexpr = images.dtype.element_ty == tl.float32
    products, row, column = _products(images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH)
    rows, columns = row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
    logits = products * tl.load(logit_scale).to(tl.float32)
    # Rows past the edge repeat the last one, so every row and column has a finite largest logit.
    by_row = tl.where(columns[None, :] < n, logits, float("-inf"))
    largest = tl.max(by_row, axis=1)
    lse = largest + tl.log(tl.sum(_exp(by_row - largest[:, None], exact), axis=1))
    tl.store(row_lse + (column // COLUMNS).to(tl.int64) * m + rows, lse, mask=rows < m)
    by_column = tl.where(rows[:, None] < m, logits, float("-inf"))
    largest = tl.max(by_column, axis=0)
    lse = largest + tl.log(tl.sum(_exp(by_column - largest[None, :], exact), axis=0))
    tl.store(column_lse + (row // ROWS).to(tl.int64) * n + columns, lse, mask=columns < n)


@kernel
def _softmax_gradient_kernel(
    images, texts, image_stride, text_stride, m, n, d, logit_scale, row_lse, column_lse,
    offset, gradient, gradient_stride, sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    exact: tl.constexpr = images.dtype.element_ty == tl.float32
    products, row, column = _products(images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH)
    halves = _halves(products, ROWS, COLUMNS)
    scale_sum = 0.0
    for half in tl.static_range(2):
        rows, columns = row + tl.arange(0, ROWS), column + (half * COLUMNS // 2) + tl.arange(0, COLUMNS // 2)
        of_row = tl.load(row_lse + rows, mask=rows < m, other=0.0)[:, None]
        of_column = tl.load(column_lse + columns, mask=columns < n, other=0.0)[None, :]
        logits = halves[half] * tl.load(logit_scale).to(tl.float32)
        weights = _exp(logits - of_row, exact) + _exp(logits - of_column, exact)
        signed = tl.where(columns[None, :] == rows[:, None] + offset, weights - 2.0, weights)
        inside = (rows[:, None] < m) & (columns[None, :] < n)
        scale_sum += tl.sum(tl.sum(tl.where(inside, signed * halves[half], 0.0), axis=1), axis=0)
        pointers = gradient + rows.to(tl.int64)[:, None] * gradient_stride + columns[None, :]
        _store(pointers, signed, inside)
    tl.store(sums + tl.program_id(0), scale_sum)
