"""The losses against the plain formulas in float64, on one rank and on several, and against open_clip's."""

import math

import pytest
import torch
import torch.nn.functional as F

from repro.loss import SigmoidLoss, SoftmaxLoss, make_loss
from tests.ranks import on_ranks

B, D = 12, 7


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(B, D, generator=generator, dtype=dtype), dim=-1) for _ in range(2))
    return images, texts, torch.tensor(10.0, dtype=dtype), torch.tensor(-3.0, dtype=dtype)


def formula(name, images, texts, scale, bias):
    """Sections 3.1 and 3.2, entry by entry."""
    total = torch.zeros((), dtype=torch.float64)
    logits = scale * images @ texts.T + (bias if name == "sigmoid" else 0)
    for i in range(B):
        if name == "softmax":
            total = total - torch.log_softmax(logits[i], 0)[i] / 2 - torch.log_softmax(logits[:, i], 0)[i] / 2
        else:
            for j in range(B):
                total = total - F.logsigmoid((1.0 if i == j else -1.0) * logits[i, j])
    return total / B


def value_and_gradients(loss, rows=slice(None)):
    images, texts, scale, bias = (tensor.requires_grad_() for tensor in inputs())
    value = loss(images[rows], texts[rows], scale, bias)
    value.backward()
    return value.detach(), images.grad, texts.grad, scale.grad, torch.zeros(()) if bias.grad is None else bias.grad


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_loss_and_gradients_are_those_of_the_plain_formula(name):
    ours = value_and_gradients(make_loss(name))
    expected = value_and_gradients(lambda *a: formula(name, *a))
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def one_rank(name, ranks):
    import torch.distributed as dist

    rank, local = dist.get_rank(), B // ranks
    return [t.numpy() for t in value_and_gradients(make_loss(name), slice(rank * local, (rank + 1) * local))]


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_averaging_over_ranks_gives_the_gradient_of_the_whole_batch(name, ranks):
    expected = value_and_gradients(lambda *a: formula(name, *a))
    answers = [[torch.from_numpy(t) for t in answer] for answer in on_ranks(ranks, one_rank, name, ranks)]
    for position, theirs in enumerate(expected):
        mean = sum(answer[position] for answer in answers) / ranks
        torch.testing.assert_close(mean, theirs, rtol=1e-12, atol=1e-14, check_dtype=False)


def test_sigmoid_gives_open_clips_value_and_gradient():
    from open_clip.loss import SigLipLoss

    for mine, theirs in zip(value_and_gradients(SigmoidLoss()), value_and_gradients(SigLipLoss()), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_softmax_gives_open_clips_value_and_gradient():
    from open_clip.loss import ClipLoss

    theirs_without_bias = value_and_gradients(lambda i, t, s, b: ClipLoss()(i, t, s))
    for mine, theirs in zip(value_and_gradients(SoftmaxLoss()), theirs_without_bias, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_at_initialisation_the_sigmoid_loss_is_that_of_one_positive_and_many_easy_negatives():
    """b = −10 and t = 10: section 3.2's start; orthogonal pairs cost softplus(10) and (B−1)·softplus(−10)."""
    value = SigmoidLoss()(torch.eye(B)[:6], torch.eye(B)[6:], torch.tensor(10.0), torch.tensor(-10.0))
    assert value.item() == pytest.approx(math.log1p(math.exp(10)) + 5 * math.log1p(math.exp(-10)), rel=1e-6)


def test_output_dict_names_the_loss_as_open_clip_does():
    images, texts, scale, bias = inputs()
    loss = SigmoidLoss()
    assert loss(images, texts, scale, bias, output_dict=True)["contrastive_loss"] == loss(images, texts, scale, bias)
