"""One optimizer step's gradient, for any batch size in the memory of one micro-batch (embedding-gradient caching).

The loss needs all embeddings of the batch, but not all activations: embed every micro-batch without a graph, take
the loss's gradient at the embeddings, then embed again with a graph and push that gradient through, one micro-batch
at a time. The gradient is exact; the price is one more forward pass of the towers. (GradCache, arXiv 2101.06983)
"""

from collections.abc import Callable

import torch

from repro.data.pairs import PairBatch

Embed = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def accumulate_gradient(
    embed: Embed,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    batch: PairBatch,
    micro_batch: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Adds this rank's gradient to the parameters; returns the loss and the embeddings [b, d], all detached.

    embed: uint8 images [m, 3, H, W] and tokens [m, L] → L2-normalised embeddings, both [m, d].
    loss: all of this rank's embeddings → its share of the loss.
    """
    if len(batch) <= micro_batch:
        image_features, text_features = embed(batch.images, batch.tokens)
        value = loss(image_features, text_features)
        value.backward()
        return value.detach(), image_features.detach(), text_features.detach()
    micro_batches = list(zip(batch.images.split(micro_batch), batch.tokens.split(micro_batch), strict=True))
    with torch.no_grad():
        embedded = [embed(images, tokens) for images, tokens in micro_batches]
    image_features = torch.cat([images for images, _ in embedded]).requires_grad_()
    text_features = torch.cat([texts for _, texts in embedded]).requires_grad_()
    value = loss(image_features, text_features)
    value.backward()
    gradients = zip(image_features.grad.split(micro_batch), text_features.grad.split(micro_batch), strict=True)
    for (images, tokens), gradient in zip(micro_batches, gradients, strict=True):
        torch.autograd.backward(embed(images, tokens), gradient)
    return value.detach(), image_features.detach(), text_features.detach()
