"""Losses of known behaviour, to be measured in processes of their own: they must be importable there."""

import os
import signal
import time

import torch

from repro.bench.implementations import Implementation
from repro.loss.plain import PlainSigmoidLoss

EXTRA_BYTES = 200 * 2**20


def make_plain(rank: int, ranks: int):
    return PlainSigmoidLoss()


def make_raising(rank: int, ranks: int):
    raise ValueError("no such kernel")


def make_killed(rank: int, ranks: int):
    if rank == ranks - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return PlainSigmoidLoss()


def make_slow(rank: int, ranks: int):
    time.sleep(60)


def make_wrong(rank: int, ranks: int):
    return lambda *inputs: 1.01 * PlainSigmoidLoss()(*inputs)


def make_hungry(rank: int, ranks: int):
    """The plain loss, holding EXTRA_BYTES on the way where the batch is not a warm-up's."""
    plain = PlainSigmoidLoss()

    def loss(images, *others):
        extra = torch.ones(EXTRA_BYTES // 4) if len(images) > 64 else torch.ones(1)
        return plain(images, *others) + 0 * extra[0]

    return loss


def known(make) -> Implementation:
    return Implementation(make.__name__.removeprefix("make_"), "sigmoid", make)
