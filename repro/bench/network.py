"""A model of an exchange's time: latency × steps + bytes ÷ bandwidth; fitted to measurements, and what it foretells.

Ranks send at the same time, so both counts are those of one rank. Steps are messages that must follow each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from repro.bench.setting import PRODUCTS

EXCHANGES = ("ring", "ring-bidirectional", "gather")
DEVICES = tuple(2**power for power in range(3, 13))
"""8 to 4,096."""
LEAST_POINTS = 3
"""Two are fitted exactly, whatever they are."""


@dataclass(frozen=True)
class Link:
    """latency_seconds of a step, bytes_per_second that a rank sends."""

    latency_seconds: float
    bytes_per_second: float

    def seconds(self, steps, sent_bytes):
        return self.latency_seconds * steps + sent_bytes / self.bytes_per_second


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


def fit(steps: Sequence[float], sent_bytes: Sequence[float], seconds: Sequence[float]) -> Link:
    """Least squares of the relative error, neither number negative: small messages weigh as much as large ones."""
    seconds = np.asarray(seconds, dtype=float)
    columns = np.column_stack([steps, sent_bytes]) / seconds[:, None]
    # Columns of one size, or nnls rounds the smaller away: steps are few, bytes are many.
    sizes = np.linalg.norm(columns, axis=0)
    (latency, per_byte), _ = nnls(columns / sizes, np.ones(len(seconds)))
    latency, per_byte = latency / sizes[0], per_byte / sizes[1]
    return Link(latency, 1 / per_byte if per_byte else np.inf)


def fit_and_check(table: pd.DataFrame, exchange: str) -> dict[str, object] | None:
    """A Link from part of the points, and its relative error on the rest; None where too few were measured.

    Held out are those of the most ranks, since more ranks is what the model is asked for; with only one number of
    ranks, every third. table: rows of the exchange benchmark.
    """
    points = table[(table["exchange"] == exchange) & (table["status"] == "ok")]
    points = points.sort_values(["ranks", "bytes_sent"]).reset_index(drop=True)
    most = points["ranks"] == points["ranks"].max()
    held_out = most if points["ranks"].nunique() > 1 else pd.Series(points.index % 3 == 2)
    if (~held_out).sum() < LEAST_POINTS:
        return None
    kept, rest = points[~held_out], points[held_out]
    link = fit(kept["steps"], kept["bytes_sent"], kept["exchange_seconds"])
    errors = (link.seconds(rest["steps"], rest["bytes_sent"]) / rest["exchange_seconds"] - 1).abs()
    return {
        "link": link,
        "points_fitted": len(kept),
        "points_held_out": len(rest),
        "held_out_error_median": errors.median(),
        "held_out_error_most": errors.max(),
        "held_out": f"{points['ranks'].max()} ranks" if points["ranks"].nunique() > 1 else "every third point",
    }


def foretell(link: Link, exchange: str, local_batch: int, dim: int, itemsize: int, rate: float) -> pd.DataFrame:
    """Seconds of exchange and of matrix products on 8 to 4,096 devices, and of the step in which they meet.

    rate: operations a second of one device. A ring works on one block while it sends the next, so the longer of the
    two is what counts, and the last gradient's way home, which nothing hides; a gather has all blocks before it
    starts, and all gradients before it sends one, so it takes both.
    """
    rows = []
    for devices in DEVICES:
        steps, sent = count_steps(exchange, devices), count_bytes(devices, local_batch, dim, itemsize)
        exchanging = link.seconds(steps, sent)
        computing = PRODUCTS["sigmoid"] * 2 * local_batch * local_batch * devices * dim / rate
        last = 0 if exchange == "gather" else (2 if exchange == "ring-bidirectional" else 1)  # gradients sent at last
        tail = link.seconds(1, last * local_batch * dim * max(itemsize, 4))
        hidden = min(max(0.0, exchanging - tail), computing) if last else 0.0
        rows.append(
            {
                "exchange": exchange,
                "devices": devices,
                "batch_size": devices * local_batch,
                "steps": steps,
                "bytes_sent": sent,
                "exchange_seconds": exchanging,
                "compute_seconds": computing,
                "loss_seconds": exchanging + computing - hidden,
                "share_hidden": hidden / exchanging if exchanging else 1.0,
            }
        )
    return pd.DataFrame(rows)
