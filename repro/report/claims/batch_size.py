"""Claims about the batch size: who is ahead where, where growing stops paying, what training length has to do with it.

A claim that names a batch size is weighed only by runs that get there. Each is judged where the paper makes it (setup,
longest training); the same numbers of the other setup are shown beside it.
"""

import math
from collections.abc import Iterator

import pandas as pd

from repro.config.units import format_batch_size, format_examples
from repro.report.claims.evidence import Group, Part, Verdict, fixed, part, where
from repro.report.inputs import Inputs
from repro.results import tables
from repro.results.stats.saturation import Saturation, analyse

SMALL, SATURATION = 16384, 32768
PEAKS = {"sigmoid": 32768, "softmax": 98304}
NEAR = 4
"""Factor within which a batch size counts as near another: of batch sizes that double, two steps."""
Parts = Iterator[Part | None]


def small_batches(inputs: Inputs) -> Parts:
    for group in _groups(inputs, "siglip", "siglit"):
        small = group.runs[group.runs["batch_size"] < SMALL]
        pair = [where(small, loss=loss) for loss in tables.LOSSES]
        yield group.part("", pair, "higher", on=("batch_size", "examples_seen"))


def saturation(inputs: Inputs) -> Parts:
    for group in _groups(inputs, "siglip", "siglit"):
        for loss, runs, result in _saturations(group):
            verdict = _near(result) if _reach(runs, group.accuracy) > SATURATION else Verdict.NOT_SHOWN
            yield fixed(group.named(f"{loss}: {interval(result)}"), verdict, _ids(runs))


def peaks(inputs: Inputs) -> Parts:
    for group in _groups(inputs, "siglip"):
        reach = min(_reach(where(_longest(group), loss=loss), group.accuracy) for loss in tables.LOSSES)
        for loss, runs, result in _saturations(group):
            also = [format_batch_size(size) for size in result.peak_set if size != result.peak]
            words = f"{loss} at {format_batch_size(result.peak)}" + (f" (or {', '.join(also)})" if also else "")
            verdict = _peaks_at(result, PEAKS.get(loss, 0)) if reach >= max(PEAKS.values()) else Verdict.NOT_SHOWN
            yield fixed(group.named(words), verdict, _ids(runs))


def too_large(inputs: Inputs) -> Parts:
    parts = [each for group in _groups(inputs, "siglip") for each in _falls(group, group.accuracy, "lower")]
    yield from parts
    for group in _groups(inputs, "siglit") if parts else ():
        yield from _falls(group, group.accuracy, "")


def long_training(inputs: Inputs) -> Parts:
    parts = [each for group in _groups(inputs, "siglit") for each in _gains(group, "higher")]
    yield from parts
    for group in _groups(inputs, "siglip") if parts else ():
        yield from _gains(group, "")


def multilingual_retrieval(inputs: Inputs) -> Parts:
    for group in _groups(inputs, "msiglip"):
        for each in _falls(group, group.retrieval, "lower"):
            yield each if _reach(group.runs, group.retrieval) > SATURATION else _unreached(each)


def multilingual_flat(inputs: Inputs) -> Parts:
    for group in _groups(inputs, "msiglip"):
        for loss in tables.LOSSES:
            runs = where(_longest(group), loss=loss)
            means = _means(runs, group.accuracy)
            if len(means) > 1:
                largest = int(means.index.max())
                start = SATURATION if SATURATION in means.index else int(means.idxmax())
                ends = [where(runs, batch_size=size) for size in (largest, start)]
                each = group.part(f"{loss}, {_sizes(largest, start)}", ends, "equal")
                yield each if largest > SATURATION else _unreached(each)


def interval(result: Saturation) -> str:
    """'128 (64 to 256)': the saturation point with its interval, as far as they are known."""
    if result.point is None:
        edge = f"at or beyond {format_batch_size(result.peak)}, where the grid ends"
        return edge if result.at_edge else "cannot tell"
    if result.low is None or result.high is None:
        return format_batch_size(result.point)
    return f"{format_batch_size(result.point)} ({format_batch_size(result.low)} to {format_batch_size(result.high)})"


