"""The largest batch that fits in a given memory (SigLIP, section 4.2: 4,096 with sigmoid against 2,048 with softmax).

Each size is tried in fresh processes: doubled until one does not fit, then halved in between.
"""

import functools
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from repro.bench import measure
from repro.bench.implementations import LOGIT_BIAS, LOGIT_SCALE, Implementation, Setting
from repro.bench.loss import too_large
from repro.bench.ranks import on_ranks
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size, format_bytes
from repro.data.pairs import PairBatch
from repro.loss.registry import LOSSES
from repro.models import build
from repro.train import distributed
from repro.train.optim import make_optimizer
from repro.train.step import accumulate_gradient

KEYS = ["loss", "ranks", "dim", "dtype", "device", "threads", "model", "micro_batch"]
KEYS += ["memory_limit_bytes", "step", "implementation"]
STEPS = 2
"""Optimizer steps: the first makes the moments, the second has them beside the activations."""


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
    """status: of one size 'fits', 'too large', or why it is not known ('timeout', 'failed'); of the largest that fits
    'ok', 'at least' (a larger one was not tried to its end), 'none fits' or a failure.
    """

    status: str
    peak_bytes: float = math.nan
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
            largest, found = 0, Trial("not run", reason=implementation.obstacle(setting))
            if not found.reason:
                size_of = functools.partial(_try, implementation, setting, search)
                largest, found = largest_that_fits(size_of, search)
                size = format_batch_size(largest)
                report(f"{implementation.name} ({setting.loss}): {found.status} {size} a rank; {found.reason}")
            sized = replace(setting, local_batch=largest)
            row = asdict(sized) | {"batch_size": sized.batch_size, "implementation": implementation.name}
            row |= {"model": search.model or "loss alone", "micro_batch": search.micro_batch if search.model else 0}
            limit = search.memory_bytes or torch.cuda.get_device_properties(0).total_memory
            row |= {"memory_limit_bytes": limit, "step": search.step}
            row |= {"status": found.status, "reason": found.reason, "peak_memory_bytes": found.peak_bytes}
            rows.append(row)
    return pd.DataFrame(rows)


def largest_that_fits(try_size: Callable[[int], Trial], search: Search) -> tuple[int, Trial]:
    """Doubling, then bisection over multiples of the step. What fits is taken to fit at all smaller sizes too.

    Returns 0 where none fits.
    """
    best, peak, size = 0, math.nan, search.smallest
    while (new := try_size(size)).status == "fits":
        best, peak = size, new.peak_bytes
        if 2 * size > search.largest:
            return best, Trial("at least", peak, "larger sizes were not tried")
        size *= 2
    too_large, reason = size, new.reason
    while new.status in ("fits", "too large") and search.step:
        between = best + (too_large - best) // 2 // search.step * search.step
        if between in (best, 0):
            break
        new = try_size(between)
        if new.status == "fits":
            best, peak = between, new.peak_bytes
        else:
            too_large, reason = between, new.reason
    known = new.status in ("fits", "too large")
    status = ("ok" if known else "at least") if best else "none fits" if known else new.status
    return best, Trial(status, peak, f"{format_batch_size(too_large)}: {reason}")


def _try(implementation: Implementation, setting: Setting, search: Search, size: int) -> Trial:
    setting = replace(setting, local_batch=size)
    if reason := too_large(implementation, setting):
        return Trial("too large", reason=reason)
    most_bytes = search.memory_bytes
    options = {"ranks": setting.ranks, "threads": setting.threads, "device": setting.device}
    options |= {"limit_seconds": search.limit_seconds}
    if search.model:
        arguments = (implementation, setting, search.model, search.micro_batch, most_bytes)
        outcome = on_ranks(peak_memory_of_training, *arguments, **options)
    else:
        outcome = on_ranks(measure.peak_memory, implementation, setting, most_bytes, **options)
    if outcome.status != "ok":
        return Trial("too large" if outcome.status == "oom" else outcome.status, reason=outcome.reason)
    peak = max(outcome.values)
    if most_bytes is not None and peak > most_bytes:
        return Trial("too large", peak, f"held {format_bytes(peak)}")
    return Trial("fits", peak)


def peak_memory_of_training(
    rank: int,
    implementation: Implementation,
    setting: Setting,
    model: str,
    micro_batch: int,
    most_bytes: int | None = None,
) -> int:
    """Bytes at the peak of two optimizer steps on random pairs, over what the process held before it made the model.

    Weights, optimizer, activations, embeddings and the loss. setting.dtype bf16 is autocast, as in training: weights,
    embeddings and loss are in fp32.
    """
    with tempfile.TemporaryDirectory() as folder:
        bias = LOGIT_BIAS if LOSSES[setting.loss].has_bias else None
        build.export(model, Path(folder), math.log(LOGIT_SCALE), bias)
        measure.limit_memory(setting.device, most_bytes)

        def work() -> None:
            _train(implementation, setting, Path(folder), model, micro_batch, rank)

        return measure.peak_growth_bytes(work, setting.device)


def _train(
    implementation: Implementation, setting: Setting, folder: Path, model: str, micro_batch: int, rank: int
) -> None:
    loss = implementation.make(rank, setting.ranks)
    autocast = torch.autocast(setting.device, torch.bfloat16, enabled=setting.dtype == "bf16")
    towers = build.load(folder, setting.device)
    trained = towers.model.train()
    sizes = dict.fromkeys(("batch_size", "micro_batch", "examples_seen"), setting.batch_size)
    about = {"setup": "siglip", "scale": "laptop", "data": "random", "model": model, "loss": setting.loss}
    # The laptop recipe's optimizer; sizes do not change what it holds.
    optimizer = make_optimizer(trained, RunSpec(**about, **sizes, learning_rate=1e-3, weight_decay=1e-4))
    images = torch.randint(256, (setting.local_batch, 3, *towers.image_size), dtype=torch.uint8)
    batch = PairBatch(images, torch.randint(1, 1000, (setting.local_batch, towers.context_length)))

    def embed_images(images: torch.Tensor) -> torch.Tensor:
        with autocast:
            return F.normalize(trained.encode_image(towers.normalize(images)).float(), dim=-1)

    def embed_texts(tokens: torch.Tensor) -> torch.Tensor:
        with autocast:
            return F.normalize(trained.encode_text(tokens.to(setting.device)).float(), dim=-1)

    def loss_of(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
        bias = (trained.logit_bias,) if LOSSES[setting.loss].has_bias else ()
        return loss(image_features, text_features, trained.logit_scale.exp(), *bias)

    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        accumulate_gradient(embed_images, embed_texts, loss_of, batch, micro_batch)
        distributed.average_gradients(trained.parameters())
        optimizer.step()
