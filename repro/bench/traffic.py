"""Ring, bidirectional ring and gather: bytes and time of the exchange alone, and time of the whole loss.

Ranks send at the same time, so steps and bytes are those of one rank. Steps are messages that must follow each other.
Bytes are counted where torch.distributed hands every message and collective on, so nothing that a loss sends is missed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repro.bench import measure
from repro.bench.implementations import DTYPES, EXCHANGES, IMPLEMENTATIONS, Implementation, Setting, embeddings
from repro.bench.loss import Effort, InTurn
from repro.config.errors import InputError, nearest
from repro.loss.exchange import visit
from repro.loss.tiles import zeros

KEYS = ["exchange", "ranks", "local_batch", "dim", "dtype", "device", "threads"]
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


def count_steps(exchange: str, ranks: int) -> int:
    """Messages of one rank that follow each other: blocks on their way out, their gradients on the way back.

    ring: a block visits ranks − 1 others, its gradient follows one step behind it and then goes straight home.
    ring-bidirectional: half as many ranks each way. gather: ranks − 1 for the blocks, as many for the gradients.
    """
    if ranks == 1:
        return 0
    if exchange == "gather":
        return 2 * (ranks - 1)
    hops = ranks - 1 if exchange == "ring" else ranks // 2
    return hops + 2 if hops > 1 else 2


def count_bytes(ranks: int, local_batch: int, dim: int, itemsize: int) -> int:
    """Bytes that one rank sends for the sigmoid loss, whatever the exchange: (ranks − 1)·b·d·(text + gradient).

    Every rank sees every other's text block once, and every block's gradient, in fp32 at least, comes back: added up
    on its way round the ring, or reduced and scattered. (A gather sends as much by any algorithm that sends nothing
    twice.)
    """
    return (ranks - 1) * local_batch * dim * (itemsize + max(itemsize, 4))


def choose(names: Sequence[str]) -> list[str]:
    """Raises InputError with the nearest name."""
    for name in names:
        if name not in EXCHANGES:
            raise InputError(f"--exchange: unknown exchange '{name}'{nearest(name, EXCHANGES)}")
    return list(names or EXCHANGES)


def compare(
    settings: Sequence[Setting],
    exchanges: Sequence[str],
    effort: Effort,
    report: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """One row a setting and exchange. Exchanges take turns, round by round."""
    rows = []
    rates: dict[tuple, float] = {}
    implementations = {i.name.removeprefix("repro-"): i for i in IMPLEMENTATIONS if i.loss == "sigmoid"}
    for setting in settings:
        turns = InTurn(setting, exchanges, effort, report)
        place = (setting.ranks, setting.dtype, setting.threads)
        if place not in rates:
            rates[place] = max(turns.rates(effort.square).values(), default=float("nan"))
        size = (setting.ranks, setting.local_batch, setting.dim, DTYPES[setting.dtype].itemsize)
        found = {name: {"steps": count_steps(name, size[0]), "bytes_sent": count_bytes(*size)} for name in exchanges}
        for name in exchanges:
            if sent := turns.run(name, "count", count, setting, name, implementations[name]):
                found[name] |= _counted(sent)
                uncounted = {call for part in sent for each in part.values() for call in each.other}
                turns.ends[name] = "ok", f"not counted: {', '.join(sorted(uncounted))}" if uncounted else ""
        for _ in range(effort.rounds):
            for name in filter(turns.works, exchanges):
                turns.time(name, "exchange", exchange_seconds, setting, name, effort.repeats)
                if turns.works(name):
                    turns.time(name, "loss", measure.seconds, implementations[name], setting, effort.repeats)
        for name, (status, reason) in turns.ends.items():
            row = asdict(setting) | {"exchange": name, "batch_size": setting.batch_size} | found[name]
            row |= {"status": status, "reason": reason, "matmul_per_second": rates[place]}
            for what in ("exchange", "loss"):
                row |= turns.summary(name, what, f"{what}_")
            rows.append(row)
    return pd.DataFrame(rows)


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
        name = function._schema.name.removeprefix("c10d::")
        if function.namespace == "c10d" and name in COLLECTIVES:
            position, times = COLLECTIVES[name]
            self.sent.messages += 1
            self.sent.sent_bytes += times(self.ranks) * _bytes(args[position])
        elif function.namespace == "c10d" and name not in NO_PAYLOAD:
            self.sent.other.append(name)
        return function(*args, **(kwargs or {}))


def _bytes(tensors: torch.Tensor | list) -> int:
    return tensors.nbytes if isinstance(tensors, torch.Tensor) else sum(map(_bytes, tensors))


def _counted(sent: Sequence[dict[str, Sent]]) -> dict[str, float]:
    """The most of any rank."""
    found = {}
    for what in sent[0]:
        found[f"bytes_counted_{what}"] = max(part[what].sent_bytes for part in sent)
        found[f"messages_counted_{what}"] = max(part[what].messages for part in sent)
    return found


def exchange_alone(setting: Setting, exchange: str, rank: int) -> Callable[[], object]:
    """One call sends all that the sigmoid loss sends: text blocks out, gradients back; zeros stand for gradients."""
    _, texts = embeddings(setting, rank)
    dtype = torch.promote_types(texts.dtype, torch.float32)

    def call() -> object:
        return visit([texts], lambda owner, block, room: zeros(room, texts.shape, texts, dtype), exchange)

    return call


def exchange_seconds(rank: int, setting: Setting, exchange: str, repeats: int) -> list[float]:
    call = exchange_alone(setting, exchange, rank)
    return [measure.timed(call, setting) for _ in range(repeats + 2)][2:]


def count(rank: int, setting: Setting, exchange: str, implementation: Implementation) -> dict[str, Sent]:
    """Messages and bytes of the exchange alone, and of the whole loss."""
    calls = {
        "exchange": exchange_alone(setting, exchange, rank),
        "loss": measure.forward_and_backward(implementation, setting, rank),
    }
    found = {}
    for name, call in calls.items():
        with CountSent(setting.ranks) as counter:
            call()
        found[name] = counter.sent
    return found
