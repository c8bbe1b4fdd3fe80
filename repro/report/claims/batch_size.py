"""Claims about the batch size: who is ahead where, where growing stops paying, what training length has to do with it.

A claim that names a batch size can be weighed only by a sweep that gets there; one about the shape of the curve (beyond
the best, larger is worse) by any sweep whose best lies inside its grid.
"""

from collections.abc import Iterator

import pandas as pd

from repro.analysis.saturation import Saturation, analyse
from repro.counts import format_batch_size, format_examples
from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import (
    MARGIN,
    NOTHING,
    Difference,
    Evidence,
    Verdict,
    accuracy_metric,
    difference,
    retrieval_metric,
    together,
    weigh,
    where,
)
from repro.report.found import Found

SWEEP = "batch-size"
SMALL, SATURATION = 16384, 32768
SIGMOID, SOFTMAX = tables.LOSSES


def small_batches(found: Found) -> Claim:
    parts = []
    for label, series, metric in _series(found, "siglip", "siglit"):
        small = series[series["batch_size"] < SMALL]
        pair = [where(small, loss=loss) for loss in tables.LOSSES]
        parts.append((label, difference(*pair, metric, series, on=["batch_size"]), "higher"))
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
    for label, series, metric in _series(found, "siglip", "siglit"):
        for result in analyse(series, metric, by=["loss"]):
            loss = result.series["loss"]
            largest = int(series["batch_size"].max())
            runs = len(tables.finished(where(series, loss=loss)))
            reaches = largest > SATURATION
            if result.point is None or result.low is None:
                verdict = Verdict.TOO_FEW if reaches else Verdict.NOT_SHOWN
            else:
                hit = result.low <= SATURATION <= result.high
                verdict = (Verdict.AGREES if hit else Verdict.CONTRADICTS) if reaches else Verdict.NOT_SHOWN
            parts.append((verdict, f"{label}, {loss}: {interval(result)}", runs))
    return Claim(
        "saturation",
        "Both losses are saturated near a batch size of 32k.",
        "figure 2, tables 5 and 8",
        "SigLIP at 9B examples: "
        + "; ".join(
            f"{loss} {_number(found, 'table-5', 16384, loss)} at 16k, {_number(found, 'table-5', 32768, loss)} at 32k, "
            f"{_number(found, 'table-5', 98304, loss)} at 98k"
            for loss in tables.LOSSES
        ),
        "saturation",
        _listed(parts, "the saturation point's interval holds 32k; grids that end before it cannot show it"),
    )


def peaks(found: Found) -> Claim:
    parts = []
    for label, series, metric in _series(found, "siglip"):
        best = {
            loss: _means(series, metric, loss).idxmax() for loss in tables.LOSSES if len(_means(series, metric, loss))
        }
        reaches = series["batch_size"].max() >= 98304
        hit = best.get(SIGMOID) == SATURATION and best.get(SOFTMAX) == 98304
        several = _has_seeds(series)
        verdict = (Verdict.AGREES if hit else Verdict.CONTRADICTS) if several else Verdict.TOO_FEW
        words = ", ".join(f"{loss} at {format_batch_size(int(size))}" for loss, size in best.items())
        end = format_batch_size(int(series["batch_size"].max()))
        parts.append(
            (
                verdict if reaches else Verdict.NOT_SHOWN,
                f"{label}: {words}, of up to {end}",
                len(tables.finished(series)),
            )
        )
    paper = ", ".join(
        f"{loss} at {format_batch_size(_peak(found.published, 'table-5', loss))}" for loss in tables.LOSSES
    )
    return Claim(
        "peaks",
        "SigLIP is best at 32k with the sigmoid and at 98k with the softmax loss.",
        "table 5",
        f"{paper} (9B examples)",
        "table-5",
        _listed(parts, "needs batch sizes up to 98k"),
    )


def too_large(found: Found) -> Claim:
    parts = [part for series in _series(found, "siglip", "siglit") for part in _falls(*series)]
    largest = {loss: value(found.published, "table-5", loss=loss, batch_size=307200.0) for loss in tables.LOSSES}
    drops = [f"{loss} {tables.signed(number - _best(found, loss))}" for loss, number in largest.items()]
    return Claim(
        "too-large",
        "Far beyond the best batch size accuracy falls, with both losses.",
        "table 5",
        f"at 307k, from the best: {', '.join(drops)} (SigLIP, 9B examples)",
        "figure-2",
        weigh(
            parts,
            "the largest batch size minus the best one; the best is chosen from the same runs, so intervals are wider",
        ),
    )


def retrieval_falls(found: Found) -> Claim:
    parts = [part for series in _series(found, "msiglip", retrieval=True) for part in _falls(*series)]
    rows = where(found.published, source="table-9", language="avg", examples_seen=3e10)
    at = {size: rows[rows["batch_size"] == size]["value"].mean() for size in (32768, 245760)}
    return Claim(
        "multilingual-retrieval",
        "In many languages retrieval falls beyond 32k.",
        "figure 8, table 9",
        f"mean R@1 of 36 languages {at[32768]:.1f} at 32k, {at[245760]:.1f} at 240k",
        "figure-8",
        weigh(parts, "mean R@1 at the largest batch size minus that at the best one"),
    )


