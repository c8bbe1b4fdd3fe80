"""The float64 reference, taken in tiles, is what autograd makes of the plain formula."""

import pytest
import torch

from repro.bench import reference
from repro.loss.plain import PlainSigmoidLoss, PlainSoftmaxLoss


@pytest.mark.parametrize("tile_elements", [64, 2**22])
@pytest.mark.parametrize(("loss", "plain"), [("sigmoid", PlainSigmoidLoss), ("softmax", PlainSoftmaxLoss)])
def test_tiles_give_the_gradient_of_the_whole(loss, plain, tile_elements, monkeypatch):
    monkeypatch.setattr(reference, "TILE_ELEMENTS", tile_elements)
    torch.manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(37, 8, dtype=torch.float64)).requires_grad_() for _ in range(2))
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (10.0, -10.0))
    inputs = [x, y, scale] + ([bias] if loss == "sigmoid" else [])
    expected = torch.autograd.grad(plain()(*inputs), inputs)
    found = reference.gradients(loss, x.detach(), y.detach(), 10.0, -10.0)
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one, other)
