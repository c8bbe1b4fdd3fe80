"""Steps of training on one device: of resident random batches, beside open_clip's towers and loss, and fed from shards.

They are steps of the very trainers of a run, in a folder of their own. Where batches are resident nobody decodes and
copies them; fed by all cores from shards of JPEGs, what is left of that speed is measured.
"""

import itertools
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from repro.bench.gpu.ceilings import photo_like_jpegs, product_rate
from repro.bench.gpu.place import NOTHING_EXPECTED, Expected, Place
from repro.bench.gpu.resident import (
    MANY_STEPS,
    MOST_STEPS,
    enough_seconds,
    random_batch,
    release,
    spec_of,
    take_steps,
    trainer_of,
    without_hub_tokenizer,
)
from repro.bench.measure import median_seconds
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size
from repro.data.pairs import CHUNK, PairBatch, batches
from repro.models import build
from repro.models.sizes import model_size
from repro.train.checkpoint import Checkpoints
from repro.train.failures import is_out_of_memory
from repro.train.meters import peak_memory_bytes
from repro.world.write import write_tar

MODEL, TEXT_MODEL = "siglip-b16", "siglit-b16-s"
COMPILE_SECONDS = 50.0
"""Estimate for torch.compile of both towers, forward and backward."""
START_SECONDS = 8.0
"""Least time until a trainer has been measured."""
DISTINCT = 64
"""Images that the shards repeat: decoding takes as long the second time, as no decoded sample is kept."""
SHARD = 512


@dataclass(frozen=True)
class Cases:
    """Cases in the order of their worth: ours (batch, whether deterministic), open_clip's (whether compiled)
    and the text tower alone (batch). open_clip: batches to try it at.
    """

    order: tuple[tuple, ...]
    micro_batch: int
    open_clip: tuple[int, ...]


ON_GPU = Cases(
    (
        *(("ours", 512, True), ("open_clip", False), ("ours", 2048, True), ("ours", 512, False)),
        *(("texts", 32_768), ("texts", 262_144), ("ours", 8192, True), ("ours", 2048, False), ("open_clip", True)),
    ),
    512,
    (1024, 512, 256, 128),
)
TOY = Cases(
    (
        *(("ours", 32, True), ("open_clip", False), ("ours", 64, True), ("ours", 64, False)),
        *(("texts", 128), ("open_clip", True)),
    ),
    32,
    (64, 32),
)


def measure(place: Place) -> None:
    """Speed, its split, memory and host syncs of resident batches."""
    cases, failures = TOY if place.toy else ON_GPU, []
    measures = {"ours": _measure_ours, "texts": _measure_texts, "open_clip": _measure_open_clip}
    for kind, *what in cases.order:
        failures += measures[kind](place, cases, *what)
    if failures:
        raise SystemExit("; ".join(failures))


def _measure_ours(place: Place, cases: Cases, batch: int, deterministic: bool) -> list[str]:
    """Returns what failed."""
    values = {"micro_batch": cases.micro_batch, "deterministic": deterministic}
    spec = spec_of(place, "siglip", MODEL, "paper", batch, **values)
    again = batch > cases.micro_batch
    predicted = "1650 to 2180, three quarters of 2200 to 2900" if again else "2200 to 2900"
    how = "deterministic" if deterministic else "not deterministic"
    case = f"{_name(place, MODEL)}, batch {format_batch_size(batch)} in micro-batches of {spec.micro_batch}, {how}"
    return measure_steps(place, spec, case, _flops(MODEL), place.expected(predicted))


def _measure_texts(place: Place, cases: Cases, batch: int) -> list[str]:
    """siglit: embeddings for images, and the text tower alone. Returns what failed."""
    tower = place.scratch / "tower"
    if not (tower / "final.pt").exists():  # the weights that it is initialised with are as good as any to time a step
        place.reserve(2 * START_SECONDS, f"{TEXT_MODEL}, texts alone")
        build.export("laptop" if place.toy else without_hub_tokenizer(TEXT_MODEL, place.scratch), tower, math.log(10))
        Checkpoints(tower).save_final(build.load(tower).model.state_dict(), {})
    values = {"pretrained": str(tower / "final.pt")} | ({"micro_batch": 64} if place.toy else {})
    spec = spec_of(place, "siglit", TEXT_MODEL, "gpu", batch, **values)
    size = f"batch {format_batch_size(batch)} in micro-batches of {spec.micro_batch}"
    case = f"{_name(place, TEXT_MODEL)}, texts alone, {size}"
    return measure_steps(place, spec, case, 3 * model_size(TEXT_MODEL).text_flops, NOTHING_EXPECTED)


