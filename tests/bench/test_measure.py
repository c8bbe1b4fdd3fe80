"""What one process measures: the float64 reference, taken in tiles, is what autograd makes of the plain formula."""

import pytest
import torch

from repro.bench import measure
from repro.loss import LOSSES


@pytest.mark.parametrize("tile_elements", [64, 2**22])
@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_tiles_give_the_gradient_of_the_whole(loss, tile_elements, monkeypatch):
    monkeypatch.setattr(measure, "TILE_ELEMENTS", tile_elements)
    torch.manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(37, 8, dtype=torch.float64)).requires_grad_() for _ in range(2))
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (10.0, -10.0))
    inputs = [x, y, scale] + ([bias] if loss == "sigmoid" else [])
    expected = torch.autograd.grad(LOSSES[loss].make_plain()(*inputs), inputs)
    for gradients in (measure.reference_gradients, measure.plain_gradients):
        found = gradients(loss, x.detach(), y.detach(), 10.0, -10.0)
        for one, other in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(one, other)


def test_a_median_is_of_repeats_that_fit_the_limit_and_inputs_take_turns():
    numbers = []
    cpu = torch.device("cpu")
    assert measure.median_seconds(numbers.append, cpu, limit_seconds=60, repeats=5, warm_ups=2) >= 0
    assert numbers[:2] == [0, 1] and numbers[-5:] == [3, 4, 5, 6, 7]
    numbers.clear()
    measure.median_seconds(numbers.append, cpu, limit_seconds=0.0, repeats=5, warm_ups=0)
    assert len(numbers) == 1
