"""Seconds of work on a device: events in a GPU's stream, the clock on a CPU."""

import itertools
import statistics
import time
from collections.abc import Callable

import torch

WARM_UPS = 3


def median_seconds(
    work: Callable[[int], object],
    device: torch.device,
    limit_seconds: float,
    repeats: int = 20,
    warm_ups: int = WARM_UPS,
) -> float:
    """Of one call, after calls to warm up; fewer repeats, but one at least, where they would exceed the limit.

    work: gets the number of the call, to take another of its inputs each time: one that stays in the cache is faster.
    """
    for number in range(warm_ups):
        work(number)
    first = seconds(lambda: work(warm_ups), device)
    count = max(1, min(repeats, int(limit_seconds / max(first, 1e-9))))
    if count == 1:
        return first
    return statistics.median(_each(work, device, range(warm_ups + 1, warm_ups + 1 + count)))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call, with what it leaves a GPU to do."""
    return _each(lambda _: work(), device, range(1))[0]


def _each(work: Callable[[int], object], device: torch.device, numbers: range) -> list[float]:
    if device.type != "cuda":
        found = []
        for number in numbers:
            started = time.perf_counter()
            work(number)
            found.append(time.perf_counter() - started)
        return found
    # One call is queued behind the other, so that the host's time between them is hidden where it can be.
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(numbers) + 1)]
    torch.cuda.synchronize(device)
    marks[0].record()
    for number, mark in zip(numbers, marks[1:], strict=True):
        work(number)
        mark.record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) / 1e3 for before, after in itertools.pairwise(marks)]
