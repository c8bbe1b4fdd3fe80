"""The process group of a run: from torchrun's environment, or none for one rank."""

import contextlib
import datetime
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from repro.loss.exchange import waiting


def start() -> torch.device:
    """Join the group that the environment describes (RANK, WORLD_SIZE …); returns this rank's device."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    _patient_group.cache_clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def barrier() -> None:
    if ranks() > 1:
        dist.barrier()


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """In place."""
    if ranks() > 1:
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
    dist.all_gather_object(gathered, value)
    return gathered


def from_first_rank(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    if ranks() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def from_patient_first_rank(value: Any) -> Any:
    """Rank 0's value, on every rank, however long it takes: other exchanges give up after minutes."""
    if ranks() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_patient_group())
    return values[0]


@functools.cache
def _patient_group() -> dist.ProcessGroup:
    """On CPUs, so that waiting takes no GPU; made by all ranks at their first use of it."""
    return dist.new_group(backend="gloo", timeout=datetime.timedelta(days=7))


@contextlib.contextmanager
def first_on_this_machine() -> Iterator[None]:
    """The body runs on local rank 0 first, then on the others, which find in the cache what it left."""
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()
