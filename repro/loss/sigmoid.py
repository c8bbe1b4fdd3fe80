"""The sigmoid loss in one pass (SigLIP, section 3.3): value and all gradients, with no matrix larger than a tile.

G = dL/dlogits needs no normaliser, so each tile is finished the moment its logits are there: three matrix products a
tile (logits, G·texts, Gᵀ·images) and one trip of the text blocks round the ring, their gradients with them.
"""

from functools import partial

import torch

from repro.loss import kernels
from repro.loss.call import Made, Plan, differentiable, prepare
from repro.loss.exchange import Block, Group, rank, visit
from repro.loss.negatives import MeanLogits, Negatives, Selection
from repro.loss.tiles import add_product, buffers, gradient_dtype, sigmoid_tile, tile_logits, tiles, view, zeros


class SigmoidLoss(torch.nn.Module):
    """L = (1/B) Σᵢⱼ softplus(−zᵢⱼ lᵢⱼ), l = t·x·yᵀ + b, z = +1 on the diagonal and −1 elsewhere (section 3.2).

    exchange: 'ring', 'ring-bidirectional', 'gather', or 'none' (one rank). All give the same gradient.
    negatives: which negatives of the global batch count; by default all (section 4.8).
    group: by default the default process group, if there is one when the loss is called.
    tile: rows and columns of the similarity matrix in memory at once; by default what suits the device.
    check: each call compares shapes, dtypes and finiteness over ranks first, so that all ranks raise the same error
        where one of them has a mistake. On a GPU it waits for the device once. Without it a mistake may hang the group.
    """

    def __init__(
        self,
        exchange: str = "ring",
        *,
        negatives: Negatives | None = None,
        group: Group = None,
        tile: tuple[int, int] | None = None,
        check: bool = True,
    ):
        super().__init__()
        self.exchange, self.group, self.tile, self.check = exchange, group, tile, check
        self.negatives = negatives
        self.draw = 0
        """Number of the next random choice of negatives; set it to repeat one."""
        self.mean_logits: MeanLogits | None = None
        """Share of the negatives kept in the last call, where negatives are chosen."""

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor | float,
        logit_bias: torch.Tensor | float | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """image_features, text_features: [b, d], L2-normalised, this rank's. logit_scale: t (not its logarithm).

        Each rank returns (1/b)·(the sum of its rows), so that averaging over ranks, as DDP does with gradients,
        gives the mean over the global batch. The texts' gradient is that of all ranks' rows, times this rank's
        incoming gradient: all ranks must differentiate the same multiple of the loss.
        Raises ValueError, on all ranks (NonFiniteError for NaN and infinite values).
        """
        features, scalars = (image_features, text_features), (logit_scale, logit_bias)
        how = self.exchange, self.group, self.tile, self.check
        plan, inputs = prepare(*features, *scalars, *how, may_fuse=self.negatives is None)
        if self.negatives is None:
            loss = differentiable(tile_pass, plan, inputs)
        else:
            with torch.no_grad():
                selection = Selection(self.negatives, self.draw, plan, inputs)
            loss = differentiable(partial(tile_pass, selection=selection), plan, inputs)
            self.mean_logits = selection.mean_logits()
            self.draw += 1
        return {"contrastive_loss": loss} if output_dict else loss


def tile_pass(
    plan: Plan,
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    selection: Selection | None = None,
) -> Made:
    """Loss and gradients of this rank's rows, and of its texts over all ranks' rows; communicates."""
    local, summed = len(images), gradient_dtype(images.dtype)
    image_gradient = images.new_zeros(images.shape, dtype=summed) if plan.images else None
    sums = images.new_zeros(3, dtype=torch.float64)  # the loss, and the gradients of b and t
    space = kernels.space(images, plan.tile) if plan.fused else buffers(3, images, plan.tile, plan.logits)

    def work(owner: int, block: Block, room: torch.Tensor | None) -> torch.Tensor | None:
        (block_texts,) = block
        text_gradient = zeros(room, texts.shape, texts, summed) if plan.texts else None
        for tile in tiles(local, local, plan.tile):
            x, y = images[tile.rows], block_texts[tile.columns]
            offset = tile.offset(0 if owner == rank(plan.group) else None)
            if plan.fused:
                gradient = view(space, tile.shape)
                tile_sums = kernels.sigmoid_tile(x, y, scale, bias, offset, gradient)
            else:
                products, gradient, scratch = (view(buffer, tile.shape) for buffer in space)
                similarity = tile_logits(x, y, scale, bias, products, gradient, offset)
                if selection is not None:
                    selection.drop(gradient, tile, owner)
                tile_sums = sigmoid_tile(similarity, gradient, offset, scratch)
            sums.add_(torch.stack(tile_sums))
            if image_gradient is not None:
                add_product(image_gradient[tile.rows], gradient, y)
            if text_gradient is not None:
                add_product(text_gradient[tile.columns], gradient.T, x)
        return text_gradient

    text_gradient = visit([texts], work, plan.exchange, plan.group)
    for gradient in (image_gradient, text_gradient):
        if gradient is not None:
            gradient.mul_(scale.to(summed) / local)
    loss, bias_gradient, scale_gradient = sums / local
    return Made(loss, image_gradient, text_gradient, scale_gradient, bias_gradient)
