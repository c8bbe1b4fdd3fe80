"""One optimizer step's gradient, for any batch size in the memory of one micro-batch (embedding-gradient caching).

The loss needs all embeddings of the batch, but not all activations: embed every micro-batch without a graph, take
the loss's gradient at the embeddings, then embed again with a graph and push that gradient through, one micro-batch
at a time. The gradient is exact; the price is one more forward pass of the towers. (GradCache, arXiv 2101.06983)

The towers meet in the loss only, so on CPUs they run at the same time, each on half of the threads: threads that
share every operation instead wait for each other after each one, at small sizes longer than they work.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from repro.data.pairs import PairBatch

Embed = Callable[[torch.Tensor], torch.Tensor]
Both = Callable[[Callable[[], Any], Callable[[], Any]], tuple[Any, Any]]
"""Calls two functions, which see to one tower each, and returns what they return."""
During = Callable[[str], AbstractContextManager]
"""Part of a step → a context around the work of that part, to measure it (train/meters.py)."""


def in_turn(image_work: Callable[[], Any], text_work: Callable[[], Any]) -> tuple[Any, Any]:
    return image_work(), text_work()


def side_by_side(threads: int) -> Both:
    """Both towers at the same time, the text tower in a thread of its own, on threads ÷ 2 each."""
    each = threads // 2
    text_thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(each,))

    def both(image_work: Callable[[], Any], text_work: Callable[[], Any]) -> tuple[Any, Any]:
        texts = text_thread.submit(text_work)
        torch.set_num_threads(each)
        try:
            return image_work(), texts.result()
        finally:
            torch.set_num_threads(threads)

    return both


def accumulate_gradient(
    embed_images: Embed,
    embed_texts: Embed,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    batch: PairBatch,
    micro_batch: int,
    both: Both = in_turn,
    learning: tuple[bool, bool] = (True, True),
    during: During = nullcontext,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Adds this rank's gradient to the parameters; returns the loss and the embeddings [b, d], all detached.

    embed_images: images of the batch [m, …] → L2-normalised embeddings [m, d]. embed_texts: tokens [m, L] → the same.
    The two share no parameters. loss: all of this rank's embeddings → its share of the loss.
    learning: whether the image and the text tower do; one that does not is passed through once, and no gradient is.
    during: entered with 'towers' and 'loss', on the calling thread.
    """
    images, texts = batch.images.split(micro_batch), batch.tokens.split(micro_batch)
    keep = [learns and len(images) == 1 for learns in learning]
    with during("towers"):
        embedded = both(partial(_embed, embed_images, images, keep[0]), partial(_embed, embed_texts, texts, keep[1]))
    image_features, text_features = (
        features.detach().requires_grad_(learns) for features, learns in zip(embedded, learning, strict=True)
    )
    with during("loss"):
        value = loss(image_features, text_features)
        value.backward()
    work = (
        partial(_push, embed_images, images, embedded[0], image_features.grad),
        partial(_push, embed_texts, texts, embedded[1], text_features.grad),
    )
    with during("towers"):
        if all(learning):
            both(*work)
        else:
            for push in itertools.compress(work, learning):
                push()
    return value.detach(), image_features.detach(), text_features.detach()


def _embed(embed: Embed, micro_batches: Sequence[torch.Tensor], keep_graph: bool) -> torch.Tensor:
    """All of one tower's embeddings, [b, d]."""
    with torch.set_grad_enabled(keep_graph):  # each thread has its own grad mode
        return torch.cat([embed(inputs) for inputs in micro_batches])


def _push(embed: Embed, micro_batches: Sequence[torch.Tensor], embedded: torch.Tensor, gradient: torch.Tensor) -> None:
    """The gradient at one tower's embeddings [b, d] → its parameters, through the graph kept or one made anew."""
    if len(micro_batches) == 1:
        embedded.backward(gradient)
        return
    for inputs, part in zip(micro_batches, gradient.split(len(micro_batches[0])), strict=True):
        embed(inputs).backward(part)
