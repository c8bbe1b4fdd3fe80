"""Embedding-gradient caching gives the gradient of one pass, whatever the micro-batch."""

import pytest
import torch
import torch.nn.functional as F

from repro.data.pairs import PairBatch
from repro.loss import make_loss
from repro.train.step import accumulate_gradient, in_turn, side_by_side

B = 12


def gradients(name, micro_batch, both=in_turn, learning=(True, True)):
    torch.manual_seed(0)
    images_tower, texts_tower = torch.nn.Linear(3 * 4 * 4, 5).double(), torch.nn.Linear(6, 5).double()
    logit_scale = torch.nn.Parameter(torch.tensor(2.0).double())
    logit_bias = torch.nn.Parameter(torch.tensor(-2.0).double())
    batch = PairBatch(torch.randint(0, 256, (B, 3, 4, 4), dtype=torch.uint8), torch.randint(0, 9, (B, 6)))

    def embed_images(images):
        return F.normalize(images_tower(images.double().flatten(1) / 255).tanh(), dim=-1)

    def embed_texts(tokens):
        return F.normalize(texts_tower(tokens.double()).tanh(), dim=-1)

    def loss(x, y):
        return make_loss(name)(x, y, logit_scale.exp(), logit_bias)

    value, x, y = accumulate_gradient(embed_images, embed_texts, loss, batch, micro_batch, both, learning)
    parameters = [*images_tower.parameters(), *texts_tower.parameters(), logit_scale]
    return [value, x, y, *(p.grad for p in parameters)]


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("micro_batch", [1, 3, 6])
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, micro_batch):
    for mine, whole in zip(gradients(name, micro_batch), gradients(name, B), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("micro_batch", [3, B])
def test_towers_side_by_side_give_the_bits_of_one_after_the_other(micro_batch):
    both = side_by_side(threads=2)
    for mine, in_turns in zip(gradients("sigmoid", micro_batch, both), gradients("sigmoid", micro_batch), strict=True):
        assert torch.equal(mine, in_turns)


@pytest.mark.parametrize("micro_batch", [3, B])
@pytest.mark.parametrize("both", [in_turn, side_by_side(threads=2)])
def test_a_tower_that_does_not_learn_gets_no_gradient_and_the_other_one_its_own(micro_batch, both):
    whole = gradients("sigmoid", B)
    images_locked = gradients("sigmoid", micro_batch, both, learning=(False, True))
    assert images_locked[3] is images_locked[4] is None
    for mine, expected in zip(images_locked[5:], whole[5:], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)
