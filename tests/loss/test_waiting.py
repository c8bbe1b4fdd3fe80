"""Whoever calls a loss can measure how long it stands waiting for other ranks."""

import contextlib
import time

import pytest
import torch
import torch.nn.functional as F

from repro.loss import Negatives, SigmoidLoss, SoftmaxLoss
from repro.loss.exchange import measure_waiting, visit
from tests.ranks import on_ranks

LATE = 0.4
"""Seconds: far more than a busy machine holds up a rank that is not late."""


class Stopwatch:
    """Adds up the seconds of the contexts it gives out."""

    seconds = 0.0

    @contextlib.contextmanager
    def __call__(self):
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def waited_for_a_late_rank():
    """Seconds that each loss waited, where rank 1 calls it late."""
    import torch.distributed as dist

    features = [F.normalize(torch.randn(8, 5), dim=-1).requires_grad_() for _ in range(2)]
    losses = [loss(exchange) for loss in (SigmoidLoss, SoftmaxLoss) for exchange in ("ring", "gather")]
    losses += [SigmoidLoss(negatives=Negatives("hard", 0.5)), SigmoidLoss(check=False)]
    seconds = []
    for loss in losses:
        loss(*features, 10.0)
        dist.barrier()
        stopwatch = Stopwatch()
        time.sleep(LATE * dist.get_rank())
        with measure_waiting(stopwatch):
            loss(*features, 10.0)
        seconds.append(stopwatch.seconds)
    return seconds


def test_a_loss_waits_for_the_rank_that_comes_late():
    punctual, late = on_ranks(2, waited_for_a_late_rank)
    assert sum(punctual) > sum(late)
    assert min(*punctual, *late) > 0


def test_on_one_rank_no_loss_waits():
    stopwatch = Stopwatch()
    with measure_waiting(stopwatch):
        SigmoidLoss()(*(F.normalize(torch.randn(8, 5), dim=-1) for _ in range(2)), 10.0)
    assert stopwatch.seconds == 0


def waited_while_tiles_took_long(exchange):
    def work(owner, block, room):
        time.sleep(3 * LATE)
        return block[0] * 1

    stopwatch = Stopwatch()
    with measure_waiting(stopwatch):
        visit([torch.ones(4)], work, exchange)
    return stopwatch.seconds


@pytest.mark.parametrize("exchange", ["ring", "ring-bidirectional"])
def test_what_travels_while_a_rank_works_is_no_waiting(exchange):
    assert max(on_ranks(3, waited_while_tiles_took_long, exchange)) < 3 * LATE
