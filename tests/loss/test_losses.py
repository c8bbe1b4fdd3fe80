"""The losses against the plain formulas in float64: every exchange, rank count, tile, dtype and temperature."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.loss import SigmoidLoss, SoftmaxLoss, make_loss
from repro.loss.plain import PlainSigmoidLoss, PlainSoftmaxLoss
from tests.ranks import on_ranks

B, D = 24, 7
PLAIN = {"sigmoid": PlainSigmoidLoss, "softmax": PlainSoftmaxLoss}
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def inputs(dtype=torch.float64, batch=B, dim=D, scale=10.0, bias=-3.0):
    """Pairs that resemble each other, as a trained model's do: images, texts, t, b."""
    generator = torch.Generator().manual_seed(0)
    images, noise = (F.normalize(torch.randn(batch, dim, generator=generator).double(), dim=-1) for _ in range(2))
    texts = F.normalize(0.4 * images + 0.6 * noise, dim=-1)
    wide = torch.promote_types(dtype, torch.float32)
    return images.to(dtype), texts.to(dtype), torch.tensor(scale, dtype=wide), torch.tensor(bias, dtype=wide)


def formula(name, images, texts, scale, bias):
    """Sections 3.1 and 3.2, entry by entry."""
    total = torch.zeros((), dtype=torch.float64)
    logits = scale * images @ texts.T + (bias if name == "sigmoid" else 0)
    for i in range(len(images)):
        if name == "softmax":
            total = total - torch.log_softmax(logits[i], 0)[i] / 2 - torch.log_softmax(logits[:, i], 0)[i] / 2
        else:
            for j in range(len(images)):
                total = total - F.logsigmoid((1.0 if i == j else -1.0) * logits[i, j])
    return total / len(images)


def value_and_gradients(loss, tensors, rows=slice(None)):
    """Loss and the gradients of images, texts, t and b (0 where there is none)."""
    images, texts, scale, bias = (None if t is None else t.detach().clone().requires_grad_() for t in tensors)
    value = loss(images[rows], texts[rows], scale, bias)
    value.backward()
    missing = torch.zeros(())
    return value.detach(), *(missing if t is None or t.grad is None else t.grad for t in (images, texts, scale, bias))


def relative_error(ours, exact):
    """‖ours − exact‖ / ‖exact‖; absolute where the exact one is 0."""
    difference = torch.linalg.vector_norm(ours.double() - exact.double())
    return (difference / (torch.linalg.vector_norm(exact.double()) or 1)).item()


def assert_near(ours, exact, rounding):
    for name, mine, theirs in zip(("loss", "images", "texts", "scale", "bias"), ours, exact, strict=True):
        assert relative_error(mine, theirs) <= rounding, f"{name}: {relative_error(mine, theirs):.2e}"


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_loss_and_gradients_are_those_of_the_formula_entry_by_entry(name):
    exact = value_and_gradients(lambda *a: formula(name, *a), inputs())
    assert_near(value_and_gradients(make_loss(name), inputs()), exact, 1e-12)
    assert_near(value_and_gradients(PLAIN[name](), inputs()), exact, 1e-12)


@pytest.mark.parametrize("tile", [(1, 1), (5, 7), (8, 12), (24, 24), (100, 3)])
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_tiles_of_any_size_give_the_same(name, tile):
    exact = value_and_gradients(PLAIN[name](), inputs())
    module = {"sigmoid": SigmoidLoss, "softmax": SoftmaxLoss}[name](tile=tile)
    assert_near(value_and_gradients(module, inputs()), exact, 1e-12)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("bias", [-50.0, -10.0, 0.0, 10.0, None])
