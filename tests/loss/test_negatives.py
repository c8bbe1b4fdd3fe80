"""Choosing negatives: exactly the wanted share, the same as by sorting, on any ranks and tiles."""

import pytest
import torch
import torch.nn.functional as F

from repro.loss import Negatives, SigmoidLoss
from tests.loss.test_losses import assert_near, inputs, mean_over_ranks, value_and_gradients
from tests.ranks import on_ranks

B = 48


def kept_by_sorting(kind, share, logits):
    """[B, B] mask of the positives and the negatives kept."""
    negatives = ~torch.eye(len(logits), dtype=torch.bool)
    wanted = round(share * negatives.sum().item())
    ordered = logits[negatives].sort(descending=kind == "hard").values
    edge = ordered[wanted - 1]
    return (logits >= edge if kind == "hard" else logits <= edge) & negatives | ~negatives


def by_sorting(kind, share):
    def loss(images, texts, scale, bias):
        logits = scale * images @ texts.T + bias
        kept = kept_by_sorting(kind, share, logits)
        signs = 2 * torch.eye(len(logits)) - 1
        return -(F.logsigmoid(signs * logits) * kept).sum() / len(logits)

    return loss


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["hard", "easy"])
@pytest.mark.parametrize("tile", [None, (7, 11)])
def test_hard_and_easy_negatives_are_those_of_a_sort(kind, share, tile):
    tensors = inputs(torch.float64, B)
    module = SigmoidLoss(negatives=Negatives(kind, share), tile=tile)
    assert_near(value_and_gradients(module, tensors), value_and_gradients(by_sorting(kind, share), tensors), 1e-12)
    assert module.mean_logits.kept == round(share * (B * B - B))


@pytest.mark.parametrize("kind", ["hard", "easy"])
def test_mean_logits_are_those_of_what_was_kept(kind):
    images, texts, scale, bias = tensors = inputs(torch.float64, B)
    module = SigmoidLoss(negatives=Negatives(kind, 0.2))
    module(*tensors)
    logits = scale * images @ texts.T + bias
    kept = kept_by_sorting(kind, 0.2, logits) & ~torch.eye(B, dtype=torch.bool)
    assert module.mean_logits.positive == pytest.approx(logits.diagonal().mean().item())
    assert module.mean_logits.negative == pytest.approx(logits[kept].mean().item())


def test_random_negatives_have_the_wanted_share_and_every_pair_its_turn():
    images, texts, scale, bias = inputs(torch.float32, B)
    module = SigmoidLoss(negatives=Negatives("random", 0.25))
    times_kept = torch.zeros(B, B)
    for _ in range(200):
        bias = bias.clone().requires_grad_()
        gradient = torch.autograd.grad(module(images, texts.clone().requires_grad_(), scale, bias), bias)[0]
        assert gradient.isfinite()
        assert module.mean_logits.kept == round(0.25 * (B * B - B))
    for draw in range(200):
        times_kept += mask_of(draw)
    frequency = times_kept[~torch.eye(B, dtype=torch.bool)] / 200
    assert frequency.mean().item() == pytest.approx(0.25, abs=1e-3)
    assert frequency.std().item() == pytest.approx((0.25 * 0.75 / 200) ** 0.5, rel=0.15)
    rows = times_kept.sum(1) / 200  # no row or column is favoured
    assert rows.std().item() < 3 * (B * 0.25 * 0.75 / 200) ** 0.5


def mask_of(draw):
    """Which pairs a draw keeps, read off the gradient: with one-hot texts, ∂images[i, j] is G[i, j]."""
    images = torch.zeros(B, B).fill_(B**-0.5).requires_grad_()
    module = SigmoidLoss(negatives=Negatives("random", 0.25))
    module.draw = draw
    module(images, torch.eye(B), 1.0, 0.0).backward()
    return (images.grad != 0).float().fill_diagonal_(0)


def one_rank(kind, ranks, tile):
    import torch.distributed as dist

    module = SigmoidLoss(negatives=Negatives(kind, 0.1, seed=3), tile=tile)
    rank, local = dist.get_rank() if ranks > 1 else 0, B // ranks
    made = value_and_gradients(module, inputs(torch.float64, B), slice(rank * local, (rank + 1) * local))
    return [*(t.numpy() for t in made), module.mean_logits]


@pytest.mark.parametrize("kind", ["random", "hard", "easy"])
def test_ranks_and_tiles_choose_the_same_negatives(kind):
    alone = one_rank(kind, 1, None)
    answers = on_ranks(4, one_rank, kind, 4, (5, 3))
    assert_near(mean_over_ranks(answers), [torch.from_numpy(t) for t in alone[:5]], 1e-12)
    for answer in answers:
        assert answer[5].kept == alone[5].kept == round(0.1 * (B * B - B))
        assert answer[5].negative == pytest.approx(alone[5].negative)
        assert answer[5].positive == pytest.approx(alone[5].positive)


@pytest.mark.parametrize("kind", ["random", "hard", "easy"])
def test_the_share_is_right_at_a_larger_batch(kind):
    tensors = inputs(torch.float32, 1024, 64)
    module = SigmoidLoss(negatives=Negatives(kind, 0.0123), tile=(300, 400))
    module(*tensors)
    assert module.mean_logits.kept == pytest.approx(0.0123 * (1024**2 - 1024), rel=1e-3)


def test_a_choice_that_cannot_be_made_says_what_can():
    with pytest.raises(ValueError, match="'hardest' are not known; expected one of random, hard, easy"):
        Negatives("hardest", 0.5)
    with pytest.raises(ValueError, match="more than 0 and at most 1"):
        Negatives("hard", 0.0)
