"""How a step's time divides, in the result of a run: what is slow shows in its part, and in no other."""

import threading
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist

from repro.config.errors import Interrupted
from repro.loss.exchange import measure_waiting
from repro.train import loop
from repro.train.distributed import average_gradients
from repro.train.loop import Options
from repro.train.meters import Clock
from repro.train.optim import make_optimizer
from repro.train.state import to_host
from repro.train.trainer import Trainer
from tests.ranks import on_ranks
from tests.train.runs import StopAfter, trained

NAMES = [f"{part}_seconds" for part in ("data", "towers", "loss", "exchange", "optimizer", "other")]
SLOW = 5.0
"""Seconds, of a clock that hardly moves otherwise."""
LATE = 0.3
"""Seconds that one rank is really late: far more than a step on eight examples takes."""


@pytest.fixture
def small(make_spec):
    return lambda **values: make_spec(**{"batch_size": 8, "examples_seen": 48, "micro_batch": 8} | values)


def slower(function, sleep):
    def slow(*arguments, **options):
        sleep()
        return function(*arguments, **options)

    return slow


def slow_data(monkeypatch, sleep):
    def slow_batches(*arguments, of=loop.batches, **options):
        for batch in of(*arguments, **options):
            sleep()
            yield batch

    monkeypatch.setattr(loop, "batches", slow_batches)


def slow_optimizer(monkeypatch, sleep):
    def make(*arguments):
        optimizer = make_optimizer(*arguments)
        optimizer.step = slower(optimizer.step, sleep)
        return optimizer

    monkeypatch.setattr("repro.train.trainer.make_optimizer", make)


def slow_method(name):
    return lambda monkeypatch, sleep: monkeypatch.setattr(Trainer, name, slower(getattr(Trainer, name), sleep))


@pytest.mark.parametrize(
    ("part", "slow_down"),
    [
        ("data", slow_data),
        ("towers", slow_method("embed_texts")),
        ("loss", slow_method("loss_of")),
        ("optimizer", slow_optimizer),
        ("other", slow_method("_measure_before")),
    ],
)
def test_what_is_slow_shows_in_its_part_and_in_no_other(small, tmp_path, monkeypatch, clock, part, slow_down):
    slow_down(monkeypatch, partial(clock.sleep, SLOW))
    _, result = trained(small(), tmp_path / "a")
    expected = dict.fromkeys(NAMES, 0) | {f"{part}_seconds": SLOW}
    assert {name: result[name] for name in NAMES} == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    "change", [{}, {"micro_batch": 4}, {"threads": 2}, {"negatives": "hard", "negatives_share": 0.5}]
)
def test_the_parts_are_all_of_a_step(small, tmp_path, change):
    _, result = trained(small(**change), tmp_path / "a")
    parts = {name: result[name] for name in NAMES}
    assert sum(parts.values()) == pytest.approx(result["step_seconds"], rel=1e-9)
    assert parts.pop("exchange_seconds") == 0
    assert min(parts.values()) > 0


def test_towers_side_by_side_count_once(small, tmp_path, monkeypatch, clock):
    both_are_here = threading.Barrier(2, action=partial(clock.sleep, SLOW), timeout=60)
    for name in ("embed_texts", "embed_images"):
        slow_method(name)(monkeypatch, both_are_here.wait)
    _, result = trained(small(threads=2), tmp_path / "a")
    assert result["towers_seconds"] == pytest.approx(SLOW, abs=0.1)


def test_a_checkpoint_is_in_no_part(small, tmp_path, monkeypatch, clock):
    monkeypatch.setattr("repro.train.trainer.to_host", slower(to_host, partial(clock.sleep, SLOW)))
    _, result = trained(small(), tmp_path / "a", Options(checkpoint_seconds=0))
    assert result["checkpoint_share"] > 0.9
    assert sum(result[name] for name in NAMES) == pytest.approx(result["step_seconds"], rel=1e-9)
    assert max(result[name] for name in NAMES) < 0.1


def test_the_split_goes_on_over_a_resume(small, tmp_path, monkeypatch, clock):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        slow_method("loss_of")(patch, partial(clock.sleep, SLOW))
        trained(small(), tmp_path / "a", stop=StopAfter(3))
    _, result = trained(small(), tmp_path / "a")
    # Of two steps, and two more: the first after a start is not counted.
    assert result["loss_seconds"] == pytest.approx(SLOW / 2, abs=0.1)
    assert sum(result[name] for name in NAMES) == pytest.approx(result["step_seconds"], rel=1e-9)


def test_after_a_checkpoint_of_a_version_without_the_split_it_is_not_known(small, tmp_path, monkeypatch):
    def as_it_was(clock, of=Clock.state):
        return {key: value for key, value in of(clock).items() if key != "parts_seconds"}

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Clock, "state", as_it_was)
        trained(small(), tmp_path / "a", stop=StopAfter(3))
    directory, result = trained(small(), tmp_path / "a")
    assert result["step_seconds"] > result["data_seconds"] > 0
    assert {result[name] for name in NAMES if name != "data_seconds"} == {None}
    assert directory.read_trained() == result


def train_with_a_late_rank(spec, path):
    if dist.get_rank() == 1:
        Trainer.embed_texts = slower(Trainer.embed_texts, partial(time.sleep, LATE))
    return trained(spec, path)[1]


def test_a_rank_that_comes_late_shows_in_its_own_towers_and_in_the_exchange_of_the_other(small, tmp_path):
    punctual, late = on_ranks(2, train_with_a_late_rank, small(), tmp_path / "a")
    assert late["towers_seconds"] >= LATE
    assert punctual["exchange_seconds"] > late["exchange_seconds"] > 0


def averaged_with_a_late_rank():
    clock, weight = Clock(), torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    clock.tick(1, 0.0)
    time.sleep(LATE * dist.get_rank())
    with measure_waiting(partial(clock.during, "exchange")):
        average_gradients([weight])
    clock.tick(1, 0.0)
    return clock.split()["exchange_seconds"]


def test_averaging_gradients_is_exchange():
    punctual, late = on_ranks(2, averaged_with_a_late_rank)
    assert punctual > late > 0
