"""Decay where it belongs, in the paper's units, and a schedule counted in examples."""

import pytest
import torch

from repro.train.optim import lock_towers, make_optimizer, schedule, set_learning_rate

PEAK, SHARE = 0.1, 0.5


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
    assert {id(p) for p in decayed["params"]} == {id(model.linear.weight)}
    assert kept["weight_decay"] == 0
    assert len(kept["params"]) == 6
    decayed, _ = make_optimizer(model, make_spec(decay_on="matrices")).param_groups
    assert {id(p) for p in decayed["params"]} == {id(model.linear.weight), id(model.table.weight)}


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion"])
def test_without_a_gradient_a_weight_loses_the_share_that_the_spec_says(make_spec, optimizer):
    model = Model()
    before = model.linear.weight.detach().clone()
    made = make_optimizer(model, make_spec(optimizer=optimizer, weight_decay=0.01, learning_rate=0.1))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    made.step()
    torch.testing.assert_close(model.linear.weight.detach(), before * 0.99)


class Towers(torch.nn.Module):
    """Named as open_clip names them: visual is the image tower, the rest the text tower, t and b neither."""

    def __init__(self):
        super().__init__()
        self.visual, self.transformer = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)
        self.logit_scale = torch.nn.Parameter(torch.zeros(()))


def first_update(optimizer: str, gradient: torch.Tensor, spec) -> torch.Tensor:
    """Of one step from nothing, at learning rate 1, by hand."""
    if optimizer == "adamw":  # both moments are unbiased: g / (|g| + ε)
        return gradient / (gradient.abs() + spec.epsilon)
    if optimizer == "lion":
        return gradient.sign()
    square = gradient.double() ** 2  # Adafactor: rows and columns of the second moment
    rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
    update = gradient / (rows / rows.mean()).sqrt() / columns.sqrt()
    return (1 - spec.beta1) * update


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion"])
def test_a_step_by_hand_a_multiplier_scales_the_update_of_its_tower_and_not_its_decay(make_spec, optimizer):
    """As big_vision chains them: update × lr × multiplier, plus decay × weight, all × the schedule."""
    torch.manual_seed(0)
    model = Towers()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    decays = {"weight_decay": 0.01, "image_weight_decay": 0.03}
    rates = {"learning_rate": PEAK, "image_learning_rate_multiplier": 0.1}
    spec = make_spec(optimizer=optimizer, **decays, **rates)
    made = make_optimizer(model, spec)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    set_learning_rate(made, PEAK * SHARE)
    made.step()
    for tower, multiplier, decay in (("visual", 0.1, 0.03), ("transformer", 1.0, 0.01)):
        weight = getattr(model, tower).weight
        update = PEAK * multiplier * first_update(optimizer, weight.grad, spec)
        expected = before[f"{tower}.weight"] * (1 - SHARE * decay) - SHARE * update
        tolerance = {"rtol": 0, "atol": 1e-4 if optimizer == "adafactor" else 1e-6}  # its momentum is in bf16
        torch.testing.assert_close(weight.detach(), expected.float(), **tolerance)


def test_towers_of_the_same_multiplier_and_decay_share_their_groups(make_spec):
    assert [group["multiplier"] for group in make_optimizer(Towers(), make_spec()).param_groups] == [1, 1]
    spec = make_spec(image_learning_rate_multiplier=0.1, image_weight_decay=0, weight_decay=0.01, learning_rate=0.1)
    groups = [(g["multiplier"], g["weight_decay"]) for g in make_optimizer(Towers(), spec).param_groups]
    assert groups == [(0.1, 0), (1, pytest.approx(0.1)), (1, 0)]


def test_a_locked_tower_has_no_gradient_and_no_optimizer_state(make_spec):
    model, spec = Towers(), make_spec(image_learning_rate_multiplier=0)
    assert lock_towers(model, spec) == {"image": True, "text": False}
    assert not model.visual.training and model.transformer.training
    trained = {id(p) for group in make_optimizer(model, spec).param_groups for p in group["params"]}
    assert trained == {id(model.transformer.weight), id(model.transformer.bias), id(model.logit_scale)}
    assert not any(p.requires_grad for p in model.visual.parameters())


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
