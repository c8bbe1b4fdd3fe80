"""What was found, in a sentence: 'saturates at 16k (16k to 32k); beyond 32k nothing is gained, +0.1 ± 0.4'."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scipy.special import stdtrit

from repro.config.units import format_batch_size
from repro.results.series import signed
from repro.results.stats.differences import LEVEL, Difference
from repro.results.stats.noise import POOLED, UNKNOWN, published_noise

if TYPE_CHECKING:
    import pandas as pd

LENT_TO_OTHERS = ", of ImageNet accuracy, lent to this metric"


def conclude(found: Mapping[str, Any]) -> str:
    """found: the fields of a Saturation but the conclusion."""
    sizes = found["sizes"]
    if len(sizes) == 1:
        return f"only {format_batch_size(sizes[0])} has a result: where growing stops paying cannot be said"
    parts = [_place(found), *_beyond(found)]
    if found["without_result"]:
        failed = [f"{format_batch_size(size)} ({why})" for size, why in found["without_result"].items()]
        parts.append(f"no result at {', '.join(failed)}")
    text = "; ".join(parts)
    if found["noise_source"] == UNKNOWN:
        return f"cannot tell: one run each, and no noise to borrow. Taken as they stand: {text}"
    if found["noise_source"] == published_noise().source:
        lent = "" if found["metric"].startswith("imagenet1k/") else LENT_TO_OTHERS
        return f"{text}. Single runs, with the noise published in table 7{lent}"
    if found["noise_source"].startswith(POOLED):
        return f"{text}. Noise {found['noise_source']}"
    return text


def batch_sizes(sizes: Sequence[int]) -> str:
    """16k, 32k and 64k."""
    names = [format_batch_size(size) for size in sizes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def points(difference: Difference) -> str:
    """+0.1 ± 0.2; the number alone where the noise is unknown."""
    width = difference.half_width
    return signed(difference.difference_points) + (f" ± {width:.1f}" if width == width else "")


def _place(found: Mapping[str, Any]) -> str:
    sizes, point = found["sizes"], found["point"]
    if point is None:
        return f"still rising at {format_batch_size(sizes[-1])}, the largest: saturates there or beyond"
    low, high = found["low"], found["high"]
    text = f"saturates at {'or below ' if point == sizes[0] else ''}{format_batch_size(point)}"
    if low is not None and low != high:
        from_low = f"{format_batch_size(low)} {'or less ' if low == sizes[0] else ''}to"
        from_low = "at most" if point == sizes[0] else from_low
        text += f" ({from_low} {format_batch_size(high)})"
    if found["peak"] == sizes[0]:
        text += ", the smallest, which is the peak"
    elif found["peak"] == sizes[-1] and high in (None, sizes[-1]):
        text += f"; the peak is the largest, {format_batch_size(sizes[-1])}: more may be gained beyond it"
    return text


def _beyond(found: Mapping[str, Any]) -> list[str]:
    """What the batch sizes above the reference do to the accuracy."""
    beyond, reference = found["beyond"], format_batch_size(found["reference"])
    if not beyond:
        return []
    if found["noise_source"] == UNKNOWN:
        told = ", ".join(f"{format_batch_size(d.batch_size)} {points(d)}" for d in beyond)
        return [f"against {reference}: {told}"]
    rest = [d for d in beyond if d.verdict in ("equal", "cannot tell")]
    parts = []
    if rest:
        largest = max(rest, key=lambda d: d.difference_points)
        doubtful = [d for d in rest if not _gain_is_excluded(d, found)]
        if not doubtful:
            where = (
                f"beyond {reference}" if len(rest) == len(beyond) else f"at {batch_sizes([d.batch_size for d in rest])}"
            )
            parts.append(f"{where} nothing is gained, {points(largest)}")
        else:
            names = batch_sizes([d.batch_size for d in doubtful])
            verb = "gains" if len(doubtful) == 1 else "gain"
            parts.append(f"whether {names} {verb} over {reference} cannot be told, {points(largest)}")
    for verdict, verb in (("higher", "gains"), ("lower", "loses")):
        for d in beyond:
            if d.verdict == verdict:
                amount = f"{abs(d.difference_points):.1f} ± {d.half_width:.1f}"
                parts.append(f"{format_batch_size(d.batch_size)} {verb} {amount}")
    fallen = [d for d in rest if d.batch_size > found["peak"] and d.batch_size not in found["peak_set"]]
    if fallen:
        parts.append(
            f"{batch_sizes([d.batch_size for d in fallen])} below the peak of {format_batch_size(found['peak'])}"
        )
    return parts


def _gain_is_excluded(difference: Difference, found: Mapping[str, Any]) -> bool:
    """Whether a gain of the margin or more is excluded, at 5 %."""
    degrees = max(1, found["noise_degrees"])
    error = difference.half_width / stdtrit(degrees, 1 - LEVEL / 2)
    return difference.difference_points + stdtrit(degrees, 1 - LEVEL) * error < found["margin_points"]


def compare(rows: "pd.DataFrame") -> str:
    """'sigmoid ahead from 512 to 8k (+1.2 to +4.1); equal at 32k': rows of compare_losses, of one pair and series."""
    rows = rows.sort_values("batch_size")
    sizes = rows["batch_size"].tolist()
    parts = []
    losses = [rows["loss_a"].iloc[0], rows["loss_b"].iloc[0]]
    for verdict in (*losses, "equal", "cannot tell"):
        of_it = rows[rows["verdict"] == verdict]
        if len(of_it):
            where = _runs_of(of_it["batch_size"].tolist(), sizes)
            ahead = f"{verdict} ahead" if verdict in losses else verdict
            low, high = (signed(end) for end in (of_it["difference_points"].min(), of_it["difference_points"].max()))
            parts.append(f"{ahead} {where} ({low if low == high else f'{low} to {high}'})")
    return "; ".join(parts)


def _runs_of(chosen: Sequence[int], sizes: Sequence[int]) -> str:
    """'from 512 to 8k' where they follow one another in `sizes`, 'at 512, 8k and 32k' otherwise."""
    first, last = sizes.index(chosen[0]), sizes.index(chosen[-1])
    if last - first >= 2 and last - first + 1 == len(chosen):
        return f"from {format_batch_size(chosen[0])} to {format_batch_size(chosen[-1])}"
    return f"at {batch_sizes(chosen)}"