@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
def test_sigmoid_in_every_dtype_at_every_temperature_and_bias(dtype, scale, bias):
    tensors = inputs(dtype, batch=97, dim=33, scale=scale, bias=bias or 0.0)
    tensors = tensors if bias is not None else (*tensors[:3], None)
    exact = value_and_gradients(PlainSigmoidLoss(), [None if t is None else t.double() for t in tensors])
    ours = value_and_gradients(SigmoidLoss(tile=(32, 41)), tensors)
    assert_near(ours, exact, ROUNDING[dtype])
    assert ours[1].dtype == dtype


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
def test_softmax_in_every_dtype_at_every_temperature(dtype, scale):
    tensors = inputs(dtype, batch=97, dim=33, scale=scale)
    exact = value_and_gradients(PlainSoftmaxLoss(), [t.double() for t in tensors])
    ours = value_and_gradients(SoftmaxLoss(tile=(32, 41)), tensors)
    assert_near(ours, exact, ROUNDING[dtype])


@pytest.mark.parametrize("bias", ["learned", "fixed", "number", None])
def test_a_bias_may_be_learned_fixed_or_absent(bias):
    images, texts, scale, _ = inputs()
    given = {"learned": torch.tensor([-3.0], requires_grad=True), "fixed": torch.tensor(-3.0), "number": -3.0}.get(bias)
    value = SigmoidLoss()(images, texts, scale, given)
    assert value.item() == pytest.approx(formula("sigmoid", images, texts, scale, -3.0 if bias else 0.0).item())
    if bias == "learned":
        value = SigmoidLoss()(images.requires_grad_(), texts, scale, given)
        value.backward()
        assert given.grad.shape == (1,)


def one_rank(name, exchange, ranks, dtype, batch, tile):
    import torch.distributed as dist

    module = {"sigmoid": SigmoidLoss, "softmax": SoftmaxLoss}[name](exchange, tile=tile)
    rank, local = dist.get_rank() if ranks > 1 else 0, batch // ranks
    made = value_and_gradients(module, inputs(dtype, batch), slice(rank * local, (rank + 1) * local))
    return [t.double().numpy() for t in made]


