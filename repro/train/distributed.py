"""The process group of a run, from torchrun's environment, or none for one rank; and this rank's device.

Collectives are for what all ranks do at the same pace. Where the others wait while one of them works (scans, fetches,
writes, evaluates), they wait for a key of the store instead: no backend's timeout ends that, no GPU spins meanwhile,
and where the work fails the key says so.
"""

import contextlib
import datetime
import itertools
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from repro.config.errors import InputError
from repro.loss.exchange import waiting
from repro.runs.liveness import WAITING, activity

TIMEOUT_SECONDS = 600.0
"""How long ranks wait for one that trains no further, unless told otherwise."""
GPU = "REPRO_GPU"
"""Variable of a job whose ranks are to compute on GPUs: `required`."""
DONE = b"done"
LONGEST_PAUSE_SECONDS = 0.5

_store: dist.Store | None = None
_meetings = itertools.count()


class RankLost(RuntimeError):
    """Another rank failed or is gone; it says itself why."""


class WeightsDiffer(RuntimeError):
    """Ranks hold different weights. Raised on all of them."""

    agreed = True


def start(timeout_seconds: float = TIMEOUT_SECONDS) -> torch.device:
    """Join the group that the environment describes (RANK, WORLD_SIZE …); returns this rank's device.

    timeout_seconds: what launch/job.py gives a rank that stands still. The backend gives up later, so that the rank
    that stands still is found before those that wait for it are ended. Raises InputError where there is no GPU for it.
    """
    global _store, _meetings
    device = device_of_rank()
    if ranks() > 1 and not dist.is_initialized():
        limit = datetime.timedelta(seconds=2 * timeout_seconds + 60)
        _store, _, _ = next(rendezvous("env://", timeout=limit))
        _meetings = itertools.count()
        on_gpu = device.type == "cuda"
        if on_gpu:
            _refuse_shared_gpus(device)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=dist.PrefixStore("group", _store),
            rank=rank(),
            world_size=ranks(),
            timeout=limit,
            device_id=device if on_gpu else None,
        )
    return device


