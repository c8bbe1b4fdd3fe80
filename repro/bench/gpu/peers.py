"""Both losses beside peers', forward and backward in bf16; larger batches and all block sizes for ours alone.

Each implementation has a process of its own, which writes a row as soon as it has a figure: one that crashes or is too
slow takes nothing from the others. The largest batches that a goal is set for come first.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from repro.bench.gpu.ceilings import product_rate
from repro.bench.gpu.place import Place, Rows
from repro.bench.implementations import IMPLEMENTATIONS, LOGIT_BIAS, LOGIT_SCALE, Implementation, Setting, embeddings
from repro.bench.measure import (
    WARM_UP_BATCH,
    error_parts,
    forward_and_backward,
    median_seconds,
    peak_growth_bytes,
    reference_gradients,
    relative_errors,
    seconds_each,
)
from repro.bench.ranks import on_ranks
from repro.config.units import format_batch_size
from repro.loss import kernels

OURS = "repro-ring"
FIRST = (("sigmoid", OURS), ("sigmoid", "siglip-kernel"), ("softmax", OURS), ("softmax", "inf-cl"))
"""Ours and the peers that goals are set against."""
THEN = (("sigmoid", "open_clip-bidir"), ("softmax", "open_clip-global"), ("sigmoid", "plain"), ("softmax", "plain"))
GOALS = {("sigmoid", "siglip-kernel"): 0.75, ("softmax", "inf-cl"): 0.5}
"""Goal: our time as a share of theirs, at most."""
PREDICTED = {65_536: ("0.036 to 0.044", 0.0358, None), 1_048_576: ("8 to 12", 12.0, 16e9)}
"""Our sigmoid by batch size: predicted seconds, and the goals for seconds and bytes."""
PEERS_CHECKED_UP_TO = 8192
"""Their gradients are held against float64 at this batch; ours at every one that they are measured at."""
ENOUGH_SECONDS = 1.5
"""For the repeats of one figure."""
START_SECONDS, END_SECONDS = 8.0, 2.0
"""Time that an implementation's process takes at least, and to note that it was stopped."""


@dataclass(frozen=True)
class Sizes:
    """Batches: those that all are measured at, largest first; larger ones; the one whose block sizes are compared."""

    dim: int
    all: tuple[int, ...]
    large: tuple[int, ...]
    tile: int


ON_GPU = Sizes(768, (65_536, 32_768, 8192), (262_144, 1_048_576), 16_384)
TOY = Sizes(32, (256, 128, 64), (512,), 64)


def measure(place: Place) -> None:
    sizes = TOY if place.toy else ON_GPU
    rate = product_rate(place)
    if rate is None:
        place.rows.add_missing("all", "not run", "no machine.csv with a product rate in this folder", "share of rate")
    found: dict[tuple[str, str], dict[int, float]] = {}
    failures: list[str] = []
    for keys in (FIRST, THEN):
        for key in keys:
            found[key] = _measure_one(place, key, sizes.all, rate, failures)
            _compare(place, key, found, sizes.all[0])
        if keys is FIRST:
            for loss in ("sigmoid", "softmax"):
                _measure_one(place, (loss, OURS), sizes.large, rate, failures)
            _compare_blocks(place, sizes)
    if failures:
        raise SystemExit("; ".join(failures))


def _measure_one(
    place: Place, key: tuple[str, str], batches: Sequence[int], rate: float | None, failures: list[str]
) -> dict[int, float]:
    """Seconds by batch size. failures: gets those of ours; a peer's is a row."""
    (implementation,) = (i for i in IMPLEMENTATIONS if (i.loss, i.name) == key)
    dim, threads = (TOY if place.toy else ON_GPU).dim, os.cpu_count() or 1
    settings = [Setting(key[0], 1, batch, dim, "bf16", place.device, threads) for batch in batches]
    if reason := implementation.obstacle(settings[0]):
        place.rows.add_missing(_case(implementation, settings[0]), "not run", reason)
        return {}
    place.reserve(START_SECONDS, _case(implementation, settings[0]))
    options = {"threads": threads, "device": place.device, "limit_seconds": place.left - END_SECONDS}
    outcome = on_ranks(_measure_sizes, implementation, settings, place, rate, **options)
    if outcome.status == "ok":
        return outcome.values[0]
    place.rows.add_missing(f"{key[0]}, {key[1]}", outcome.status, outcome.reason)
    if implementation.name == OURS and outcome.status != "timeout":
        failures.append(f"{key[0]}, {key[1]}: {outcome.reason}")
    return {}


def _case(implementation: Implementation, setting: Setting) -> str:
    return f"{implementation.loss}, {implementation.name}, B = {format_batch_size(setting.batch_size)}"


