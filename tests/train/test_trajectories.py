"""Our optimizers beside the authors' own code (big_vision's optax.py), step by step.

optimizer_reference.json holds what their code did to a small tree of parameters in JAX: how it was made stands in it.
Dense kernels are transposed in torch, which changes no factor of Adafactor's. Attention kernels are the exception, and
not among them: flax has [width, heads, head width], of which optax factors the two largest, torch one matrix.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.train.optim import make_optimizer, schedule, set_learning_rate

REFERENCE = json.loads((Path(__file__).parent / "optimizer_reference.json").read_text())
SHAPES = REFERENCE["shapes"]


class Tree(torch.nn.Module):
    """The reference's parameters as layers of torch."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Linear(64, 48, bias=False)
        self.dense = torch.nn.Linear(48, 96)
        self.pos_embedding = torch.nn.Parameter(torch.empty(1, 16, 48))
        self.narrow = torch.nn.Linear(16, 40, bias=False)
        self.token_embedding = torch.nn.Embedding(80, 48)
        self.logit_scale = torch.nn.Parameter(torch.empty(1))
        self.logit_bias = torch.nn.Parameter(torch.empty(1))
        self.named = {
            "img/embedding/kernel": self.embedding.weight,
            "img/Dense_0/kernel": self.dense.weight,
            "img/Dense_0/bias": self.dense.bias,
            "img/pos_embedding": self.pos_embedding,
            "img/narrow/kernel": self.narrow.weight,
            "txt/Embed_0/embedding": self.token_embedding.weight,
            "t": self.logit_scale,
            "b": self.logit_bias,
        }


def as_in_torch(name: str, values: np.ndarray) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor.T if name.endswith("kernel") else tensor


@torch.no_grad()
def trajectory(spec) -> tuple[list[dict[str, tuple[float, float]]], Tree]:
    """Sum and norm of every parameter after each step, as train/trainer.py takes it; and the tree in the end."""
    numbers = np.random.default_rng(7)
    tree = Tree()
    optimizer = make_optimizer(tree, spec)
    for name, shape in SHAPES.items():
        tree.named[name].copy_(as_in_torch(name, numbers.standard_normal(shape)))
    found = []
    for step in range(REFERENCE["steps"]):
        scale = 10.0 if step % 8 == 3 else 0.01
        for name, shape in SHAPES.items():
            gradient = as_in_torch(name, numbers.standard_normal(shape).astype(np.float32) * np.float32(scale))
            tree.named[name].grad = gradient.contiguous()
        set_learning_rate(optimizer, spec.learning_rate * schedule(spec, step * spec.batch_size))
        if spec.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(tree.parameters(), spec.grad_clip)
        optimizer.step()
        found.append({name: (p.double().sum().item(), p.double().norm().item()) for name, p in tree.named.items()})
    return found, tree


RUNS = {
    "adafactor": ({"optimizer": "adafactor"}, 1e-2),
    "adafactor, fp32 momentum": ({"optimizer": "adafactor", "momentum_precision": "fp32"}, 1e-5),
    "adafactor, gradient clipped to 1": (
        {"optimizer": "adafactor", "momentum_precision": "fp32", "grad_clip": 1.0},
        1e-5,
    ),
    "adam": ({"optimizer": "adamw"}, 1e-5),
    "adam, gradient clipped to 1": ({"optimizer": "adamw", "grad_clip": 1.0}, 1e-5),
}


@pytest.mark.parametrize("run", RUNS)
def test_an_optimizer_follows_the_authors_step_by_step(make_spec, run):
    fields, tolerance = RUNS[run]
    paper = {"learning_rate": 1e-3, "weight_decay": 1e-4, "schedule_at": "start", "batch_size": 64}
    steps = {"examples_seen": 64 * REFERENCE["steps"], "warmup_examples": 64 * REFERENCE["warmup_steps"]}
    found, tree = trajectory(make_spec(**paper, **steps, **fields))
    wanted = REFERENCE["runs"][run]
    for mine, theirs in zip(found, wanted["after_each_step"], strict=True):
        for name, (total, norm) in theirs.items():
            assert mine[name][1] == pytest.approx(norm, rel=tolerance), name
            assert mine[name][0] == pytest.approx(total, abs=tolerance * norm), name  # a sum may be nearly 0
    for name, row in wanted["last_row"].items():
        parameter = tree.named[name].detach()
        parameter = parameter.T if name.endswith("kernel") else parameter
        torch.testing.assert_close(parameter.flatten()[: len(row)], torch.tensor(row), rtol=tolerance, atol=tolerance)


def test_the_reference_is_all_compared():
    assert RUNS.keys() == REFERENCE["runs"].keys()
