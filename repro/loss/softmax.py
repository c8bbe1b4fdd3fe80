"""CLIP's symmetric cross-entropy (SigLIP, section 3.1) in the sigmoid loss's frame: tiles, ring or gather, exact.

Each row and each column of the similarity matrix needs its normaliser before its gradient, so the text blocks go
round twice: once for the log-sum-exps, once for the gradients. Four matrix products a tile against the sigmoid's
three, and the logits made twice. Nothing larger than a tile is kept; memory O(b·d + tile²).

Where logits are bounded, as L2-normalised features at an ordinary temperature make them, exp(l − bound) serves rows
and columns alike with no maximum to look for. Otherwise each tile takes its own maxima.
"""

import math

import torch

from repro.loss import kernels
from repro.loss.call import Made, Plan, differentiable, prepare
from repro.loss.exchange import Block, Group, rank, visit
from repro.loss.tiles import add_product, buffers, diagonal, gradient_dtype, similarities, tiles, total, view, zeros

BOUND = 32.0
"""exp(l − bound) with |l| up to this stays far from the ends of fp32, and so do sums over any batch."""
LOG2_E = math.log2(math.e)


class SoftmaxLoss(torch.nn.Module):
    """L = −(1/2B) Σᵢ (log softmax of row i at i + log softmax of column i at i) of l = t·x·yᵀ.

    Arguments as SigmoidLoss.
    """

    def __init__(
        self,
        exchange: str = "ring",
        *,
        group: Group = None,
        tile: tuple[int, int] | None = None,
        check: bool = True,
    ):
        super().__init__()
        self.exchange, self.group, self.tile, self.check = exchange, group, tile, check

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor | float,
        logit_bias: torch.Tensor | float | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Arguments, scaling and errors as SigmoidLoss; a bias cancels in the softmax and is ignored.

        Each rank returns its own images' rows and its own texts' columns. The gradient of t is that of this rank's
        rows, in which both softmaxes have their part: averaged over ranks it is the same.
        """
        how = self.exchange, self.group, self.tile, self.check
        plan, inputs = prepare(image_features, text_features, logit_scale, None, *how)
        loss = differentiable(tile_pass, plan, inputs)
        return {"contrastive_loss": loss} if output_dict else loss


def tile_pass(plan: Plan, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, _: None) -> Made:
    """Loss of this rank's rows and columns, and the gradients; communicates."""
    local, summed = len(images), gradient_dtype(images.dtype)
    rows, columns = _log_sum_exps(plan, images, texts, scale)
    pairs = zip(images.split(plan.tile[0]), texts.split(plan.tile[0]), strict=True)
    positives = scale.double() * torch.cat([(x.double() * y.double()).sum(dim=1) for x, y in pairs])
    loss = ((rows - positives).sum() + (columns - positives).sum()) / (2 * local)
    if not (plan.images or plan.texts or plan.scale):
        return Made(loss)
    image_gradient = images.new_zeros(images.shape, dtype=summed) if plan.images else None
    scale_gradient = images.new_zeros((), dtype=torch.float64)
    space = kernels.space(images, plan.tile) if plan.fused else buffers(3, images, plan.tile, plan.logits)

    def work(owner: int, block: Block, room: torch.Tensor | None) -> torch.Tensor | None:
        block_texts, block_columns = block
        text_gradient = zeros(room, texts.shape, texts, summed) if plan.texts else None
        for tile in tiles(local, local, plan.tile):
            x, y = images[tile.rows], block_texts[tile.columns]
            row_lse, column_lse = rows[tile.rows], block_columns[tile.columns]
            offset = tile.offset(0 if owner == rank(plan.group) else None)
            if plan.fused:
                gradient = view(space, tile.shape)
                lse = row_lse.float(), column_lse.float()
                scale_gradient.add_(kernels.softmax_gradient_tile(x, y, scale, *lse, offset, gradient))
            else:
                products, gradient, scratch = (view(buffer, tile.shape) for buffer in space)
                similarity = similarities(x, y, products, offset)
                _to_gradient(plan, similarity, scale, row_lse[:, None], column_lse, gradient, scratch)
                diagonal(gradient, offset).sub_(2)
                scale_gradient.add_(total(similarity.mul_(gradient)))
            if image_gradient is not None:
                add_product(image_gradient[tile.rows], gradient, y)
            if text_gradient is not None:
                add_product(text_gradient[tile.columns], gradient.T, x)
        return text_gradient

    text_gradient = visit([texts, columns], work, plan.exchange, plan.group)
    for gradient in (image_gradient, text_gradient):
        if gradient is not None:
            gradient.mul_(scale.to(summed) / (2 * local))
    return Made(loss, image_gradient, text_gradient, scale_gradient / (2 * local))


def _log_sum_exps(
    plan: Plan, images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sum-exps of this rank's rows over all texts, and of its texts' columns over all images: [b] each, float64."""
    local, bounded = len(images), _bounded(plan)
    bound = scale.new_tensor(plan.largest_logit or 0, dtype=torch.float32)
    buffer = None if plan.fused else buffers(1, images, plan.tile, plan.logits)[0]
    combine = torch.add if bounded else torch.logaddexp
    nothing = 0.0 if bounded else -math.inf
    rows = images.new_full((local,), nothing, dtype=torch.float64)

    def work(owner: int, block: Block, room: torch.Tensor | None) -> torch.Tensor:
        (block_texts,) = block
        columns = (torch.empty_like(rows) if room is None else room).fill_(nothing)
        for tile in tiles(local, local, plan.tile):
            x, y = images[tile.rows], block_texts[tile.columns]
            if plan.fused and bounded:
                parts = kernels.softmax_sums_tile(x, y, scale, bound)
            elif plan.fused:
                parts = kernels.softmax_lse_tile(x, y, scale)
            else:
                offset = tile.offset(0 if owner == rank(plan.group) else None)
                parts = _sums(plan, similarities(x, y, view(buffer, tile.shape), offset), scale)
            for sums, part in zip((rows[tile.rows], columns[tile.columns]), parts, strict=True):
                combine(sums, part.double(), out=sums)
        return columns

    columns = visit([texts], work, plan.exchange, plan.group, combine)
    if bounded:
        return rows.log_().add_(plan.largest_logit), columns.log_().add_(plan.largest_logit)
    return rows, columns


def _bounded(plan: Plan) -> bool:
    return plan.largest_logit is not None and plan.largest_logit <= BOUND


def _exp_bounded(plan: Plan, similarity: torch.Tensor, scale: torch.Tensor, out: torch.Tensor) -> None:
    """out ← exp(t·x·y − bound), by the faster exp2."""
    torch.mul(similarity, scale.to(similarity.dtype) * LOG2_E, out=out).sub_(plan.largest_logit * LOG2_E).exp2_()


def _sums(plan: Plan, similarity: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of one tile's rows and of its columns: Σ exp(l − bound), or log Σ exp l where there is no bound."""
    if _bounded(plan):
        _exp_bounded(plan, similarity, scale, out=similarity)
        return similarity.sum(1), similarity.sum(0)
    similarity.mul_(scale)
    return similarity.logsumexp(1), similarity.logsumexp(0)


def _to_gradient(
    plan: Plan,
    similarity: torch.Tensor,
    scale: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    out: torch.Tensor,
    scratch: torch.Tensor,
) -> None:
    """out [m, n] ← softmax along rows + softmax along columns of t·x·y.

    rows [m, 1], columns [n]: log-sum-exps over the whole batch, float64. One exponential where logits are bounded.
    """
    if _bounded(plan):
        _exp_bounded(plan, similarity, scale, out)
        by_rows, by_columns = ((plan.largest_logit - lse).exp_().to(out.dtype) for lse in (rows, columns))
        out.mul_(torch.add(by_rows, by_columns, out=scratch))
    else:
        torch.mul(similarity, scale.to(out.dtype), out=out)
        torch.sub(out, columns.to(out.dtype), out=scratch).exp_()
        out.sub_(rows.to(out.dtype)).exp_().add_(scratch)
