"""Ring, bidirectional ring and gather: bytes and time of the exchange alone, and time of the whole loss.

Ranks send at the same time, so steps and bytes are those of one rank. Steps are messages that must follow each other.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd

from repro.bench import measure, traffic
from repro.bench.implementations import Implementation, select
from repro.bench.loss import Effort
from repro.bench.ranks import Outcome, on_ranks
from repro.bench.setting import DTYPES, Setting
from repro.config.errors import InputError, nearest

KEYS = ["exchange", "ranks", "local_batch", "dim", "dtype", "device", "threads"]
EXCHANGES = ("ring", "ring-bidirectional", "gather")


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
    for setting in settings:
        place = (setting.ranks, setting.dtype, setting.threads)
        if place not in rates:
            rates[place] = _matmul_rate(setting, effort)
        times: dict[str, dict[str, list[float]]] = {name: {"exchange": [], "loss": []} for name in exchanges}
        found = {name: _count(name, setting, effort) for name in exchanges}
        for _ in range(effort.rounds):
            for name in exchanges:
                if found[name]["status"] == "ok":
                    found[name] |= _time(name, setting, effort, times[name])
        for name in exchanges:
            row = asdict(setting) | {"exchange": name, "batch_size": setting.batch_size} | found[name]
            rows.append(row | {"matmul_per_second": rates[place]} | _summaries(times[name]))
            what = f"{1e3 * rows[-1]['exchange_seconds']:,.1f} ms" if times[name]["exchange"] else row["reason"]
            report(f"{setting.label}: {name} {what}")
    return pd.DataFrame(rows)


def _implementation(exchange: str) -> Implementation:
    (found,) = (i for i in select([], ["sigmoid"]) if i.name == f"repro-{exchange}")
    return found


def _run(function: Callable, setting: Setting, effort: Effort, *arguments) -> Outcome:
    options = {"ranks": setting.ranks, "threads": setting.threads, "device": setting.device}
    return on_ranks(function, *arguments, **options, limit_seconds=effort.limit_seconds)


def _matmul_rate(setting: Setting, effort: Effort) -> float:
    outcome = _run(measure.matmul_rate, setting, effort, setting, effort.square)
    return min(max(rates.values()) for rates in outcome.values) if outcome.values else float("nan")


def _count(exchange: str, setting: Setting, effort: Effort) -> dict:
    """Bytes by the formula, and as counted; the most of any rank."""
    itemsize = DTYPES[setting.dtype].itemsize
    row = {
        "steps": count_steps(exchange, setting.ranks),
        "bytes_sent": count_bytes(setting.ranks, setting.local_batch, setting.dim, itemsize),
    }
    outcome = _run(traffic.count, setting, effort, setting, exchange, _implementation(exchange))
    if outcome.status == "ok":
        for what in ("exchange", "loss"):
            row[f"bytes_counted_{what}"] = max(part[what].sent_bytes for part in outcome.values)
            row[f"messages_counted_{what}"] = max(part[what].messages for part in outcome.values)
        uncounted = {name for part in outcome.values for sent in part.values() for name in sent.other}
        return row | {"status": "ok", "reason": f"not counted: {', '.join(sorted(uncounted))}" if uncounted else ""}
    return row | {"status": outcome.status, "reason": outcome.reason}


def _time(exchange: str, setting: Setting, effort: Effort, times: dict[str, list[float]]) -> dict[str, str]:
    """Adds to `times`; returns what became of it where it failed."""
    calls = {
        "exchange": (traffic.exchange_seconds, setting, exchange, effort.repeats),
        "loss": (measure.seconds, _implementation(exchange), setting, effort.repeats),
    }
    for what, (function, *arguments) in calls.items():
        outcome = _run(function, setting, effort, *arguments)
        if outcome.status != "ok":
            return {"status": outcome.status, "reason": f"{what}: {outcome.reason}"}
        times[what] += [max(ranks) for ranks in zip(*outcome.values, strict=True)]
    return {}


def _summaries(times: dict[str, list[float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for what, seconds in times.items():
        if seconds:
            found |= {f"{what}_seconds": statistics.median(seconds)}
            found |= {f"{what}_seconds_least": min(seconds), f"{what}_seconds_most": max(seconds)}
    return found
