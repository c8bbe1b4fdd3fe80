"""Claims about memory and communication, from the tables of `repro bench`."""

import pandas as pd

from repro.config.units import format_batch_size, format_bytes
from repro.report.claims.claim import Claim
from repro.report.claims.evidence import NOTHING, Evidence, Part, Verdict, said, weigh, where
from repro.report.found import Found

MEASURED = "measurement"
SETTING = ["local_batch", "dim", "dtype", "device", "threads"]
SAME = 1.25
"""Growth of memory over the ranks up to which it counts as none."""


def ring(found: Found) -> Claim:
    """Measured by repeats: one exchange is clearly faster where its slowest repeat beats the other's fastest."""
    table = _bench(found, "exchange", "ranks", "exchange", "status", *SETTING, *_TIMES)
    table = where(table, status="ok").set_index(["ranks", *SETTING])
    both = where(table, exchange="ring").join(where(table, exchange="gather"), rsuffix="_gather", how="inner")
    evidence = NOTHING
    if len(both):
        ratio = both["loss_seconds"] / both["loss_seconds_gather"]
        faster = int((both["loss_seconds_most"] < both["loss_seconds_least_gather"]).sum())
        slower = int((both["loss_seconds_least"] > both["loss_seconds_most_gather"]).sum())
        words = (
            f"with the ring the loss takes {ratio.min():.2f} to {ratio.max():.2f} times as long as with two gathers; "
            f"clearly faster in {faster} of {len(both)} settings, clearly slower in {slower} "
            f"({', '.join(sorted(set(both.index.get_level_values('device').astype(str))))})"
        )
        verdict = Verdict.AGREES if 2 * faster > len(both) else Verdict.NOT_SHOWN
        verdict = Verdict.CONTRADICTS if 2 * slower > len(both) else verdict
        evidence = Evidence(verdict, words, len(both), "most settings, each beyond the spread of its repeats", MEASURED)
    return Claim(
        "ring",
        "D permutes round a ring are faster than two all-gathers.",
        "figure 1",
        "in words",
        "cost-exchange",
        evidence,
    )


def memory(found: Found) -> Claim:
    """Of one rank, as ranks are added: what needs b² stays, what needs b·B grows as they do."""
    table = _bench(found, "loss", "ranks", "implementation", "loss", "peak_memory_bytes", *SETTING)
    table = where(table, loss="sigmoid", implementation="repro-ring").dropna(subset=["peak_memory_bytes"])
    parts = []
    for key, rows in table.groupby(SETTING):
        ranks = _ends(rows)
        fewest, most = (rows.loc[rows["ranks"] == each, "peak_memory_bytes"].median() for each in ranks)
        if ranks[0] == ranks[1]:
            continue
        growth = most / fewest
        verdict = Verdict.AGREES if growth <= SAME else Verdict.NOT_SHOWN
        verdict = Verdict.CONTRADICTS if growth >= ranks[1] / ranks[0] else verdict
        text = (
            f"{format_batch_size(int(key[0]))} a rank: {format_bytes(int(fewest))} on {ranks[0]} ranks, "
            f"{format_bytes(int(most))} on {ranks[1]} ({growth:.2f} times)"
        )
        parts.append(said(text, verdict, [f"{key} {each}" for each in ranks]))
    return Claim(
        "memory",
        "The chunked sigmoid loss needs memory for b², not for B².",
        "figure 1",
        "in words",
        "cost-loss",
        weigh(parts, f"a rank's peak memory, at most {SAME} times with more ranks of the same batch", MEASURED),
    )


def capacity(found: Found) -> Claim:
    """A size that was not the largest (status 'at least') says nothing of what would have fitted."""
    setting = ["memory_limit_bytes", "ranks", "device", "dtype", "model"]
    table = _bench(found, "capacity", "loss", "implementation", "batch_size", "status", *setting)
    table = table[table["batch_size"] > 0] if len(table) else table
    steps = table[table["model"] != "loss alone"] if len(table) else table
    parts: list[Part] = []
    for key, rows in (steps if len(steps) else table).groupby(setting):
        for implementation in ("plain", "repro-ring"):
            own = where(rows, implementation=implementation).drop_duplicates("loss", keep="first").set_index("loss")
            if not {"sigmoid", "softmax"} <= set(own.index):
                continue
            sigmoid, softmax = (own.loc[loss] for loss in ("sigmoid", "softmax"))
            sizes = [f"{loss} {_size(row)}" for loss, row in (("sigmoid", sigmoid), ("softmax", softmax))]
            doubled = sigmoid["batch_size"] >= 2 * softmax["batch_size"]
            verdict = Verdict.AGREES if doubled else Verdict.CONTRADICTS
            if softmax["status"] != "ok" or (sigmoid["status"] != "ok" and not doubled):
                verdict = Verdict.NOT_SHOWN
            where_ = f"{implementation}, {key[-1]} in {format_bytes(int(key[0]))}"
            parts.append(said(f"{where_}: {', '.join(sizes)}", verdict, [f"{key} {implementation} {s}" for s in sizes]))
    return Claim(
        "capacity",
        "In the same memory the sigmoid loss fits twice the batch of the softmax loss.",
        "section 4.2",
        "4,096 against 2,048 on four chips (Base)",
        "cost-capacity",
        weigh(parts, "the largest batch that fits; ≥ where larger ones were not tried", MEASURED),
    )


CLAIMS = (ring, memory, capacity)

_TIMES = ("loss_seconds", "loss_seconds_least", "loss_seconds_most")


def _bench(found: Found, name: str, *columns: str) -> pd.DataFrame:
    """A table of repro bench; empty where there is none, or one of another version without these columns."""
    table = found.bench.get(name, pd.DataFrame())
    return table if set(columns) <= set(table.columns) else pd.DataFrame(columns=list(columns))


def _ends(rows: pd.DataFrame) -> tuple[int, int]:
    return int(rows["ranks"].min()), int(rows["ranks"].max())


def _size(row: pd.Series) -> str:
    return ("≥ " if row["status"] == "at least" else "") + format_batch_size(int(row["batch_size"]))
