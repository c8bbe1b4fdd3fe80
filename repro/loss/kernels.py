"""One tile of the losses on a GPU: the product x·yᵀ, and in its epilogue, while the logits are still in registers,
the partial sums and ∂L/∂logits. The [m, n] logits themselves never reach memory.

A kernel's block gives each sum in float32, in a place of its own, and torch adds those in float64: no atomics, so the
same bits every time. For the same reason the blocks follow from dtype and device by rule, not by stopwatch (autotuning
at run time would let a timing decide the order of additions): to tune, time `blocks=` over CANDIDATES.

Notation: images x [m, d], texts y [n, d], logits l = t·x·yᵀ + b; the pair (i, j) is a positive where j = i + offset.
"""

from __future__ import annotations  # so that the kernels' signatures can be read without Triton

from typing import NamedTuple

import torch

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

kernel = triton.jit if triton else lambda function: function


def available(device: torch.device) -> bool:
    """Whether these kernels can run there: Triton is installed, and the device is a GPU or Triton interprets."""
    if triton is None:
        return False
    if triton.knobs.runtime.interpret:
        return True
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


class Blocks(NamedTuple):
    """How a product is cut: each program makes [rows, columns] logits, `depth` embedding dimensions at a time."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int  # how many loads of [rows + columns, depth] are in flight

    def shared_bytes(self, images: torch.Tensor) -> int:
        return (self.rows + self.columns) * self.depth * self.stages * images.element_size()


CANDIDATES = (
    Blocks(128, 256, 64, warps=8, stages=4),
    Blocks(128, 256, 64, warps=8, stages=3),
    Blocks(128, 128, 64, warps=4, stages=4),
    Blocks(128, 128, 64, warps=8, stages=3),
    Blocks(128, 128, 32, warps=8, stages=3),
    Blocks(64, 128, 32, warps=4, stages=3),
    Blocks(64, 64, 32, warps=4, stages=3),
)


def default_blocks(images: torch.Tensor) -> Blocks:
    """The first candidate whose loads fit the device's shared memory; small ones for float32, which has no tensor
    cores here (TF32 would drop 13 bits) and needs the registers."""
    if not images.is_cuda:
        return Blocks(32, 32, 32, warps=4, stages=1)
    shared_bytes = torch.cuda.get_device_properties(images.device).shared_memory_per_block_optin
    candidates = CANDIDATES[4:] if images.dtype == torch.float32 else CANDIDATES
    return next(blocks for blocks in candidates if blocks.shared_bytes(images) < shared_bytes)


def sigmoid_tile(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    offset: int,
    gradient: torch.Tensor,
    blocks: Blocks | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ softplus(−z·l) and Σ ∂l of one tile, and ∂l itself: σ(l) − [positive], written into `gradient`.

    images [m, d], texts [n, d]: float32, bfloat16 or float16. logit_scale, logit_bias: one element, on the device.
    gradient [m, n]: any float dtype, any row stride (bfloat16 for 16-bit embeddings: float16 has no range for the
    tiny probabilities). Returns 0-dim float64 tensors. Nothing is divided by the batch size. (SigLIP, section 3.2)
    """
    launch = _Launch(images, texts, blocks)
    sums = images.new_empty(2, launch.programs, dtype=torch.float32)
    launch(_sigmoid_kernel, logit_scale, logit_bias, launch.inside(offset), *launch.rows_of(gradient), *sums)
    loss_sum, gradient_sum = sums.sum(dim=1, dtype=torch.float64)
    return loss_sum, gradient_sum


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
    row_sums = images.new_empty(launch.column_blocks, launch.m, dtype=torch.float32)
    column_sums = images.new_empty(launch.row_blocks, launch.n, dtype=torch.float32)
    launch(_softmax_sums_kernel, logit_scale, shift, row_sums, column_sums)
    return tuple(sums.sum(dim=0, dtype=torch.float64).float() for sums in (row_sums, column_sums))


