"""Claims about the batch size: who is ahead where, where growing stops paying, what training length has to do with it.

A claim that names a batch size is weighed only by runs that get there. Each is judged where the paper makes it (setup,
longest training); the same numbers of the other setup are shown beside it.
"""

import math
from collections.abc import Iterator

import pandas as pd

from repro.config.units import format_batch_size, format_examples
from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import MARGIN, Difference, Part, Verdict, part, said, weigh, where
from repro.report.claims.runs import Group, group_of
from repro.report.found import Found
from repro.results.stats.saturation import Saturation, analyse

SMALL, SATURATION = 16384, 32768
PEAKS = {"sigmoid": 32768, "softmax": 98304}
NEAR = 4
"""Factor within which a batch size counts as near another: of batch sizes that double, two steps."""
SIGMOID, SOFTMAX = tables.LOSSES


def small_batches(found: Found) -> Claim:
    parts = []
    for group in _groups(found, "siglip", "siglit"):
        small = group.runs[group.runs["batch_size"] < SMALL]
        pair = [where(small, loss=loss) for loss in tables.LOSSES]
        lead = group.difference(*pair, on=("batch_size", "examples_seen"))
        parts.append(part(group.label, lead, "higher"))
    ahead = [
        f"{name} {tables.signed(_lead(found.published, source, size))} at {format_batch_size(size)}"
        for name, source in (("SigLIP", "table-5"), ("SigLiT", "table-8"))
        for size in (512, 8192)
    ]
    return Claim(
        "small-batches",
        "Below 16k the sigmoid loss is clearly ahead of the softmax loss.",
        "figure 2, tables 5 and 8",
        f"{', '.join(ahead)} (3B examples)",
        "figure-2",
        weigh(parts, "sigmoid minus softmax, averaged over all batch sizes below 16k that both losses have"),
    )


def saturation(found: Found) -> Claim:
    parts = []
    for group in _groups(found, "siglip", "siglit"):
        runs = _longest(group)
        for result in analyse(runs, group.accuracy, by=["loss"]) if group.accuracy else ():
            loss = str(result.series["loss"])
            text = group.named(f"{loss}: {interval(result)}")
            parts.append(said(text, _near(result, _reach(runs, group.accuracy, loss)), _ids(where(runs, loss=loss))))
    told = [
        f"{loss} {_number(found, 'table-5', 16384, loss)} at 16k, {_number(found, 'table-5', 32768, loss)} at 32k, "
        f"{_number(found, 'table-5', 98304, loss)} at 98k"
        for loss in tables.LOSSES
    ]
    return Claim(
        "saturation",
        "Both losses are saturated near a batch size of 32k.",
        "figure 2, tables 5 and 8",
        f"SigLIP at 9B examples: {'; '.join(told)}",
        "saturation",
        weigh(parts, "the saturation point's interval holds 32k and no more than 8k to 128k; needs larger batches"),
    )


def peaks(found: Found) -> Claim:
    parts = []
    for group in _groups(found, "siglip"):
        runs = _longest(group)
        results = {r.series["loss"]: r for r in analyse(runs, group.accuracy, by=["loss"])} if group.accuracy else {}
        for loss, result in results.items():
            also = [format_batch_size(size) for size in result.peak_set if size != result.peak]
            words = f"{loss} at {format_batch_size(result.peak)}" + (f" (or {', '.join(also)})" if also else "")
            reach = min(_reach(runs, group.accuracy, each) for each in tables.LOSSES)
            verdict = _peaks_at(result, PEAKS.get(str(loss), 0)) if reach >= max(PEAKS.values()) else Verdict.NOT_SHOWN
            parts.append(said(group.named(words), verdict, _ids(where(runs, loss=loss))))
    paper = ", ".join(
        f"{loss} at {format_batch_size(_peak(found.published, 'table-5', loss))}" for loss in tables.LOSSES
    )
    return Claim(
        "peaks",
        "SigLIP is best at 32k with the sigmoid and at 98k with the softmax loss.",
        "table 5",
        f"{paper} (9B examples)",
        "table-5",
        weigh(parts, "the paper's size is among those not told from the peak, all near it; needs batches up to 98k"),
    )


def too_large(found: Found) -> Claim:
    parts = [p for group in _groups(found, "siglip") for p in _falls(group, group.accuracy, "lower")]
    parts += [p for group in _groups(found, "siglit") for p in _falls(group, group.accuracy, "")] if parts else []
    largest = {loss: value(found.published, "table-5", loss=loss, batch_size=307200.0) for loss in tables.LOSSES}
    drops = [f"{loss} {tables.signed(number - _best(found, loss))}" for loss, number in largest.items()]
    return Claim(
        "too-large",
        "Far beyond the best batch size SigLIP's accuracy falls, with both losses.",
        "table 5",
        f"at 307k, from the best: {', '.join(drops)} (9B examples)",
        "figure-2",
        weigh(parts, "the largest batch size minus the best; intervals allow for the best's choice by the same runs"),
    )