def mean_over_ranks(answers):
    return [sum(torch.from_numpy(answer[i]) for answer in answers) / len(answers) for i in range(5)]


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("exchange", ["ring", "ring-bidirectional", "gather"])
@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_every_exchange_gives_the_gradient_of_the_whole_batch(name, exchange, ranks):
    exact = value_and_gradients(PLAIN[name](), inputs())
    answers = on_ranks(ranks, one_rank, name, exchange, ranks, torch.float64, B, (3, 2))
    assert_near(mean_over_ranks(answers), exact, 1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lower_precision_travels_without_loss(name, dtype):
    """Gradients travel in fp32, so hops add no rounding of their own."""
    exact = value_and_gradients(PLAIN[name](), [t.double() for t in inputs(dtype, 96)])
    answers = on_ranks(4, one_rank, name, "ring", 4, dtype, 96, None)
    assert_near(mean_over_ranks(answers), exact, ROUNDING[dtype])


def test_each_rank_returns_its_own_rows_share_as_open_clip_does():
    answers = on_ranks(3, one_rank, "sigmoid", "ring", 3, torch.float64, B, None)
    images, texts, scale, bias = inputs()
    for rank, answer in enumerate(answers):
        rows = slice(8 * rank, 8 * rank + 8)
        logits = scale * images[rows] @ texts.T + bias
        signs = -torch.ones_like(logits)
        signs.diagonal(8 * rank).fill_(1)
        assert answer[0] == pytest.approx(-F.logsigmoid(signs * logits).sum().item() / 8, rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 40),
    dim=st.integers(1, 20),
    tile=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    scale=st.floats(0.01, 1000),
    bias=st.floats(-50, 10),
    name=st.sampled_from(["sigmoid", "softmax"]),
)
def test_any_shape_and_value_gives_the_plain_formulas_gradient(batch, dim, tile, scale, bias, name):
    tensors = inputs(torch.float64, batch, dim, scale, bias)
    exact = value_and_gradients(PLAIN[name](), tensors)
    module = {"sigmoid": SigmoidLoss, "softmax": SoftmaxLoss}[name](tile=tile)
    for mine, theirs in zip(value_and_gradients(module, tensors), exact, strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-9, atol=1e-12 * max(1, scale))


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_two_calls_give_the_same_bits(name):
    first, second = (value_and_gradients(make_loss(name), inputs(torch.float32, 200, 64)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("exchange", ["ring", "ring-bidirectional", "gather"])
def test_two_calls_on_ranks_give_the_same_bits(exchange):
    first, second = (on_ranks(4, one_rank, "sigmoid", exchange, 4, torch.float32, 96, None) for _ in range(2))
    assert all((a == b).all() for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_sigmoid_gives_open_clips_value_and_gradient():
    from open_clip.loss import SigLipLoss

    assert_near(value_and_gradients(SigmoidLoss(), inputs()), value_and_gradients(SigLipLoss(), inputs()), 1e-12)


def test_softmax_gives_open_clips_value_and_gradient():
    from open_clip.loss import ClipLoss

    theirs = value_and_gradients(lambda i, t, s, b: ClipLoss()(i, t, s), inputs())
    assert_near(value_and_gradients(SoftmaxLoss(), inputs()), theirs, 1e-12)


def test_at_initialisation_the_sigmoid_loss_is_that_of_one_positive_and_many_easy_negatives():
    """b = −10 and t = 10: section 3.2's start; orthogonal pairs cost softplus(10) and (B−1)·softplus(−10)."""
    value = SigmoidLoss()(torch.eye(12)[:6], torch.eye(12)[6:], torch.tensor(10.0), torch.tensor(-10.0))
    assert value.item() == pytest.approx(math.log1p(math.exp(10)) + 5 * math.log1p(math.exp(-10)), rel=1e-6)


def test_output_dict_names_the_loss_as_open_clip_does():
    tensors = inputs()
    loss = SigmoidLoss()
    assert loss(*tensors, output_dict=True) == {"contrastive_loss": loss(*tensors)}


def test_only_the_gradients_asked_for_are_made_and_they_are_the_same():
    images, texts, scale, bias = inputs()
    exact = value_and_gradients(PlainSigmoidLoss(), (images, texts, scale, bias))
    texts, scale = texts.clone().requires_grad_(), scale.clone().requires_grad_()  # a locked image tower
    for loss in (SigmoidLoss(), SoftmaxLoss()):
        texts.grad = scale.grad = None
        loss(images, texts, scale, bias).backward()
        exact = value_and_gradients(PLAIN[type(loss).__name__.removesuffix("Loss").lower()](), (*inputs()[:3], bias))
        assert images.grad is None
        assert relative_error(texts.grad, exact[2]) <= 1e-12
        assert relative_error(scale.grad, exact[3]) <= 1e-12


def test_a_retained_graph_gives_the_gradient_again():
    images, texts, scale, bias = inputs()
    images.requires_grad_()
    value = SigmoidLoss()(images, texts, scale, bias)
    value.backward(retain_graph=True)
    once = images.grad.clone()
    (3 * value).backward()
    torch.testing.assert_close(images.grad, 4 * once)


def test_double_backward_is_refused_with_the_reason():
    images, texts, scale, bias = inputs()
    value = SigmoidLoss()(images.requires_grad_(), texts, scale, bias)
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice.*repro.loss.plain"):
        torch.autograd.grad(value, images, create_graph=True)


def test_under_autocast_the_products_run_in_its_dtype():
    tensors = inputs(torch.float32, 96, 32)
    exact = value_and_gradients(PlainSigmoidLoss(), [t.double() for t in tensors])
    with torch.autocast("cpu", torch.bfloat16):
        ours = value_and_gradients(SigmoidLoss(), tensors)
    assert 1e-5 < relative_error(ours[1], exact[1]) < 2**-7
    assert ours[1].dtype == torch.float32


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_fp32_keeps_six_digits_at_the_sizes_people_train(name):
    """At d = 512 long sums round; positives have the largest logits, and most of the gradient hangs on them."""
    tensors = inputs(torch.float32, batch=1024, dim=512, scale=10.0, bias=-10.0)
    exact = value_and_gradients(PLAIN[name](), [t.double() for t in tensors])
    assert_near(value_and_gradients(make_loss(name), tensors), exact, 1e-6)
