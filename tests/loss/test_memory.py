"""No matrix larger than a tile, whatever the batch; no more blocks than a few, whatever the ranks."""

from dataclasses import replace

import pytest

from repro.bench import measure
from repro.bench.implementations import Setting, select
from repro.bench.ranks import on_ranks

MIB = 2**20


def peak(name, setting):
    (implementation,) = (i for i in select([name], [setting.loss]) if i.name == name)
    outcome = on_ranks(measure.peak_memory, implementation, setting, ranks=setting.ranks)
    assert outcome.status == "ok", outcome.reason
    return max(outcome.values)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_the_similarity_matrix_is_never_held(loss):
    setting = Setting(loss, ranks=1, local_batch=6144, dim=32, dtype="fp32", device="cpu", threads=1)
    matrix = 4 * 6144**2
    assert peak("repro-ring", setting) < 0.4 * matrix < matrix < peak("plain", setting)


def test_memory_of_a_ring_does_not_grow_with_the_ranks_and_that_of_a_gather_does():
    few = Setting("sigmoid", ranks=3, local_batch=1024, dim=512, dtype="fp32", device="cpu", threads=1)
    many = replace(few, ranks=7)
    assert peak("repro-ring", many) < peak("repro-ring", few) + 6 * MIB
    assert peak("repro-gather", many) > peak("repro-gather", few) + 12 * MIB
