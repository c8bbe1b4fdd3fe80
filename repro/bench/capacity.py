"""The largest batch that fits in a given memory (SigLIP, section 4.2: 4,096 with sigmoid against 2,048 with softmax).

Each size is tried in fresh processes: doubled until one does not fit, then halved in between.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from repro.bench import measure
from repro.bench.implementations import Implementation
from repro.bench.loss import too_large
from repro.bench.ranks import on_ranks
from repro.bench.setting import Setting
from repro.config.units import format_batch_size, format_bytes

KEYS = [
    *("loss", "ranks", "dim", "dtype", "device", "threads", "model", "micro_batch"),
    *("memory_limit_bytes", "step", "implementation"),
]
LOSS_ALONE = "loss alone"


@dataclass(frozen=True)
class Search:
    """Sizes are local batches: powers of two times `smallest`, or multiples of `step` where it is not 0.

    memory_bytes: of one rank, beyond its inputs; for a training step, all that it holds. None: the card's.
    model, micro_batch: of a whole training step; without a model, the loss alone.
    """

    memory_bytes: int | None
    smallest: int = 256
    largest: int = 64 * 1024
    step: int = 0
    limit_seconds: float = 120.0
    model: str | None = None
    micro_batch: int = 512


@dataclass(frozen=True)
class Trial:
    """verdict: 'fits', 'too large', or why it is not known ('timeout', 'failed')."""

    verdict: str
    peak_bytes: float = float("nan")
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """largest: 0 where none fits. status: 'ok', 'at least' (a larger one was not tried to its end) or a failure."""

    largest: int
    status: str
    trial: Trial
    reason: str = ""


def compare(
    settings: Sequence[Setting],
    implementations: Sequence[Implementation],
    search: Search,
    report: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """One row a setting (its local batch does not count) and implementation: batch_size is the largest that fits."""
    rows = []
    for setting in settings:
        for implementation in (i for i in implementations if i.loss == setting.loss):
            reason = implementation.obstacle(setting)
            found = Found(0, "not run", Trial(""), reason) if reason else _search(implementation, setting, search)
            sized = replace(setting, local_batch=found.largest)
            row = asdict(sized) | {"batch_size": sized.batch_size, "implementation": implementation.name}
            row |= {"model": search.model or LOSS_ALONE, "micro_batch": search.micro_batch if search.model else 0}
            row |= {"memory_limit_bytes": search.memory_bytes or _card_bytes(), "step": search.step}
            row |= {"status": found.status, "reason": found.reason, "peak_memory_bytes": found.trial.peak_bytes}
            rows.append(row)
            if not reason:
                size = format_batch_size(found.largest)
                report(f"{implementation.name} ({setting.loss}): {found.status} {size} a rank; {found.reason}")
    return pd.DataFrame(rows)


def largest_that_fits(try_size: Callable[[int], Trial], search: Search) -> Found:
    """Doubling, then bisection over multiples of the step. What fits is taken to fit at all smaller sizes too."""
    best, trial, size = 0, Trial(""), search.smallest
    while True:
        new = try_size(size)
        if new.verdict != "fits":
            break
        best, trial = size, new
        if 2 * size > search.largest:
            return Found(best, "at least", trial, "larger sizes were not tried")
        size *= 2
    too_large, reason = size, new.reason
    while new.verdict in ("fits", "too large") and search.step:
        between = best + (too_large - best) // 2 // search.step * search.step
        if between in (best, 0):
            break
        new = try_size(between)
        if new.verdict == "fits":
            best, trial = between, new
        else:
            too_large, reason = between, new.reason
    reason = f"{format_batch_size(too_large)}: {reason}"
    if new.verdict in ("fits", "too large"):
        return Found(best, "ok" if best else "none fits", trial, reason)
    return Found(best, "at least" if best else new.verdict, trial, reason)


def _search(implementation: Implementation, setting: Setting, search: Search) -> Found:
    return largest_that_fits(lambda size: _try(implementation, replace(setting, local_batch=size), search), search)


def _try(implementation: Implementation, setting: Setting, search: Search) -> Trial:
    if reason := too_large(implementation, setting):
        return Trial("too large", reason=reason)
    options = {"ranks": setting.ranks, "threads": setting.threads, "device": setting.device}
    options |= {"limit_seconds": search.limit_seconds}
    if setting.device == "cpu":
        options |= {"most_bytes": search.memory_bytes}
    if search.model:
        from repro.bench import training_step

        arguments = (implementation, setting, search.model, search.micro_batch, search.memory_bytes)
        outcome = on_ranks(training_step.peak_memory, *arguments, **options)
    else:
        outcome = on_ranks(measure.peak_memory, implementation, setting, search.memory_bytes, **options)
    if outcome.status == "oom":
        return Trial("too large", reason=outcome.reason)
    if outcome.status != "ok":
        return Trial(outcome.status, reason=outcome.reason)
    peak = max(outcome.values)
    if search.memory_bytes is not None and peak > search.memory_bytes:
        return Trial("too large", peak, f"held {format_bytes(peak)}")
    return Trial("fits", peak)


def _card_bytes() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory
