"""A step of training on the device against the plain formula in float64, whole and in micro-batches; evaluation."""

import copy

import pytest
import torch
import torch.nn.functional as F

from repro.evaluate import evaluate
from repro.loss.plain import PlainSigmoidLoss, PlainSoftmaxLoss
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.loop import Options, train
from repro.train.trainer import Trainer

pytestmark = pytest.mark.gpu

PLAIN = {"sigmoid": PlainSigmoidLoss, "softmax": PlainSoftmaxLoss}
BATCH = 64


@pytest.fixture
def trainer(make_spec, tmp_path, device):
    """trainer(loss=…, micro_batch=…) → a Trainer on the device before its first step; the same weights each time."""

    def make(**values):
        directory = RunDirectory(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        bias = {} if values.get("loss") == "softmax" else {"init_logit_bias": -4.0}
        spec = make_spec(batch_size=BATCH, **bias, **values)
        return Trainer(spec, directory, device, Checkpoints(directory.checkpoints))

    return make


def gradients_after_a_step(trainer):
    trainer.take_step(trainer.pairs[range(BATCH)], 0.0)
    return {name: p.grad.cpu().double() for name, p in trainer.model.named_parameters()}, trainer.last_loss


def gradients_of_the_formula(trainer):
    """The same weights and pairs in float64 on the CPU, in one piece, by autograd."""
    model = copy.deepcopy(trainer.model).cpu().double()
    batch = trainer.pairs[range(BATCH)]
    images = trainer.towers.normalize(batch.images).cpu().double()
    image_features, text_features = model.encode_image(images), model.encode_text(batch.tokens.cpu())
    features = (F.normalize(each, dim=-1) for each in (image_features, text_features))
    scalars = (model.logit_scale.exp(), getattr(model, "logit_bias", None))
    value = PLAIN[trainer.spec.loss]()(*features, *scalars)
    value.backward()
    return {name: p.grad for name, p in model.named_parameters()}, value.item()


def off_by(mine, exact):
    """The relative error of all gradients as one vector."""
    square = {name: (mine[name] - exact[name]).square().sum().item() for name in exact}
    return (sum(square.values()) / sum(g.square().sum().item() for g in exact.values())) ** 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_a_step_has_the_gradient_of_the_formula_in_float64(trainer, loss, precision):
    one = trainer(loss=loss, precision=precision)
    exact, value = gradients_of_the_formula(one)
    found, found_value = gradients_after_a_step(one)
    assert found_value == pytest.approx(value, rel={"fp32": 1e-5, "bf16": 1e-2}[precision])
    assert off_by(found, exact) < {"fp32": 1e-4, "bf16": 5e-2}[precision]


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_micro_batches_have_the_gradient_of_the_whole_batch(trainer, loss):
    whole, _ = gradients_after_a_step(trainer(loss=loss))
    parts, _ = gradients_after_a_step(trainer(loss=loss, micro_batch=16))
    assert off_by(parts, whole) < 1e-4


def test_evaluation_gives_the_metrics_of_the_cpu_to_rounding(make_spec, world, tmp_path, device):
    """Of a model that has learnt something: one without weights of its own ranks everything alike."""
    examples = 65_536 if device.type == "cuda" else 4096
    spec = make_spec(examples_seen=examples, batch_size=256, init_logit_bias=-5.0)
    directory = RunDirectory(tmp_path / "run")
    train(spec, directory, device, Options())
    on_device, on_cpu = (
        evaluate(directory.checkpoints, list(world.evals), tmp_path / each.type, each, redo=True)
        for each in (device, torch.device("cpu"))
    )
    assert on_device.keys() == on_cpu.keys() and len(on_cpu) == 9
    for name, value in on_cpu.items():
        assert on_device[name] == pytest.approx(value, abs=0.02), name
    if device.type == "cuda":  # on a CPU both are the same
        assert on_cpu["wds_shapes_objects/acc5"] > 0.2