def device_of_rank() -> torch.device:
    """This rank's GPU, made the current one, or the CPU where there is none. Raises InputError."""
    if not torch.cuda.is_available():
        if os.environ.get(GPU) == "required":
            raise InputError(
                f"{socket.gethostname()}: torch {torch.__version__} sees no GPU, and the job was given some "
                f"(gpus_per_node of the cluster profile); expected a driver and a CUDA build of torch on the node, "
                "or gpus_per_node 0 to train on CPUs"
            )
        return torch.device("cpu")
    device = torch.device("cuda", _choose_gpu(int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def _choose_gpu(local_rank: int, visible: int) -> int:
    """Where a task sees one GPU (--gpus-per-task, --gpu-bind), that one is its own, whatever its local rank."""
    if visible == 1:
        return 0
    if local_rank >= visible:
        raise InputError(
            f"{socket.gethostname()}: rank {rank()} is number {local_rank} on this machine, of which {visible} GPUs "
            f"are visible (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}); "
            f"expected {visible} ranks or fewer on each machine"
        )
    return local_rank


def _refuse_shared_gpus(device: torch.device) -> None:
    """Raises InputError, on all ranks, where two of them have the same GPU: NCCL would say so in words of its own."""
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    _store.set(f"gpu/{rank()}", uuid)
    owners: dict[str, int] = {}
    for each in range(ranks()):
        first = owners.setdefault(_wait_for(f"gpu/{each}").decode(), each)
        if first != each:
            raise InputError(
                f"ranks {first} and {each} have the same GPU ({torch.cuda.get_device_name(device)} {uuid} on "
                f"{socket.gethostname()}); expected one GPU a rank: fewer ranks, or more visible GPUs"
            )


def stop() -> None:
    """Leave the group in order: all ranks call it. A rank that fails alone exits without."""
    global _store
    if dist.is_initialized():
        _wait_until_all_leave()
        dist.destroy_process_group()
    _store = None


def _wait_until_all_leave() -> None:
    """Wait for all ranks, so that none closes a connection that another reads from, and rank 0 the store."""
    store, pause = _shared_store(), 0.01
    try:
        store.add("leaving", 1)
        while store.add("leaving", 0) < ranks():
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    except dist.DistError:
        if rank() == 0:
            raise
        # rank 0 has seen all of them leave, and the store has gone with it


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """In place."""
    if ranks() > 1:
        with activity.during(WAITING):
            dist.all_reduce(values)
    return values


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Every rank's gradients become their mean, in one message a dtype."""
    if ranks() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with waiting():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= ranks()
        averaged = flat.split([gradient.numel() for gradient in gradients])
        for gradient, values in zip(gradients, averaged, strict=True):
            gradient.copy_(values.view_as(gradient))


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, on every rank."""
    if ranks() == 1:
        return [value]
    gathered: list[Any] = [None] * ranks()
    with activity.during(WAITING):
        dist.all_gather_object(gathered, value)
    return gathered


def from_first_rank(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if ranks() == 1:
        return value
    values = [value]
    with activity.during(WAITING):
        dist.broadcast_object_list(values, src=0)
    return values[0]


def broadcast_weights(weights: Mapping[str, torch.Tensor]) -> None:
    """Rank 0's values into every rank's tensors: initialisation may differ in the last bits between kinds of CPUs."""
    if ranks() == 1:
        return
    for tensor in weights.values():
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, src=0)
        tensor.detach().copy_(whole)


def check_same_weights(weights: Mapping[str, torch.Tensor], when: str) -> None:
    """Raises WeightsDiffer, on all ranks, where their tensors are not the same, by each tensor's sum of its bits."""
    if ranks() == 1:
        return
    digests = torch.stack([_digest(tensor) for tensor in weights.values()])
    largest, smallest = digests.clone(), digests
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    if different := [name for name, one in zip(weights, (largest != smallest).tolist(), strict=True) if one]:
        raise WeightsDiffer(
            f"the {ranks()} ranks hold different weights {when}: {len(different)} of {len(digests)} tensors, the first "
            f"{different[0]}; no checkpoint was written. A card or a node that computes wrongly does this"
        )


def _digest(tensor: torch.Tensor) -> torch.Tensor:
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().view(integers).sum(dtype=torch.int64)


@contextlib.contextmanager
def rank_0_first() -> Iterator[None]:
    """The body runs on rank 0, then on the others, however long it takes. Raises RankLost on these where it fails."""
    with _goes_first(rank() == 0, "rank 0"):
        yield


@contextlib.contextmanager
def first_on_this_machine() -> Iterator[None]:
    """The body runs on local rank 0 first, then on the others, which find in the cache what it left.

    As rank_0_first, on each machine by itself.
    """
    machine = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    with _goes_first(int(os.environ.get("LOCAL_RANK", 0)) == 0, f"the first rank of {machine}"):
        yield


@contextlib.contextmanager
def _goes_first(first: bool, who: str) -> Iterator[None]:
    """All ranks come here in the same order."""
    if ranks() == 1:
        yield
        return
    key = f"{who}/{next(_meetings)}"
    if not first:
        if (answer := _wait_for(key)) != DONE:
            raise RankLost(f"{who} failed: {answer.decode()}")
        yield
        return
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(Exception):  # a store that is gone has told the others
            _shared_store().set(key, f"{type(error).__name__}: {error}")
        raise
    _shared_store().set(key, DONE)


def _wait_for(key: str) -> bytes:
    """The value of a key, once a rank has set it. Asked for again and again, so that signals are heard meanwhile."""
    store, pause = _shared_store(), 0.01
    with activity.during(WAITING):
        while not store.check([key]):
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    return store.get(key)


def _shared_store() -> dist.Store:
    """That of `start`, or of a group that the caller made."""
    return _store if _store is not None else dist.PrefixStore("run", dist.distributed_c10d._get_default_store())
