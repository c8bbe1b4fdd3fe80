"""Embedding-gradient caching gives the gradient of one pass, whatever the micro-batch."""

import pytest
import torch
import torch.nn.functional as F

from repro.data.pairs import PairBatch
from repro.loss import make_loss
from repro.train.step import accumulate_gradient

B = 12


def gradients(name, micro_batch):
    torch.manual_seed(0)
    images_tower, texts_tower = torch.nn.Linear(3 * 4 * 4, 5).double(), torch.nn.Linear(6, 5).double()
    logit_scale = torch.nn.Parameter(torch.tensor(2.0).double())
    logit_bias = torch.nn.Parameter(torch.tensor(-2.0).double())
    batch = PairBatch(torch.randint(0, 256, (B, 3, 4, 4), dtype=torch.uint8), torch.randint(0, 9, (B, 6)))

    def embed(images, tokens):
        x = images_tower(images.double().flatten(1) / 255).tanh()
        return F.normalize(x, dim=-1), F.normalize(texts_tower(tokens.double()).tanh(), dim=-1)

    def loss(x, y):
        return make_loss(name)(x, y, logit_scale.exp(), logit_bias)

    value, x, y = accumulate_gradient(embed, loss, batch, micro_batch)
    parameters = [*images_tower.parameters(), *texts_tower.parameters(), logit_scale]
    return [value, x, y, *(p.grad for p in parameters)]


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("micro_batch", [1, 3, 6])
def test_micro_batches_give_the_gradient_of_the_whole_batch(name, micro_batch):
    for mine, whole in zip(gradients(name, micro_batch), gradients(name, B), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-12, atol=1e-14)