def _name(place: Place, model: str) -> str:
    return "laptop" if place.toy else model


def _flops(model: str) -> int:
    """Operations of one pair, forward and backward."""
    size = model_size(model)
    return 3 * (size.image_flops + size.text_flops)


def measure_steps(place: Place, spec: RunSpec, case: str, flops: int, expected: Expected) -> list[str]:
    """Returns what failed; that a batch does not fit the memory is a row, and no failure.

    flops: of one pair, forward and backward, without what is computed twice to save memory.
    """
    place.reserve(START_SECONDS, case)
    try:
        with trainer_of(place, spec) as trainer:
            batch = random_batch(trainer)
            trainer.take_step(batch, 0.0)
            waits = host_syncs(place, lambda: trainer.take_step(batch, 0.0))
            clock = take_steps(place, trainer, lambda: (batch, 0.0))
            _record(place, case, clock.examples / clock.seconds, flops, expected)
            for part, seconds in clock.split().items():
                place.rows.add(case, f"{part.removesuffix('_seconds')}, of a step", seconds, "s")
            place.rows.add(case, "peak memory", peak_memory_bytes(trainer.device), "bytes")
            if waits is None:
                place.rows.add_missing(case, "not run", "no GPU to wait for", "host syncs")
            else:
                most = ", ".join(f"{line} {count}" for line, count in waits.most_common(8))
                place.rows.add(case, "host syncs", waits.total(), "a step", reason=most)
            trainer = batch = None  # what they hold is given back with the trainer
    except (MemoryError, RuntimeError) as error:
        return [] if _record_failure(place, case, error) == "oom" else [f"{case}: {' '.join(str(error).split())[:200]}"]
    return []


def _record(place: Place, case: str, pairs_per_second: float, flops: int, expected: Expected) -> None:
    place.rows.add(case, "speed", pairs_per_second, "pairs/s", expected)
    if place.toy:
        place.rows.add_missing(case, "not run", "a rehearsal trains another model", "share of the product rate")
    elif (rate := product_rate(place)) is None:
        place.rows.add_missing(case, "not run", "no machine.csv in this folder", "share of the product rate")
    else:
        place.rows.add(case, "share of the product rate", pairs_per_second * flops / rate)


def _record_failure(place: Place, case: str, error: BaseException) -> str:
    """Returns the status of the row."""
    out_of_memory = is_out_of_memory(error) or getattr(error, "status", "") == "oom"
    status = "oom" if out_of_memory else "failed"
    text = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    place.rows.add_missing(case, status, text)
    error.__traceback__ = None  # its frames hold the step's tensors
    release(place)
    return status


def host_syncs(place: Place, step: Callable[[], None]) -> Counter | None:
    """How often the host waits for the GPU in a step, by the line that makes it wait; torch warns of each."""
    if place.device != "cuda":
        step()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchronizing CUDA" in str(w.message))


def _measure_open_clip(place: Place, cases: Cases, compiled: bool) -> list[str]:
    """Its model and SigLipLoss under amp_bf16 in a step as its trainer takes it, at the largest batch that fits.

    Its images are resident as its loader leaves them: normalised, fp32. A failure of theirs is a row, and none of ours.
    """
    how = ", torch.compile" if compiled else ""
    place.reserve(COMPILE_SECONDS if compiled and not place.toy else START_SECONDS, f"open_clip{how}")
    if compiled and place.toy:
        place.rows.add_missing(f"open_clip{how}", "not run", "a rehearsal compiles nothing")
        return []
    for batch in cases.open_clip:
        name, size = _name(place, MODEL), format_batch_size(batch)
        case = f"open_clip's towers and SigLipLoss, {name}, amp_bf16{how}, batch {size}"
        try:
            seconds, peak = _time_open_clip(place, batch, compiled)
        except (MemoryError, RuntimeError) as error:
            if _record_failure(place, case, error) == "oom":
                continue
            break
        _record(place, case, batch / seconds, _flops(MODEL), NOTHING_EXPECTED)
        place.rows.add(case, "peak memory", peak, "bytes")
        release(place)
        break
    return []


