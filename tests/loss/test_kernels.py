"""The Triton kernels against the formulas in float64: on the GPU where there is one, else in Triton's interpreter.

The interpreter has to be chosen before Triton is first imported, hence in a process of its own.
"""

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F

GPU = torch.cuda.is_available()
FLOAT32 = {"gradient_dtype": torch.float32}
HALF = [torch.bfloat16, torch.float16]

pytestmark = pytest.mark.gpu

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(scope="module")
def there():
    """there(function, *arguments): its answer, where Triton runs."""
    if GPU:
        yield lambda function, *arguments, **options: function(*arguments, **options)
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=interpret) as process:
        yield lambda *arguments, **options: process.submit(*arguments, **options).result()


@pytest.fixture
def kernel(there):
    """kernel(name, *arguments) → its answers, then the gradient it wrote if `gradient_dtype` is given."""
    return partial(there, run)


def interpret():
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)


def run(name, images, texts, *arguments, gradient_dtype=None, row_stride=None):
    from repro.loss import kernels

    device = torch.device("cuda" if GPU else "cpu")
    assert kernels.available(device)
    sizes = len(images), len(texts)
    if gradient_dtype:
        stride = row_stride or sizes[1]
        buffer = torch.empty((sizes[0] - 1) * stride + sizes[1], dtype=gradient_dtype, device=device)
        gradient = buffer.as_strided(sizes, (stride, 1)).fill_(math.nan)
        arguments = (*arguments, gradient)
    inputs = (x.to(device) if isinstance(x, torch.Tensor) else x for x in (images, texts, *arguments))
    answers = getattr(kernels, name)(*inputs)
    answers = (answers,) if isinstance(answers, torch.Tensor) else answers
    return [x.cpu() for x in (*answers, *((gradient.contiguous(),) if gradient_dtype else ()))]


def embeddings(m, n, d, offset=0, dtype=torch.float32):
    """Normalised images [m, d] and texts [n, d]; text i + offset is close to image i, the nearer the smaller i."""
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(size, d, generator=generator) for size in (m, n))
    for i in range(max(0, -offset), min(m, n - offset)):
        texts[i + offset] = images[i] + texts[i + offset] * i / m
    return F.normalize(images, dim=-1).to(dtype), F.normalize(texts, dim=-1).to(dtype)


def positives(m, n, offset):
    return torch.arange(n) == torch.arange(m)[:, None] + offset


def tolerance(t, b=0.0):
    """What is off in a logit is a relative error in its exponential: a few roundings of the product, in units of t,
    and one of the bias. A GPU adds up a product term by term, the interpreter several at a time."""
    return 1e-6 + (2**-21 if GPU else 2**-22) * t + 2**-24 * abs(b)


def assert_close(mine, exact, relative, size=None, floor=1e-37):
    """|mine − exact| ≤ relative·size, where size is |exact| unless terms cancel; below the dtype's range, anything."""
    assert not mine.isnan().any()
    error = (mine.double() - exact).abs() - floor
    assert (error <= relative * (exact.abs() if size is None else size)).all(), f"off by {error.max():.2e}"


def rounding(dtype):
    """Of one stored gradient, relative. The interpreter cuts bfloat16 off where a GPU rounds to nearest."""
    return {torch.float32: 0, torch.bfloat16: 2**-8 if GPU else 2**-7, torch.float16: 2**-11}[dtype]


def assert_gradient(mine, exact, relative, size=None):
    """As assert_close; float16 holds 2¹⁴ times the gradient, whose least digit is then 2⁻³⁹."""
    in_half = mine.dtype == torch.float16
    mine = mine.double() / (2**14 if in_half else 1)
    assert_close(mine, exact, relative, size, floor=2**-39 if in_half else 1e-37)


def check_scale_sum(mine, gradient, images, texts, relative):
    terms = gradient * (images.double() @ texts.double().T)
    assert_close(mine, terms.sum(), relative, size=terms.abs().sum() + gradient.abs().sum() / 16)


def check_sigmoid(kernel, m, n, d, offset, t, b, dtype=torch.float32, gradient_dtype=torch.float32, row_stride=None):
    images, texts = embeddings(m, n, d, offset, dtype)
    scalars = torch.tensor(t), torch.tensor([b])  # 0-dim or one element, either will do
    options = {"gradient_dtype": gradient_dtype, "row_stride": row_stride}
    loss_sum, gradient_sum, scale_sum, gradient = kernel("sigmoid_tile", images, texts, *scalars, offset, **options)
    positive = positives(m, n, offset)
    against = torch.where(positive, -1, 1) * (t * images.double() @ texts.double().T + b)  # −z·l
    exact = torch.where(positive, -1, 1) * against.sigmoid()
    assert all(value.dtype == torch.float64 and value.shape == () for value in (loss_sum, gradient_sum, scale_sum))
    softplus = against.clamp(min=0) + (-against.abs()).exp().log1p()
    assert_close(loss_sum, softplus.sum(), tolerance(t, b))
    assert_close(gradient_sum, exact.sum(), tolerance(t, b), exact.abs().sum())
    check_scale_sum(scale_sum, exact, images, texts, tolerance(t, b))
    assert_gradient(gradient, exact, tolerance(t, b) + rounding(gradient_dtype))


@needs_triton
@pytest.mark.parametrize("b", [-50.0, -10.0, 0.0, 10.0])
@pytest.mark.parametrize("t", [1.0, 10.0, 100.0, 1000.0])
def test_sigmoid_tile_gives_loss_and_gradient_of_the_plain_formula(kernel, t, b):
    check_sigmoid(kernel, 40, 70, 48, offset=3, t=t, b=b)


@needs_triton
@pytest.mark.parametrize("sizes", [(64, 64, 64), (33, 31, 64), (1, 1, 1), (300, 70, 7), (5, 40, 100)])
def test_sigmoid_tile_takes_any_sizes(kernel, sizes):
    check_sigmoid(kernel, *sizes, offset=0, t=10.0, b=-10.0)


@needs_triton
@pytest.mark.parametrize("offset", [0, 5, -7, 44, -39, 45, -40, 10**12, -(10**12)])
def test_positives_lie_where_the_column_is_the_row_plus_the_offset(kernel, offset):
    check_sigmoid(kernel, 40, 45, 32, offset=offset, t=10.0, b=-10.0)


@needs_triton
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("t", "b"), [(10.0, -10.0), (100.0, 0.0), (1000.0, -50.0)])
def test_half_precision_embeddings_give_a_gradient_like_them_and_sums_as_exact_as_float32(kernel, dtype, t, b):
    check_sigmoid(kernel, 40, 70, 48, offset=-2, t=t, b=b, dtype=dtype, gradient_dtype=dtype)


@needs_triton
def test_a_float16_gradient_keeps_the_digits_of_tiny_probabilities(kernel):
    """σ(−14) = 8.3e-7, a negative's at a batch of a million, is below what float16 holds with all digits."""
    check_sigmoid(kernel, 40, 70, 48, offset=10**6, t=1e-3, b=-14.0, dtype=torch.float16, gradient_dtype=torch.float16)


@needs_triton
@pytest.mark.parametrize("offset", [0, 1])
def test_loss_and_gradient_keep_their_digits_however_small(kernel, offset):
    """One pair, positive or negative, with a logit that is exact in float32: softplus(l) − l would be 0 from l = 17
    on, and so would 1 − σ(l) and log(1 + exp(−l))."""
    one = torch.ones(1, 1)
    for logit in (-80.0, -40.0, -17.25, -10.0, -4.0, -1.0, -0.125, 0.0, 0.5, 2.0, 6.5, 18.0, 35.0, 80.0):
        loss, *_, gradient = kernel(
            "sigmoid_tile", one, one, torch.tensor(100.0), torch.tensor(logit - 100), offset, **FLOAT32
        )
        sign = 1 if offset else -1
        against = torch.tensor(sign * logit, dtype=torch.float64)
        assert_close(loss, against.clamp(min=0) + (-against.abs()).exp().log1p(), 1e-6 + 2**-24 * abs(logit))
        assert_close(gradient, sign * against.sigmoid(), 1e-6 + 2**-24 * abs(logit))


