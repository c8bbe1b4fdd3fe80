"""Claims about memory and communication, from the tables of `repro bench`."""

import pandas as pd

from repro.counts import format_batch_size, format_bytes
from repro.report.claims.claim import Claim
from repro.report.claims.evidence import NOTHING, Evidence, Verdict, together, where
from repro.report.found import Found

NONE = pd.DataFrame()
MEASURED = "measurement"


def ring(found: Found) -> Claim:
    """Each measured by repeats: an exchange is faster where its slowest repeat beats the other's fastest."""
    table = found.bench.get("exchange", NONE)
    evidence = NOTHING
    if len(table):
        keys = ["ranks", "local_batch", "dim", "dtype", "device"]
        table = table[table["status"] == "ok"].set_index(keys)
        both = where(table, exchange="ring").join(where(table, exchange="gather"), rsuffix="_gather", how="inner")
        ratio = both["loss_seconds"] / both["loss_seconds_gather"]
        faster = both["loss_seconds_most"] < both["loss_seconds_least_gather"]
        slower = both["loss_seconds_least"] > both["loss_seconds_most_gather"]
        words = (
            f"the loss with the ring takes {ratio.min():.2f} to {ratio.max():.2f} times what it takes with two gathers "
            f"({int(faster.sum())} of {len(both)} settings clearly faster, {int(slower.sum())} clearly slower; "
            f"{', '.join(sorted(set(both.index.get_level_values('device'))))})"
        )
        verdict = together(
            [Verdict.AGREES] * bool(faster.any()) + [Verdict.CONTRADICTS] * bool(slower.any()) or [Verdict.NOT_SHOWN]
        )
        evidence = Evidence(verdict, words, len(both), "clearly: beyond the spread of the repeats", MEASURED)
    return Claim(
        "ring",
        "D permutes round a ring are faster than two all-gathers.",
        "figure 1",
        "in words",
        "cost-exchange",
        evidence,
    )


def memory(found: Found) -> Claim:
    table = found.bench.get("loss", NONE)
    evidence = NOTHING
    if len(table):
        runs = where(table[table["ranks"] > 1], loss="sigmoid").dropna(subset=["peak_memory_bytes"])
        keys = ["ranks", "local_batch", "dim", "dtype", "device"]
        ring_rows = where(runs, implementation="repro-ring").set_index(keys)
        plain = where(runs, implementation="plain").set_index(keys)
        both = ring_rows.join(plain, rsuffix="_plain", how="inner")
        if len(both):
            ratio = both["peak_memory_bytes"] / both["peak_memory_bytes_plain"]
            last = both.sort_values("batch_size").iloc[-1]
            sizes = [format_bytes(int(last[name])) for name in ("peak_memory_bytes", "peak_memory_bytes_plain")]
            words = (
                f"ring {ratio.min():.2f} to {ratio.max():.2f} of the plain formula; at a batch of "
                f"{format_batch_size(int(last['batch_size']))} on {last.name[0]} ranks {' against '.join(sizes)}"
            )
            verdict = (
                Verdict.AGREES if (ratio < 1).all() else Verdict.CONTRADICTS if (ratio > 1).all() else Verdict.MIXED
            )
            evidence = Evidence(verdict, words, len(both), "peak memory of the loss on a rank", MEASURED)
    return Claim(
        "memory",
        "The chunked sigmoid loss needs memory for b², not for B².",
        "figure 1",
        "in words",
        "cost-loss",
        evidence,
    )


def capacity(found: Found) -> Claim:
    table = found.bench.get("capacity", NONE)
    evidence = NOTHING
    if len(table):
        steps = table[table["model"] != "loss alone"] if "model" in table else table
        chosen = steps if len(steps) else table
        words, verdicts = [], []
        for implementation in ("repro-ring", "plain"):
            largest = where(chosen, implementation=implementation).groupby("loss")["batch_size"].max()
            if {"sigmoid", "softmax"} <= set(largest.index):
                sizes = ", ".join(f"{loss} {format_batch_size(int(size))}" for loss, size in largest.items())
                words.append(f"{implementation}: {sizes}")
                verdicts.append(Verdict.AGREES if largest["sigmoid"] >= 2 * largest["softmax"] else Verdict.CONTRADICTS)
        what = "training steps" if len(steps) else "the loss alone"
        evidence = Evidence(
            together(verdicts), "; ".join(words), len(chosen), f"the largest batch that fits, of {what}"
        )
    return Claim(
        "capacity",
        "In the same memory the sigmoid loss fits twice the batch of the softmax loss.",
        "section 4.2",
        "4,096 against 2,048 on four chips (Base)",
        "cost-capacity",
        evidence,
    )


CLAIMS = (ring, memory, capacity)