def _time_open_clip(place: Place, batch: int, compiled: bool) -> tuple[float, int]:
    """Seconds of a step, and the most memory that tensors took."""
    from open_clip.loss import SigLipLoss

    spec = spec_of(place, "siglip", MODEL, "paper", batch, micro_batch=batch, optimizer="adamw", deterministic=False)
    with trainer_of(place, spec) as trainer:
        model, device, resident = trainer.model, trainer.device, random_batch(trainer)
        images = trainer.towers.normalize(resident.images)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=device.type == "cuda")
        loss, called = SigLipLoss(), torch.compile(model) if compiled else model

        def step(_: int) -> None:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                image_features, text_features, scale, *bias = called(images, resident.tokens)
                value = loss(image_features, text_features, scale, *(bias or (None,)))
            value.backward()
            optimizer.step()

        seconds = median_seconds(step, device, enough_seconds(place), repeats=MOST_STEPS, warm_ups=2)
        peak = peak_memory_bytes(device)
        del trainer
    return seconds, peak


def measure_feed(place: Place) -> None:
    """The step of section `step` fed from shards of JPEGs by all cores: what of its resident speed is left."""
    batch_size, examples = (64, 512) if place.toy else (512, 8192)
    cores, rows = os.cpu_count() or 1, place.rows
    pattern = _write_shards(place.scratch / "jpegs", examples)
    spec = spec_of(place, "siglip", MODEL, "paper", batch_size, micro_batch=batch_size, data=pattern)
    case = f"{_name(place, MODEL)}, batch {batch_size}, from JPEG shards by {cores} workers"
    with trainer_of(place, spec) as trainer:
        trainer.pairs.kept = None
        resident = random_batch(trainer)
        for _ in range(2):
            trainer.take_step(resident, 0.0)
        clock = take_steps(place, trainer, lambda: (resident, 0.0))
        resident_speed = clock.examples / clock.seconds
        rows.add(case, "speed of resident batches", resident_speed, "pairs/s", place.expected("2200 to 2900"))
        how = {"batch_size": batch_size, "rank": 0, "ranks": 1, "workers": cores}
        stream = batches(trainer.pairs, first_step=0, steps=MANY_STEPS, **how)
        # What the workers decoded before the clock started: up to four chunks each.
        decoded = 0 if place.toy else 4 * (cores * CHUNK // batch_size)
        _drain(stream, decoded)
        clock = take_steps(place, trainer, lambda: _waited_for(stream))
        speed = clock.examples / clock.seconds
        rows.add(case, "speed", speed, "pairs/s")
        rows.add(case, "share of the resident speed", speed / resident_speed, "", place.expected("0.9 to 1"))
        rows.add(case, "waiting for data, of the time", clock.data_seconds / clock.seconds)
        _drain(stream, decoded)
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < (0.5 if place.toy else 2.0):
            next(stream)
            count += 1
        alone = count * batch_size / (time.perf_counter() - started)
        rows.add(case, "data alone", alone, "images/s", place.expected("4800 to 7200 (16 cores)"))


def _write_shards(folder: Path, examples: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    jpegs = itertools.cycle(photo_like_jpegs(DISTINCT, seed=1))
    samples = ({"jpg": jpeg, "txt": b"a picture of colours"} for jpeg in jpegs)
    for shard in range(examples // SHARD):
        write_tar(folder / f"{shard:05d}.tar", itertools.islice(samples, SHARD), shard * SHARD)
    return str(folder / "*.tar")


def _drain(stream: Iterator[PairBatch], count: int) -> None:
    for _ in range(count):
        next(stream)


def _waited_for(stream: Iterator[PairBatch]) -> tuple[PairBatch, float]:
    started = time.perf_counter()
    batch = next(stream)
    return batch, time.perf_counter() - started