def _groups(inputs: Inputs, *setups: str) -> Iterator[Group]:
    """Runs of these setups that differ in loss, batch size, seed and length only."""
    for setup, own in tables.placed(inputs.of("figure 2")).groupby("setup"):
        by = [column for column in tables.series_columns(own) if column != "examples_seen"]
        for key, runs in tables.split(own, by) if setup in setups else ():
            yield Group(", ".join(filter(None, [str(setup), tables.series_label(key)])), runs)


def _saturations(group: Group) -> Iterator[tuple[str, pd.DataFrame, Saturation]]:
    """For each loss: its runs of the longest training, and where they are saturated."""
    runs = _longest(group)
    for result in analyse(runs, group.accuracy, by=["loss"]) if group.accuracy else ():
        loss = str(result.series["loss"])
        yield loss, where(runs, loss=loss), result


def _longest(group: Group) -> pd.DataFrame:
    lengths = tables.numbers(group.runs["examples_seen"])
    return group.runs[lengths == lengths.max()] if lengths.notna().any() else group.runs


def _reach(runs: pd.DataFrame, metric: str) -> float:
    """The largest batch size with a result."""
    done = tables.finished(runs)
    return done.loc[tables.numbers(done[metric]).notna(), "batch_size"].max() if metric and len(done) else 0


def _near(result: Saturation) -> Verdict:
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


def _falls(group: Group, metric: str, expected: str) -> Parts:
    """For each loss the largest batch size minus the best. Where the best is the largest, the grid ends too early."""
    for loss in tables.LOSSES:
        runs = where(_longest(group), loss=loss)
        means = _means(runs, metric)
        if len(means) < 2:
            continue
        largest, best = int(means.index.max()), int(means.idxmax())
        if largest == best:
            text = group.named(f"{loss}, best at the largest, {format_batch_size(best)}")
            yield fixed(text, Verdict.NOT_SHOWN if expected else None, _ids(runs))
        else:
            ends = [where(runs, batch_size=size) for size in (largest, best)]
            label = f"{loss}, {_sizes(largest, best)}"
            yield group.part(label, ends, expected, metric, comparisons=len(means) - 1)


def _gains(group: Group, expected: str) -> Parts:
    """For each loss: (largest batch minus the one where short training is best), in long training minus in short."""
    lengths = sorted(tables.numbers(group.runs["examples_seen"]).dropna().unique())
    for loss in tables.LOSSES if len(lengths) > 1 else ():
        short, long = (where(group.runs, loss=loss, examples_seen=float(lengths[place])) for place in (0, -1))
        means = _means(short, group.accuracy)
        means = means[means.index.isin(_means(long, group.accuracy).index)]
        if len(means) < 2:
            continue
        largest, best = int(means.index.max()), int(means.idxmax())
        if largest == best:
            text = group.named(f"{loss}: the largest batch, {format_batch_size(best)}, is best in short training, too")
            yield fixed(text, Verdict.NOT_SHOWN if expected else None, _ids(short))
            continue
        gains = [
            group.difference(*(where(runs, batch_size=size) for size in (largest, best))) for runs in (long, short)
        ]
        span = f"{format_examples(lengths[-1])} minus {format_examples(lengths[0])}"
        words = group.named(f"{loss}, {_sizes(largest, best)}, {span}")
        yield part(words, gains[0].minus(gains[1]), expected, comparisons=len(means) - 1)


def _unreached(each: Part | None) -> Part | None:
    return each and fixed(each.text, Verdict.NOT_SHOWN, each.runs)


def _sizes(first: float, second: float) -> str:
    return f"{format_batch_size(int(first))} against {format_batch_size(int(second))}"


def _means(runs: pd.DataFrame, metric: str) -> pd.Series:
    """Mean of the metric by batch size."""
    return tables.summarise(runs, metric).set_index("batch_size")["mean"] if metric else pd.Series(dtype=float)


def _ids(runs: pd.DataFrame) -> set[str]:
    return set(tables.finished(runs)["run_id"].astype(str))
