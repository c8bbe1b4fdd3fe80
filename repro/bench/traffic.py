"""What one rank does in one measurement of an exchange: seconds of it alone, and a count of what it sends.

Bytes are counted where torch.distributed hands every message and collective on, so nothing that a loss sends is
missed. Each function runs in fresh processes, one a rank (see ranks.py), and starts with `rank`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repro.bench.implementations import Implementation
from repro.bench.measure import forward_and_backward, timed
from repro.bench.setting import Setting, embeddings
from repro.loss.exchange import visit
from repro.loss.tiles import zeros

COLLECTIVES: dict[str, tuple[int, Callable[[int], float]]] = {
    "send": (0, lambda ranks: 1),
    "_allgather_base_": (1, lambda ranks: ranks - 1),
    "allgather_": (1, lambda ranks: ranks - 1),
    "_reduce_scatter_base_": (0, lambda ranks: ranks - 1),
    "reduce_scatter_": (0, lambda ranks: ranks - 1),
    "alltoall_base_": (1, lambda ranks: (ranks - 1) / ranks),
    "allreduce_": (0, lambda ranks: 2 * (ranks - 1) / ranks),
}
"""The argument with the tensors, and how often a rank sends their bytes by an algorithm that sends nothing twice."""
NO_PAYLOAD = ("recv_", "barrier", "monitored_barrier_")


@dataclass
class Sent:
    """messages: calls of torch.distributed that send. sent_bytes: by this rank. other: calls not known here."""

    messages: int = 0
    sent_bytes: float = 0
    other: list[str] = field(default_factory=list)


class CountSent(TorchDispatchMode):
    """While active, adds up what this rank sends in `sent`."""

    def __init__(self, ranks: int):
        super().__init__()
        self.ranks, self.sent = ranks, Sent()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            self._count(function._schema.name.removeprefix("c10d::"), args)
        return function(*args, **(kwargs or {}))

    def _count(self, name: str, arguments: tuple) -> None:
        if name in COLLECTIVES:
            position, times = COLLECTIVES[name]
            self.sent.messages += 1
            self.sent.sent_bytes += times(self.ranks) * _bytes(arguments[position])
        elif name not in NO_PAYLOAD:
            self.sent.other.append(name)


def _bytes(tensors: torch.Tensor | list) -> int:
    if isinstance(tensors, torch.Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(map(_bytes, tensors))


def exchange_alone(setting: Setting, exchange: str, rank: int) -> Callable[[], object]:
    """One call sends all that the sigmoid loss sends: text blocks out, gradients back; zeros stand for gradients."""
    _, texts = embeddings(setting, rank)
    dtype = torch.promote_types(texts.dtype, torch.float32)

    def call() -> object:
        return visit([texts], lambda owner, block, room: zeros(room, texts.shape, texts, dtype), exchange)

    return call


def exchange_seconds(rank: int, setting: Setting, exchange: str, repeats: int) -> list[float]:
    call = exchange_alone(setting, exchange, rank)
    return [timed(call, setting) for _ in range(repeats + 2)][2:]


def count(rank: int, setting: Setting, exchange: str, implementation: Implementation) -> dict[str, Sent]:
    """What the exchange alone sends, and what the whole loss sends."""
    calls = {
        "exchange": exchange_alone(setting, exchange, rank),
        "loss": forward_and_backward(implementation, setting, rank),
    }
    found = {}
    for name, call in calls.items():
        with CountSent(setting.ranks) as counter:
            call()
        found[name] = counter.sent
    return found