@needs_triton
def test_the_gradient_may_be_a_view_of_a_larger_buffer(kernel):
    check_sigmoid(kernel, 40, 70, 48, offset=0, t=10.0, b=-10.0, row_stride=101)


@needs_triton
def test_embeddings_may_be_views(kernel):
    images, texts = embeddings(40, 70, 48)
    scalars = torch.tensor(10.0), torch.tensor(-10.0), 0
    wide, across = torch.cat([images, images], dim=1)[:, :48], texts.T.contiguous().T
    expected = kernel("sigmoid_tile", images, texts, *scalars, **FLOAT32)
    for mine, theirs in zip(kernel("sigmoid_tile", wide, across, *scalars, **FLOAT32), expected, strict=True):
        assert torch.equal(mine, theirs)


@needs_triton
def test_the_gradient_may_reach_past_two_to_the_thirty_one(kernel):
    check_sigmoid(kernel, 3, 4, 8, offset=0, t=10.0, b=-10.0, gradient_dtype=torch.bfloat16, row_stride=2**30 + 1)


@needs_triton
def test_a_gradient_of_another_shape_is_refused(kernel):
    with pytest.raises(ValueError, match=r"expected \[3, 1\]"):
        kernel("sigmoid_tile", *embeddings(3, 1, 2), torch.ones(()), torch.ones(()), 0, torch.empty(1, 3))


def check_sums(kernel, m, n, d, t, dtype=torch.float32):
    images, texts = embeddings(m, n, d, dtype=dtype)
    answers = kernel("softmax_sums_tile", images, texts, torch.tensor(t), torch.tensor(t))
    weights = (t * images.double() @ texts.double().T - t).exp()
    for mine, dim in zip(answers, (1, 0), strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, weights.sum(dim), tolerance(t, t))


def check_lse(kernel, m, n, d, t, dtype=torch.float32):
    images, texts = embeddings(m, n, d, dtype=dtype)
    answers = kernel("softmax_lse_tile", images, texts, torch.tensor(t))
    logits = t * images.double() @ texts.double().T
    for mine, dim in zip(answers, (1, 0), strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, logits.logsumexp(dim), tolerance(t), size=1)


def check_softmax_gradient(kernel, m, n, d, offset, t, dtype=torch.float32, gradient_dtype=torch.float32):
    images, texts = embeddings(m, n, d, offset, dtype)
    logits = t * images.double() @ texts.double().T
    row_lse, column_lse = (logits.logsumexp(dim).float() + 0.5 for dim in (1, 0))  # of a larger batch than this tile
    inputs = images, texts, torch.tensor(t), row_lse, column_lse, offset
    scale_sum, gradient = kernel("softmax_gradient_tile", *inputs, gradient_dtype=gradient_dtype)
    weights = (logits - row_lse.double()[:, None]).exp() + (logits - column_lse.double()).exp()
    positive = 2 * positives(m, n, offset)
    relative = 2 * tolerance(t) + rounding(gradient_dtype)
    assert_gradient(gradient, weights - positive, relative, size=weights + positive)
    check_scale_sum(scale_sum, weights - positive, images, texts, 4 * tolerance(t))


SIZES = [(64, 64, 64), (33, 31, 48), (1, 1, 1), (5, 100, 40), (100, 5, 7)]


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("sizes", SIZES)
def test_softmax_sums_are_those_of_the_plain_formula(kernel, sizes, dtype):
    check_sums(kernel, *sizes, t=10.0, dtype=dtype)