def softmax_lse_tile(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, blocks: Blocks | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """log Σⱼ exp lᵢⱼ [m] and log Σᵢ exp lᵢⱼ [n], float32; l = t·x·yᵀ, any t. Tiles combine by torch.logaddexp."""
    launch = _Launch(images, texts, blocks)
    row_lse = images.new_empty(launch.column_blocks, launch.m, dtype=torch.float32)
    column_lse = images.new_empty(launch.row_blocks, launch.n, dtype=torch.float32)
    launch(_softmax_lse_kernel, logit_scale, row_lse, column_lse)
    return row_lse.logsumexp(dim=0), column_lse.logsumexp(dim=0)


def softmax_gradient_tile(
    images: torch.Tensor,
    texts: torch.Tensor,
    logit_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    offset: int,
    gradient: torch.Tensor,
    blocks: Blocks | None = None,
) -> None:
    """gradient [m, n] ← exp(l − row_lse) + exp(l − column_lse) − 2·[positive]: 2B·∂L/∂l of the tile, any t.

    row_lse [m], column_lse [n]: float32, over the whole batch. The rest as sigmoid_tile. (SigLIP, section 3.1)
    """
    launch = _Launch(images, texts, blocks)
    lse = (row_lse.contiguous(), column_lse.contiguous())
    launch(_softmax_gradient_kernel, logit_scale, *lse, launch.inside(offset), *launch.rows_of(gradient))


class _Launch:
    """What every kernel is called with: the embeddings, their sizes and strides, the blocks."""

    def __init__(self, images: torch.Tensor, texts: torch.Tensor, blocks: Blocks | None):
        if (
            not images.is_cuda and images.dtype == torch.bfloat16
        ):  # Triton's interpreter multiplies its bits as integers
            images, texts = images.float(), texts.float()
        self.images, self.texts = (x if x.stride(1) == 1 else x.contiguous() for x in (images, texts))
        self.blocks = blocks or default_blocks(images)
        self.m, self.n = len(images), len(texts)
        self.row_blocks = triton.cdiv(self.m, self.blocks.rows)
        self.column_blocks = triton.cdiv(self.n, self.blocks.columns)
        self.programs = self.row_blocks * self.column_blocks

    def __call__(self, function, *arguments) -> None:
        d, blocks = self.images.shape[1], self.blocks
        with torch.cuda.device_of(self.images):
            function[(self.programs,)](
                *(self.images, self.texts, self.images.stride(0), self.texts.stride(0), self.m, self.n, d),
                *arguments,
                ROWS=blocks.rows,
                COLUMNS=blocks.columns,
                DEPTH=blocks.depth,
                DEPTH_DIVIDES=d % blocks.depth == 0,
                num_warps=blocks.warps,
                num_stages=blocks.stages,
            )

    def inside(self, offset: int) -> int:
        """The same positives, in 32 bits: from −m down and from n up there are none in the tile."""
        return min(max(offset, -self.m), self.n)

    def rows_of(self, gradient: torch.Tensor) -> tuple[torch.Tensor, int]:
        if gradient.shape != (self.m, self.n) or (self.n > 1 and gradient.stride(1) != 1):
            raise ValueError(
                f"gradient has shape {list(gradient.shape)} and strides {gradient.stride()}; "
                f"expected [{self.m}, {self.n}] with neighbouring columns side by side"
            )
        return gradient, gradient.stride(0)


@kernel
def _products(
    images, texts, image_stride, text_stride, m, n, d,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DIVIDES: tl.constexpr,
):  # fmt: skip
    """This program's block of x·yᵀ [ROWS, COLUMNS] in float32, its rows and columns, and its place in the grid."""
    # Programs that run at the same time share 8 blocks of images, so that each block of texts is read once for 8.
    program, row_blocks, column_blocks = tl.program_id(0), tl.cdiv(m, ROWS), tl.cdiv(n, COLUMNS)
    group = program // (8 * column_blocks)
    group_rows = tl.minimum(row_blocks - group * 8, 8)
    row_block = group * 8 + program % (8 * column_blocks) % group_rows
    column_block = program % (8 * column_blocks) // group_rows
    rows = row_block * ROWS + tl.arange(0, ROWS)
    columns = column_block * COLUMNS + tl.arange(0, COLUMNS)

    # Past the edge the last row is read again, which needs no mask; what it gives is left out where it is used.
    depth = tl.arange(0, DEPTH)
    image = images + tl.minimum(rows, m - 1).to(tl.int64)[:, None] * image_stride + depth[None, :]
    text = texts + tl.minimum(columns, n - 1).to(tl.int64)[None, :] * text_stride + depth[:, None]
    products = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, d, DEPTH):
        if DEPTH_DIVIDES:
            x, y = tl.load(image), tl.load(text)
        else:
            x = tl.load(image, mask=depth[None, :] < d - start, other=0.0)
            y = tl.load(text, mask=depth[:, None] < d - start, other=0.0)
        products = tl.dot(x, y, products, input_precision="ieee")
        image += DEPTH
        text += DEPTH
    return products, rows, columns, row_block, column_block


@kernel
def _log1p(x):
    """log(1 + x) for x in [0, 1], relative error below 2.1e-7 down to the smallest x: a minimax polynomial of
    log(1 + x)/x. log(1 + x) itself would round x away; ten multiply-adds also cost less than a logarithm."""
    p = tl.fma(x, 0.0052326930941379795, -0.02950523979961872)
    p = tl.fma(p, x, 0.07822595536708832)
    p = tl.fma(p, x, -0.13663245737552643)
    p = tl.fma(p, x, 0.19106006622314453)
    p = tl.fma(p, x, -0.2484298199415207)
    p = tl.fma(p, x, 0.3331909775733948)
    p = tl.fma(p, x, -0.4999949336051941)
    p = tl.fma(p, x, 0.9999999403953552)
    return p * x