def _measure_sizes(
    rank: int, implementation: Implementation, settings: Sequence[Setting], place: Place, rate: float | None
) -> dict[int, float]:
    """In a process of its own: seconds by batch size. What does not fit the memory is a row that says so."""
    forward_and_backward(implementation, replace(settings[0], local_batch=WARM_UP_BATCH), rank)()
    found = {}
    for setting in settings:
        try:
            found[setting.batch_size] = _measure_size(implementation, setting, place, rate)
        except torch.OutOfMemoryError as error:
            place.rows.add_missing(_case(implementation, setting), "oom", str(error).splitlines()[0][:200])
        if setting.device == "cuda":
            torch.cuda.empty_cache()
    return found


def _measure_size(implementation: Implementation, setting: Setting, place: Place, rate: float | None) -> float:
    case, rows, batch = _case(implementation, setting), place.rows, setting.batch_size
    ours = implementation.name == OURS
    call = forward_and_backward(implementation, setting, 0)
    device, first = torch.device(setting.device), []
    peak = peak_growth_bytes(lambda: first.extend(seconds_each(lambda _: call(), device, range(1))), setting.device)
    seconds = first[0] if first[0] > ENOUGH_SECONDS else median_seconds(lambda _: call(), device, ENOUGH_SECONDS)
    is_goal = ours and setting.loss == "sigmoid"
    predicted, most_seconds, most_bytes = PREDICTED.get(batch, ("", None, None)) if is_goal else ("", None, None)
    rows.add(case, "seconds", seconds, "s", place.expected(predicted, at_most=most_seconds))
    rows.add(case, "products", setting.operations / seconds / 1e12, "TFLOP/s")
    if rate is not None:
        rows.add(case, "share of the product rate", setting.operations / seconds / rate)
    rows.add(case, "peak memory", peak, "bytes", place.expected("", at_most=most_bytes))
    if batch <= (max(ON_GPU.all) if ours else PEERS_CHECKED_UP_TO):
        goal = place.expected("", at_most=2**-8 if ours else None)
        found = call()
        exact = reference_gradients(setting.loss, *embeddings(setting, 0), LOGIT_SCALE, LOGIT_BIAS)
        for name, error in relative_errors([error_parts(found, exact)]).items():
            rows.add(case, name, error, "relative", goal)
    return seconds


def _compare(place: Place, key: tuple[str, str], found: dict[tuple[str, str], dict[int, float]], batch: int) -> None:
    """Our time as a share of this peer's at the largest batch that both are measured at."""
    loss, peer = key
    ours, theirs = found[loss, OURS].get(batch), found[key].get(batch)
    if peer != OURS and ours and theirs:
        case = f"{loss}, {OURS}, B = {format_batch_size(batch)}"
        place.rows.add(case, f"time ÷ {peer}'s", ours / theirs, "", place.expected("", at_most=GOALS.get(key)))


def _compare_blocks(place: Place, sizes: Sizes) -> None:
    if not kernels.available(place.torch_device):
        place.rows.add_missing("blocks of the kernels", "not run", "the Triton kernels need cuda")
        return
    place.reserve(START_SECONDS, "blocks of the kernels")
    options = {"device": place.device, "limit_seconds": place.left - END_SECONDS}
    outcome = on_ranks(_measure_blocks, place.rows, sizes.dim, sizes.tile, **options)
    if outcome.status != "ok":
        place.rows.add_missing("blocks of the kernels", outcome.status, outcome.reason)


def _measure_blocks(rank: int, rows: Rows, dim: int, tile: int) -> None:
    """Time each kernel with each candidate on the four tiles of a batch of 32k, of which a loss makes all."""
    setting = Setting("sigmoid", 1, tile, dim, "bf16", "cuda", 1)
    images, texts = embeddings(setting, 0)
    t, b = (torch.tensor(value, device="cuda") for value in (LOGIT_SCALE, LOGIT_BIAS))
    gradient = kernels.space(images, (tile, tile)).view(tile, tile)
    lse = [torch.full((tile,), 12.0, device="cuda") for _ in range(2)]
    calls = {
        "sigmoid_tile": lambda blocks: kernels.sigmoid_tile(images, texts, t, b, 0, gradient, blocks=blocks),
        "softmax_sums_tile": lambda blocks: kernels.softmax_sums_tile(images, texts, t, t, blocks=blocks),
        "softmax_gradient_tile": lambda blocks: kernels.softmax_gradient_tile(
            images, texts, t, *lse, 0, gradient, blocks=blocks
        ),
    }
    default = kernels.default_blocks(images)
    for name, call in calls.items():
        for blocks in kernels.CANDIDATES:
            note = " (default)" if blocks == default else ""
            sides = "x".join(map(str, blocks[:3]))
            case = f"{name}, B = 32k, blocks {sides}, {blocks.warps} warps, {blocks.stages} stages{note}"
            try:
                seconds = 4 * median_seconds(lambda _, c=call, b=blocks: c(b), torch.device("cuda"), 0.3, repeats=10)
            except Exception as error:  # whatever the compiler says of blocks that do not fit the card
                rows.add_missing(case, "failed", f"{type(error).__name__}: {str(error).splitlines()[0][:150]}")
                continue
            rows.add(case, "seconds", seconds, "s")
            rows.add(case, "product", 4 * 2e-12 * tile * tile * dim / seconds, "TFLOP/s")
