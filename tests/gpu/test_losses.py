"""Both losses on the device, in every dtype, against the plain formulas in float64 on new random inputs."""

import math

import pytest
import torch
import torch.nn.functional as F

from repro.bench.measure import reference_gradients
from repro.loss import make_loss
from repro.loss.plain import PlainSigmoidLoss, PlainSoftmaxLoss

pytestmark = pytest.mark.gpu

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}
OF_A_LOGIT = 2**-22
"""Of t: what a float32 product is off by at d = 768 is, in a logit, off by t times as much, and so, relatively, is its
exponential."""
PLAIN = {"sigmoid": PlainSigmoidLoss, "softmax": PlainSoftmaxLoss}


def inputs(dtype, device, batch, dim):
    """Images and texts of a model in training, and the seed they were drawn from."""
    seed = torch.seed() % 2**31
    generator = torch.Generator(device).manual_seed(seed)
    images, noise = (F.normalize(torch.randn(batch, dim, generator=generator, device=device), dim=-1) for _ in "xy")
    texts = F.normalize(0.3 * images + 0.7 * noise, dim=-1)
    return images.to(dtype), texts.to(dtype), seed


def value_and_gradients(loss, images, texts, *scalars):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (images, texts, *scalars)]
    value = loss(*leaves)
    value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


def relative_error(mine, exact, size=None):
    """‖mine − exact‖ ÷ ‖exact‖, or ÷ the size of the terms that cancel in it."""
    difference = (mine.double() - exact.double()).norm()
    return (difference / (exact.double().norm() if size is None else size)).item()


def terms_of_t(name, images, texts, scale, bias):
    """Σᵢⱼ |∂L/∂lᵢⱼ·xᵢ·yⱼ| in float64: the gradient of t, without the signs by which its terms cancel."""
    similarity = images.double() @ texts.double().T
    logits = scale * similarity
    weights = (logits + bias).sigmoid() if name == "sigmoid" else (logits.softmax(0) + logits.softmax(1)) / 2
    weights.diagonal().sub_(1)
    return (weights * similarity).abs().sum() / len(images)


def sizes(device):
    """Whole tiles and a part of one, at SigLIP's dimension; fewer where a CPU multiplies."""
    return [(4096, 768), (3001, 200)] if device.type == "cuda" else [(256, 64), (193, 33)]


@pytest.mark.parametrize("scale", [10.0, 30.0])
@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_value_and_gradients_are_those_of_the_formula_in_float64(name, dtype, scale, device):
    scalars = [torch.tensor(value, device=device) for value in (scale, -10.0)][: 2 if name == "sigmoid" else 1]
    most = ROUNDING[dtype] + OF_A_LOGIT * scale
    for batch, dim in sizes(device):
        images, texts, seed = inputs(dtype, device, batch, dim)
        mine = value_and_gradients(make_loss(name), images, texts, *scalars)
        exact = value_and_gradients(PLAIN[name](), images.double(), texts.double(), *(s.double() for s in scalars))
        for what, ours, theirs in zip(("loss", "images", "texts", "t", "b"), mine, exact, strict=False):
            size = terms_of_t(name, images, texts, scale, -10.0) if what == "t" else None
            error = relative_error(ours, theirs, size)
            assert error <= most, f"{what} at batch {batch}, d {dim}, seed {seed}: off by {error:.2e}"


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_a_batch_of_more_than_a_tile_has_the_gradient_of_the_formula(name, device):
    batch, dim = (20_000, 256) if device.type == "cuda" else (1200, 32)
    images, texts, seed = inputs(torch.bfloat16, device, batch, dim)
    scalars = [torch.tensor(value, device=device) for value in (10.0, -10.0)][: 2 if name == "sigmoid" else 1]
    mine = value_and_gradients(make_loss(name), images, texts, *scalars)[1:]
    exact = reference_gradients(name, images, texts, 10.0, -10.0)
    for (what, theirs), ours in zip(exact.items(), mine, strict=True):
        error = relative_error(ours, theirs)
        assert error <= 2**-8, f"{what}, seed {seed}: off by {error:.2e}"


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_the_same_bits_come_out_twice(name, device):
    images, texts, _ = inputs(torch.bfloat16, device, *sizes(device)[1])
    scalars = [torch.tensor(value, device=device) for value in (10.0, -10.0)][: 2 if name == "sigmoid" else 1]
    once, again = (value_and_gradients(make_loss(name), images, texts, *scalars) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert all(math.isfinite(value) for value in (once[0].item(), once[-1].item()))
