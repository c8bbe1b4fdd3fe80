"""What a run says of itself is what one would compute by hand."""

import time

import pytest
import torch
import torch.nn.functional as F

from repro.train.meters import Clock, mean_logits, norm
from tests.ranks import on_ranks


def features():
    generator = torch.Generator().manual_seed(0)
    return [F.normalize(torch.randn(8, 5, generator=generator), dim=-1) for _ in range(2)]


def expected():
    images, texts = features()
    logits = 10 * images.double() @ texts.double().T - 3
    negatives = (logits.sum() - logits.trace()) / 56
    return logits.diagonal().mean().item(), negatives.item()


def test_mean_logits_are_those_of_the_whole_matrix():
    assert mean_logits(*features(), 10, -3) == pytest.approx(expected())


def of_one_rank():
    import torch.distributed as dist

    mine = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    return mean_logits(*(f[mine] for f in features()), 10, -3)


def test_mean_logits_over_ranks_are_those_of_the_global_batch():
    for answer in on_ranks(2, of_one_rank):
        assert answer == pytest.approx(expected())


def test_a_norm_is_over_all_tensors():
    assert norm([torch.tensor([3.0]), torch.tensor([[4.0]])]) == pytest.approx(5)


def test_the_clock_leaves_out_the_first_step_and_what_was_skipped():
    clock = Clock()
    clock.tick(10, 0.0)
    assert clock.examples == 0
    clock.tick(10, 0.5)
    assert (clock.examples, clock.steps, clock.data_seconds) == (10, 1, 0.5)
    assert Clock.on(torch.device("cpu"), clock.state()).examples == 10


def test_what_a_checkpoint_blocks_is_counted_apart_from_training(clock):
    training = Clock()
    training.tick(10, 0.0)
    started = time.perf_counter()
    clock.sleep(3)
    training.blocked_since(started)
    clock.sleep(1)
    training.tick(10, 0.0)
    assert training.blocked_seconds == training.last_blocked_seconds == pytest.approx(3, abs=1e-3)
    assert training.seconds == pytest.approx(1, abs=1e-3)
    assert training.blocked_share == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(("seconds", "affords"), [(147, False), (149, True)])
def test_a_checkpoint_is_afforded_when_one_more_like_the_last_keeps_the_share(seconds, affords):
    clock = Clock(seconds=seconds, blocked_seconds=2.0, last_blocked_seconds=1.0)
    assert clock.affords(0.02) == affords


def test_what_is_left_out_of_a_step_is_left_out_of_the_rest_of_its_parts(clock):
    training = Clock()
    training.tick(10, 0.0)
    with training.during("towers"):
        clock.sleep(2)
    started = time.perf_counter()
    clock.sleep(10)
    training.paused_since(started)
    training.tick(10, 0.0)
    split = training.split()
    assert split["towers_seconds"] == pytest.approx(2, abs=1e-3)
    assert split["other_seconds"] == pytest.approx(0, abs=1e-3)


def test_nothing_is_known_of_a_clock_that_counted_no_step():
    clock = Clock()
    with clock.during("towers"):
        pass
    clock.tick(10, 0.0)
    assert set(clock.split().values()) == {None}