def long_training(found: Found) -> Claim:
    parts = [p for group in _groups(found, "siglit") for p in _gains(group, "higher")]
    parts += [p for group in _groups(found, "siglip") for p in _gains(group, "")] if parts else []
    short, long = (
        tables.signed(
            value(found.published, "table-8", loss=SIGMOID, batch_size=262144.0, examples_seen=examples)
            - value(found.published, "table-8", loss=SIGMOID, batch_size=32768.0, examples_seen=examples)
        )
        for examples in (450e6, 18e9)
    )
    return Claim(
        "long-training",
        "Large batches need long training.",
        "figure 3, table 8",
        f"256k against 32k: {short} at 450M examples, {long} at 18B (SigLiT, sigmoid)",
        "figure-3",
        weigh(parts, "largest batch minus the one where short training is best: in long training minus in short"),
    )


def retrieval_falls(found: Found) -> Claim:
    parts = [
        each if _reach(group.runs, group.retrieval) > SATURATION else _unreached(each)
        for group in _groups(found, "msiglip")
        for each in _falls(group, group.retrieval, "lower")
    ]
    rows = where(found.published, source="table-9", language="avg", examples_seen=3e10)
    at = {size: rows[rows["batch_size"] == size]["value"].mean() for size in (32768, 245760)}
    return Claim(
        "multilingual-retrieval",
        "In many languages retrieval falls beyond 32k.",
        "figure 8, table 9",
        f"mean R@1 of 36 languages {at[32768]:.1f} at 32k, {at[245760]:.1f} at 240k",
        "figure-8",
        weigh(parts, "mean R@1 at the largest batch size minus that at the best one; needs batches beyond 32k"),
    )


def multilingual_flat(found: Found) -> Claim:
    parts = []
    for group in _groups(found, "msiglip"):
        for loss in tables.LOSSES:
            runs = where(_longest(group), loss=loss)
            means = _means(runs, group.accuracy)
            if len(means) > 1:
                start = SATURATION if SATURATION in means.index else int(means.idxmax())
                ends = [where(runs, batch_size=int(size)) for size in (means.index.max(), start)]
                words = group.named(f"{loss}, {' against '.join(_sizes(means.index.max(), start))}")
                each = part(words, group.difference(*ends), "equal")
                parts.append(each if means.index.max() > SATURATION else _unreached(each))
    flat = [_number(found, "table-2", size, SIGMOID, 3e10) for size in (32768, 245760)]
    return Claim(
        "multilingual-flat",
        "Meanwhile accuracy in English stays flat from 32k on.",
        "table 2",
        f"{flat[0]} at 32k, {flat[1]} at 240k (ImageNet)",
        "table-2",
        weigh(parts, f"largest batch size minus 32k: within {MARGIN} points; needs batches beyond 32k"),
    )


CLAIMS = (small_batches, saturation, peaks, too_large, long_training, retrieval_falls, multilingual_flat)


def interval(result: Saturation) -> str:
    """'128 (64 to 256)': the saturation point with its interval, as far as they can be told."""
    if result.point is None:
        edge = f"at or beyond {format_batch_size(result.peak)}, where the grid ends"
        return edge if result.at_edge else "cannot tell"
    if result.low is None or result.high is None:
        return format_batch_size(result.point)
    return f"{format_batch_size(result.point)} ({format_batch_size(result.low)} to {format_batch_size(result.high)})"


def _groups(found: Found, *setups: str) -> Iterator[Group]:
    """Of these setups: runs that differ in loss, batch size, seed and length only."""
    runs = tables.placed(found.of("figure 2"))
    for setup, own in runs.groupby("setup"):
        by = [column for column in tables.series_columns(own) if column != "examples_seen"]
        for key, part_of_it in tables.split(own, by) if setup in setups else ():
            yield group_of(", ".join(filter(None, [str(setup), tables.series_label(key)])), part_of_it)


def _longest(group: Group) -> pd.DataFrame:
    """The runs of the longest training."""
    lengths = tables.numbers(group.runs["examples_seen"])
    return group.runs[lengths == lengths.max()] if lengths.notna().any() else group.runs


def _reach(runs: pd.DataFrame, metric: str, loss: str | None = None) -> float:
    """The largest batch size with a result."""
    done = tables.finished(runs if loss is None else where(runs, loss=loss))
    return done.loc[tables.numbers(done[metric]).notna(), "batch_size"].max() if metric and len(done) else 0