def multilingual_flat(found: Found) -> Claim:
    parts = []
    for label, series, metric in _series(found, "msiglip"):
        # Whatever is to stay flat has first to be saturated: from the batch that is best in retrieval on.
        retrieval = retrieval_metric(series)
        for loss in tables.LOSSES:
            means = _means(series, retrieval or metric, loss)
            if len(means) and means.idxmax() < means.index.max():
                ends = [where(series, loss=loss, batch_size=int(size)) for size in (means.index.max(), means.idxmax())]
                parts.append((f"{label}, {loss}", difference(*ends, metric, series), "equal"))
    flat = [_number(found, "table-2", size, SIGMOID, 3e10) for size in (32768, 245760)]
    return Claim(
        "multilingual-flat",
        "Meanwhile accuracy in English stays flat from 32k on.",
        "table 2",
        f"{flat[0]} at 32k, {flat[1]} at 240k (ImageNet)",
        "table-2",
        weigh(parts, f"largest batch size minus the one of best retrieval: within {MARGIN} points"),
    )


def long_training(found: Found) -> Claim:
    parts = []
    for setup in ("siglip", "siglit"):
        lengths: dict[tuple[str, int], pd.DataFrame] = {}
        metrics = set()
        for _, series, metric in _series(found, setup):
            metrics.add(metric)
            for loss in tables.LOSSES:
                lengths[loss, int(series["examples_seen"].iloc[0])] = where(series, loss=loss)
        for metric in metrics:
            for loss in tables.LOSSES:
                own = sorted(length for of, length in lengths if of == loss)
                if len(own) > 1:
                    more = _growth(lengths[loss, own[-1]], lengths[loss, own[0]], metric)
                    words = " minus ".join(format_examples(length) for length in (own[-1], own[0]))
                    parts.append((f"{setup}, {loss}, {words}", more, "higher"))
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
        weigh(parts, "what the largest batch has over the smaller one where short training is best: long minus short"),
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


def _series(found: Found, *setups: str, retrieval: bool = False) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """(label, runs, metric) of each setup, scale, model, data and length of the sweep, both losses together."""
    runs = tables.placed(where(found.ours, sweep=SWEEP))
    for setup, part in runs[runs["setup"].isin(setups)].groupby("setup"):
        metric = retrieval_metric(part) if retrieval else accuracy_metric(part)
        if metric is not None:
            for key, series in tables.split(part, tables.series_columns(part)):
                yield ", ".join(filter(None, [str(setup), tables.series_label(key)])), series, metric


def _falls(label: str, series: pd.DataFrame, metric: str) -> Iterator[tuple[str, Difference | None, str]]:
    """For each loss the largest batch size against the best; if it is the best, the grid ends too early to tell."""
    for loss in tables.LOSSES:
        means = _means(series, metric, loss)
        if len(means) > 1:
            largest, best = means.index.max(), means.idxmax()
            words = f"{label}, {loss}, {format_batch_size(int(largest))} against {format_batch_size(int(best))}"
            ends = [where(series, loss=loss, batch_size=int(size)) for size in (largest, best)]
            if largest == best:
                yield words, Difference(0.0, -float("inf"), float("inf"), len(ends[0])), "lower"
            else:
                yield words, difference(*ends, metric, series, comparisons=len(means) - 1), "lower"


def _growth(long: pd.DataFrame, short: pd.DataFrame, metric: str) -> Difference | None:
    """How much more (largest batch minus the batch where short training is best) is with long training, in points."""
    means = 100 * tables.summarise(short, metric).set_index("batch_size")["mean"]
    shared = means.index.intersection(tables.finished(long)["batch_size"].unique())
    if len(shared) < 2:
        return None
    largest, best = int(shared.max()), int(means[shared].idxmax())
    if largest == best:
        return None
    ends = [[where(runs, batch_size=size) for size in (largest, best)] for runs in (long, short)]
    of_long, of_short = (difference(*pair, metric, runs) for pair, runs in zip(ends, (long, short), strict=True))
    if of_long is None or of_short is None:
        return None
    half = ((of_long.high - of_long.points) ** 2 + (of_short.high - of_short.points) ** 2) ** 0.5
    points = of_long.points - of_short.points
    return Difference(points, points - half, points + half, of_long.runs + of_short.runs)


def _listed(parts: list[tuple[Verdict, str, int]], detail: str) -> Evidence:
    if not parts:
        return NOTHING
    words = "; ".join(text for _, text, _ in parts)
    return Evidence(together([verdict for verdict, _, _ in parts]), words, sum(runs for *_, runs in parts), detail)


def _means(series: pd.DataFrame, metric: str, loss: str) -> pd.Series:
    """In percent, by batch size."""
    return 100 * tables.summarise(where(series, loss=loss), metric).set_index("batch_size")["mean"]


def _has_seeds(series: pd.DataFrame) -> bool:
    return bool((tables.finished(series).groupby(["loss", "batch_size"])["seed"].nunique() > 1).any())


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