@kernel
def _sigmoid_kernel(
    images, texts, image_stride, text_stride, m, n, d,
    logit_scale, logit_bias, offset, gradient, gradient_stride, loss_sums, gradient_sums,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DIVIDES: tl.constexpr,
):  # fmt: skip
    products, rows, columns, row_block, column_block = _products(
        images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH, DEPTH_DIVIDES
    )
    positive = columns[None, :] == rows[:, None] + offset
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    # Most blocks hold negatives only and end inside the tile; only the others pay for the two masks.
    ahead = column_block * COLUMNS - row_block * ROWS - offset
    has_positives = (ahead < ROWS) & (ahead > -COLUMNS)
    at_edge = (row_block * ROWS + ROWS > m) | (column_block * COLUMNS + COLUMNS > n)

    # With a = −z·l the loss is softplus(a) and |∂l| is σ(a), for positives too: no softplus(l) − l, no 1 − σ(l).
    against = tl.fma(products, tl.load(logit_scale).to(tl.float32), tl.load(logit_bias).to(tl.float32))
    if has_positives | at_edge:
        against = tl.where(positive, -against, against)
        against = tl.where(inside, against, float("-inf"))  # no loss, no gradient
    decay = tl.exp(-tl.abs(against))
    loss = tl.maximum(against, 0.0) + _log1p(decay)
    signed = tl.where(against >= 0, 1.0, decay) / (1.0 + decay)
    if has_positives:
        signed = tl.where(positive, -signed, signed)

    block = gradient + rows.to(tl.int64)[:, None] * gradient_stride + columns[None, :]
    tl.store(block, signed.to(gradient.dtype.element_ty), mask=inside)
    tl.store(loss_sums + tl.program_id(0), tl.sum(tl.sum(loss, axis=1), axis=0))
    tl.store(gradient_sums + tl.program_id(0), tl.sum(tl.sum(signed, axis=1), axis=0))


@kernel
def _softmax_sums_kernel(
    images, texts, image_stride, text_stride, m, n, d,
    logit_scale, shift, row_sums, column_sums,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DIVIDES: tl.constexpr,
):  # fmt: skip
    products, rows, columns, row_block, column_block = _products(
        images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH, DEPTH_DIVIDES
    )
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    logits = products * tl.load(logit_scale).to(tl.float32)
    weights = tl.where(inside, tl.exp(logits - tl.load(shift).to(tl.float32)), 0.0)
    tl.store(row_sums + column_block.to(tl.int64) * m + rows, tl.sum(weights, axis=1), mask=rows < m)
    tl.store(column_sums + row_block.to(tl.int64) * n + columns, tl.sum(weights, axis=0), mask=columns < n)


@kernel
def _softmax_lse_kernel(
    images, texts, image_stride, text_stride, m, n, d,
    logit_scale, row_lse, column_lse,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DIVIDES: tl.constexpr,
):  # fmt: skip
    products, rows, columns, row_block, column_block = _products(
        images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH, DEPTH_DIVIDES
    )
    logits = products * tl.load(logit_scale).to(tl.float32)
    # Rows past the edge repeat the last one, so every row and column has a finite largest logit.
    by_row = tl.where(columns[None, :] < n, logits, float("-inf"))
    largest = tl.max(by_row, axis=1)
    lse = largest + tl.log(tl.sum(tl.exp(by_row - largest[:, None]), axis=1))
    tl.store(row_lse + column_block.to(tl.int64) * m + rows, lse, mask=rows < m)
    by_column = tl.where(rows[:, None] < m, logits, float("-inf"))
    largest = tl.max(by_column, axis=0)
    lse = largest + tl.log(tl.sum(tl.exp(by_column - largest[None, :]), axis=0))
    tl.store(column_lse + row_block.to(tl.int64) * n + columns, lse, mask=columns < n)


@kernel
def _softmax_gradient_kernel(
    images, texts, image_stride, text_stride, m, n, d,
    logit_scale, row_lse, column_lse, offset, gradient, gradient_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DIVIDES: tl.constexpr,
):  # fmt: skip
    products, rows, columns, _, _ = _products(
        images, texts, image_stride, text_stride, m, n, d, ROWS, COLUMNS, DEPTH, DEPTH_DIVIDES
    )
    logits = products * tl.load(logit_scale).to(tl.float32)
    of_row = tl.load(row_lse + rows, mask=rows < m, other=0.0)
    of_column = tl.load(column_lse + columns, mask=columns < n, other=0.0)
    weights = tl.exp(logits - of_row[:, None]) + tl.exp(logits - of_column[None, :])
    signed = tl.where(columns[None, :] == rows[:, None] + offset, weights - 2.0, weights)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    block = gradient + rows.to(tl.int64)[:, None] * gradient_stride + columns[None, :]
    tl.store(block, signed.to(gradient.dtype.element_ty), mask=inside)
