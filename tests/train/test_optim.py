"""Decay where it belongs, in the paper's units, and a schedule counted in examples."""

import pytest
import torch

from repro.train.optim import make_optimizer, schedule


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(32, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.table = torch.nn.Embedding(3, 32)
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))
        self.logit_bias = torch.nn.Parameter(torch.zeros(()))


def test_gains_biases_t_and_b_do_not_decay(make_spec):
    model = Model()
    decayed, kept = make_optimizer(model, make_spec()).param_groups
    assert {id(p) for p in decayed["params"]} == {id(model.linear.weight), id(model.table.weight)}
    assert kept["weight_decay"] == 0
    assert len(kept["params"]) == 5


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_without_a_gradient_a_weight_loses_the_share_that_the_spec_says(make_spec, optimizer):
    model = Model()
    before = model.linear.weight.detach().clone()
    made = make_optimizer(model, make_spec(optimizer=optimizer, weight_decay=0.01, learning_rate=0.1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    made.step()
    torch.testing.assert_close(model.linear.weight.detach(), before * 0.99)


def test_the_schedule_warms_up_linearly_and_falls_to_zero(make_spec):
    spec = make_spec(batch_size=64, examples_seen=6400, warmup_examples=640)
    shares = [schedule(spec, 64 * step) for step in range(spec.steps)]
    assert shares[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(shares) == shares[10] == 1
    assert shares[55] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.001
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_the_schedule_is_the_same_function_of_examples_at_every_batch_size(make_spec):
    small, large = (make_spec(batch_size=b, examples_seen=6400, warmup_examples=640) for b in (64, 128))
    for seen in range(1280, 6400, 128):
        assert schedule(small, seen) == pytest.approx(schedule(large, seen), abs=0.02)


def test_a_linear_schedule_is_half_way_at_half_time(make_spec):
    spec = make_spec(batch_size=64, examples_seen=6400, warmup_examples=0, schedule="linear")
    assert schedule(spec, 3200) == pytest.approx(0.5)