@needs_triton
@pytest.mark.parametrize("t", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_softmax_lse_is_that_of_the_plain_formula_for_any_scale(kernel, sizes, t):
    check_lse(kernel, *sizes, t=t)


@needs_triton
@pytest.mark.parametrize("t", [1.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("offset", [0, 5, -7, 1000])
def test_softmax_gradient_is_that_of_the_plain_formula(kernel, offset, t):
    check_softmax_gradient(kernel, 40, 70, 48, offset, t)


@needs_triton
@pytest.mark.parametrize("dtype", HALF)
def test_softmax_takes_half_precision(kernel, dtype):
    check_lse(kernel, 40, 70, 48, t=100.0, dtype=dtype)
    check_softmax_gradient(kernel, 40, 70, 48, offset=1, t=100.0, dtype=dtype, gradient_dtype=dtype)


@needs_triton
def test_sums_of_tiles_combine_to_those_of_the_whole(kernel):
    images, texts = embeddings(50, 60, 16)
    t = torch.tensor(30.0)
    whole, _ = kernel("softmax_lse_tile", images, texts, t)
    left, right = (kernel("softmax_lse_tile", images, part, t)[0] for part in texts.split([25, 35]))
    torch.testing.assert_close(torch.logaddexp(left, right), whole)


@needs_triton
def test_the_same_bits_come_out_twice(kernel):
    images, texts = embeddings(100, 130, 40)
    t, lse = torch.tensor(10.0), (torch.ones(100), torch.ones(130))
    for name, arguments, options in [
        ("sigmoid_tile", (t, -t, 0), FLOAT32),
        ("softmax_sums_tile", (t, t), {}),
        ("softmax_lse_tile", (t,), {}),
        ("softmax_gradient_tile", (t, *lse, 0), FLOAT32),
    ]:
        once, again = (kernel(name, images, texts, *arguments, **options) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@needs_triton
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "bf16") for name in ("_sigmoid", "_softmax_sums", "_softmax_lse", "_softmax_gradient")]
    + [("_sigmoid", "fp32")],
)
def test_the_kernels_compile_for_hopper_and_bfloat16_for_its_tensor_cores(name, dtype, tmp_path, monkeypatch):
    """Which takes the compiler, but no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget

    from repro.loss import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function, blocks = getattr(kernels, f"{name}_kernel"), kernels.CANDIDATES[0 if dtype == "bf16" else -1]
    types = dict.fromkeys(("images", "texts", "gradient"), f"*{dtype}")
    types |= dict.fromkeys(("image_stride", "text_stride", "m", "n", "d", "offset", "gradient_stride"), "i32")
    types |= dict.fromkeys(("ROWS", "COLUMNS", "DEPTH"), "constexpr")
    signature = {argument: types.get(argument, "*fp32") for argument in function.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, argument in enumerate(signature) if argument[0].islower()}
    constants = {"ROWS": blocks.rows, "COLUMNS": blocks.columns, "DEPTH": blocks.depth}
    source = triton.compiler.ASTSource(function, signature, constants, aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages, "enable_fp_fusion": False}
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    assert ("wgmma.mma_async" in code) == (dtype == "bf16") and "cp.async" in code


def test_without_a_gpu_and_without_the_interpreter_the_kernels_are_not_available():
    from repro.loss import kernels

    assert not kernels.available(torch.device("cpu"))


def test_the_module_can_be_imported_where_triton_is_not_installed(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from repro.loss import kernels\n"
        "print(kernels.available(torch.device('cuda')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def whole_loss(name, dtype, scale, tile):
    """Errors of our loss and its gradients, made by the kernels, relative to the plain formula's in float64."""
    from repro.loss import SigmoidLoss, SoftmaxLoss, kernels
    from repro.loss.plain import PlainSigmoidLoss, PlainSoftmaxLoss
    from tests.loss.test_losses import inputs, relative_error, value_and_gradients

    device = torch.device("cuda" if GPU else "cpu")
    ours, plain = {"sigmoid": (SigmoidLoss, PlainSigmoidLoss), "softmax": (SoftmaxLoss, PlainSoftmaxLoss)}[name]
    tensors = [t.to(device) for t in inputs(dtype, batch=97, dim=33, scale=scale, bias=-10.0)]
    assert kernels.serve(tensors[0], torch.float32)
    exact = value_and_gradients(plain(), [t.double() for t in tensors])
    pairs = zip(value_and_gradients(ours(tile=tile), tensors), exact, strict=True)
    return [relative_error(mine.cpu(), theirs.cpu()) for mine, theirs in pairs]


@needs_triton
@pytest.mark.parametrize("tile", [None, (40, 64)])
@pytest.mark.parametrize("scale", [10.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_the_losses_made_by_the_kernels_are_the_plain_formulas(there, name, dtype, scale, tile):
    errors = there(whole_loss, name, dtype, scale, tile)
    assert max(errors) <= {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype], errors