def _near(result: Saturation, reach: float) -> Verdict:
    if not reach > SATURATION:
        return Verdict.NOT_SHOWN
    if result.noise_points is None:
        return Verdict.TOO_FEW
    if result.point is None:  # it still rises, beyond 32k, where the grid ends
        return Verdict.CONTRADICTS if result.at_edge else Verdict.NOT_SHOWN
    low, high = result.low or 0, result.high or math.inf
    if not low <= SATURATION <= high:
        return Verdict.CONTRADICTS
    return Verdict.AGREES if low >= SATURATION / NEAR and high <= SATURATION * NEAR else Verdict.NOT_SHOWN


def _peaks_at(result: Saturation, size: int) -> Verdict:
    if result.noise_points is None:
        return Verdict.TOO_FEW
    if size not in result.peak_set:
        return Verdict.CONTRADICTS
    near = size / NEAR <= min(result.peak_set) and max(result.peak_set) <= size * NEAR
    return Verdict.AGREES if near else Verdict.NOT_SHOWN


def _falls(group: Group, metric: str, expected: str) -> Iterator[Part | None]:
    """For each loss the largest batch size minus the best. Where the best is the largest, the grid ends too early."""
    for loss in tables.LOSSES:
        runs = where(_longest(group), loss=loss)
        means = _means(runs, metric)
        if len(means) < 2:
            continue
        largest, best = int(means.index.max()), int(means.idxmax())
        if largest == best:
            text = group.named(f"{loss}, best at the largest, {format_batch_size(best)}")
            yield said(text, Verdict.NOT_SHOWN, _ids(runs)) if expected else Part(text, None, _ids(runs))
        else:
            ends = [where(runs, batch_size=size) for size in (largest, best)]
            words = group.named(f"{loss}, {' against '.join(_sizes(largest, best))}")
            yield part(words, group.difference(*ends, metric), expected, comparisons=len(means) - 1)


def _gains(group: Group, expected: str) -> Iterator[Part | None]:
    """For each loss: (largest batch minus the one where short training is best), in long training minus in short."""
    lengths = sorted(tables.numbers(group.runs["examples_seen"]).dropna().unique())
    if len(lengths) < 2:
        return
    for loss in tables.LOSSES:
        short, long = (
            where(group.runs, loss=loss, examples_seen=float(length)) for length in (lengths[0], lengths[-1])
        )
        means = _means(short, group.accuracy)
        means = means[means.index.isin(_means(long, group.accuracy).index)]
        if len(means) < 2:
            continue
        largest, best = int(means.index.max()), int(means.idxmax())
        span = f"{format_examples(lengths[-1])} minus {format_examples(lengths[0])}"
        if largest == best:
            text = group.named(f"{loss}: the largest batch, {format_batch_size(best)}, is best in short training, too")
            yield said(text, Verdict.NOT_SHOWN, _ids(short)) if expected else Part(text, None, _ids(short))
            continue
        gains = [
            group.difference(*(where(runs, batch_size=size) for size in (largest, best))) for runs in (long, short)
        ]
        words = group.named(f"{loss}, {' against '.join(_sizes(largest, best))}, {span}")
        yield part(words, _minus(*gains), expected, comparisons=len(means) - 1)


def _minus(first: Difference | None, second: Difference | None) -> Difference | None:
    """The difference of two differences with the same noise."""
    if first is None or second is None:
        return None
    error = math.hypot(first.error, second.error)
    return Difference(first.points - second.points, error, first.freedom, first.runs | second.runs)


def _unreached(each: Part | None) -> Part | None:
    return each and said(each.text, Verdict.NOT_SHOWN, each.runs)


def _sizes(*sizes: float) -> list[str]:
    return [format_batch_size(int(size)) for size in sizes]


def _means(runs: pd.DataFrame, metric: str) -> pd.Series:
    """By batch size."""
    if not metric:
        return pd.Series(dtype=float)
    return tables.summarise(runs, metric).set_index("batch_size")["mean"]


def _ids(runs: pd.DataFrame) -> set[str]:
    return set(tables.finished(runs)["run_id"].astype(str))


def _number(found: Found, source: str, size: int, loss: str, examples: float = 9e9) -> str:
    return f"{value(found.published, source, loss=loss, batch_size=float(size), examples_seen=examples):.1f}"


def _lead(published: pd.DataFrame, source: str, size: int, examples: float = 3e9) -> float:
    sigmoid, softmax = (
        value(published, source, loss=loss, batch_size=float(size), examples_seen=examples) for loss in tables.LOSSES
    )
    return sigmoid - softmax


def _best(found: Found, loss: str) -> float:
    return float(where(found.published, source="table-5", loss=loss, examples_seen=9e9)["value"].max())


def _peak(published: pd.DataFrame, source: str, loss: str, examples: float = 9e9) -> int:
    rows = where(published, source=source, loss=loss, examples_seen=examples)
    return int(rows.loc[rows["value"].idxmax(), "batch_size"])
