"""What ranks do together outside of a step: who goes first, whose weights, which GPU, and one's failure."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from repro.config.errors import BadData, InputError
from repro.train import distributed
from tests.ranks import on_ranks


def order_of_arrival(slow_seconds):
    arrived = []
    with distributed.first_on_this_machine():
        if distributed.rank() == 0:
            time.sleep(slow_seconds)
        arrived.append(time.time())
    return arrived[0]


def test_the_first_rank_of_a_machine_goes_first_longer_than_the_groups_timeout():
    def patient(seconds):
        return on_ranks(3, with_a_short_timeout, seconds)

    first, *others = patient(1.0)
    assert all(first < other for other in others)


def with_a_short_timeout(seconds):
    """The group that on_ranks made is left for one whose collectives give up after half a second."""
    import datetime

    store = dist.distributed_c10d._get_default_store()
    dist.destroy_process_group()
    short = {"timeout": datetime.timedelta(seconds=0.5), "rank": distributed.rank(), "world_size": distributed.ranks()}
    dist.init_process_group("gloo", store=dist.PrefixStore("short", store), **short)
    return order_of_arrival(seconds)


def failing_first():
    try:
        with distributed.rank_0_first():
            if distributed.rank() == 0:
                raise BadData("no image in 00000.tar")
    except (BadData, distributed.RankLost) as error:
        return type(error).__name__, str(error)
    return "nothing", ""


def test_where_the_first_rank_fails_the_others_hear_of_it_and_wait_no_longer():
    first, *others = on_ranks(3, failing_first)
    assert first == ("BadData", "no image in 00000.tar")
    assert set(others) == {("RankLost", "rank 0 failed: BadData: no image in 00000.tar")}


def weights_after_a_broadcast():
    torch.manual_seed(distributed.rank())
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model[1].num_batches_tracked += distributed.rank()
    distributed.broadcast_weights(model.state_dict())
    distributed.check_same_weights(model.state_dict(), "at step 0")
    return [tensor.sum().item() for tensor in model.state_dict().values()]


def test_all_ranks_start_from_the_weights_of_rank_0():
    one, other = on_ranks(2, weights_after_a_broadcast)
    assert one == other


def weights_of_which_one_bit_differs():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Linear(3, 1)).bfloat16()
    if distributed.rank() == 2:
        with torch.no_grad():
            model[1].weight.view(torch.int16)[0, 1] ^= 1
    try:
        distributed.check_same_weights(model.state_dict(), "at step 7")
    except distributed.WeightsDiffer as error:
        return str(error)
    return "the same"


def test_weights_of_which_one_bit_differs_between_ranks_are_found_on_all_and_named():
    (said,) = set(on_ranks(3, weights_of_which_one_bit_differs))
    assert said.startswith("the 3 ranks hold different weights at step 7: 1 of 4 tensors, the first 1.weight")


@pytest.mark.parametrize(("local_rank", "visible", "chosen"), [(0, 8, 0), (7, 8, 7), (3, 1, 0), (0, 1, 0)])
def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one_that_it_sees(monkeypatch, local_rank, visible, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", str(local_rank))
    assert distributed.device_of_rank() == torch.device("cuda", chosen)


def test_more_ranks_on_a_machine_than_it_has_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "4")
    with pytest.raises(InputError, match=r"number 4 on this machine, of which 4 GPUs are visible .* expected 4 ranks"):
        distributed.device_of_rank()


def test_a_job_that_was_given_gpus_does_not_train_on_cpus_instead(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(os.environ, distributed.GPU, "required")
    with pytest.raises(InputError, match=r"sees no GPU, .*gpus_per_node 0 to train on CPUs"):
        distributed.device_of_rank()


def two_ranks_of_which_each_says_that_it_has(uuids):
    class Properties:
        uuid = uuids[distributed.rank()]

    torch.cuda.get_device_properties = lambda device: Properties
    torch.cuda.get_device_name = lambda device: "NVIDIA H100"
    distributed._store = distributed._shared_store()
    try:
        distributed._refuse_shared_gpus(torch.device("cuda", 0))
    except InputError as error:
        return str(error)
    return "one each"


def test_two_ranks_on_one_gpu_are_refused_on_both():
    assert on_ranks(2, two_ranks_of_which_each_says_that_it_has, ["a", "b"]) == ["one each"] * 2
    (said,) = set(on_ranks(2, two_ranks_of_which_each_says_that_it_has, ["a", "a"]))
    assert said.startswith("ranks 0 and 1 have the same GPU (NVIDIA H100 a on ")
