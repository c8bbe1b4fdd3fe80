"""The step of section `step` fed from shards of JPEGs by all cores: what of its resident speed is left."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from repro.bench.gpu.machine import photo_like_jpegs
from repro.bench.gpu.place import Place
from repro.bench.gpu.step import MODEL
from repro.bench.gpu.training import MANY_STEPS, random_batch, spec_of, take_steps, trainer_of
from repro.data.pairs import CHUNK, PairBatch, batches
from repro.world.write import write_tar

DISTINCT = 64
"""Images that the shards repeat: decoding takes as long the second time, as no decoded sample is kept."""
SHARD = 512


def measure(place: Place) -> None:
    batch_size, examples = (64, 512) if place.toy else (512, 8192)
    pattern = _write_shards(place.scratch / "jpegs", examples)
    cores = os.cpu_count() or 1
    values = {"micro_batch": batch_size, "data": pattern}
    spec = spec_of(place, "siglip", MODEL, "paper", batch_size, **values)
    model = "laptop" if place.toy else MODEL
    case = f"{model}, batch {batch_size}, from JPEG shards by {cores} workers"
    with trainer_of(place, spec) as trainer:
        trainer.pairs.kept = None
        resident = random_batch(trainer)
        for _ in range(2):
            trainer.take_step(resident, 0.0)
        clock = take_steps(place, trainer, lambda: (resident, 0.0))
        resident_speed = clock.examples / clock.seconds
        place.rows.add(case, "speed of resident batches", resident_speed, "pairs/s", place.expected("2200 to 2900"))
        how = {"batch_size": batch_size, "rank": 0, "ranks": 1, "workers": cores}
        stream = batches(trainer.pairs, first_step=0, steps=MANY_STEPS, **how)
        _drain(place, stream, cores * CHUNK // batch_size)
        clock = take_steps(place, trainer, lambda: _waited_for(stream))
        speed = clock.examples / clock.seconds
        place.rows.add(case, "speed", speed, "pairs/s")
        place.rows.add(case, "share of the resident speed", speed / resident_speed, "", place.expected("0.9 to 1"))
        place.rows.add(case, "waiting for data, of the time", clock.data_seconds / clock.seconds)
        alone = _images_alone(place, stream, batch_size)
        place.rows.add(case, "data alone", alone, "images/s", place.expected("4800 to 7200 (16 cores)"))


def _write_shards(folder: Path, examples: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    jpegs = itertools.cycle(photo_like_jpegs(DISTINCT, seed=1))
    samples = ({"jpg": jpeg, "txt": b"a picture of colours"} for jpeg in jpegs)
    for shard in range(examples // SHARD):
        write_tar(folder / f"{shard:05d}.tar", itertools.islice(samples, SHARD), shard * SHARD)
    return str(folder / "*.tar")


def _drain(place: Place, stream: Iterator[PairBatch], count: int) -> None:
    """Consume what the workers decoded before the clock started: up to four chunks each."""
    for _ in range(0 if place.toy else 4 * count):
        next(stream)


def _waited_for(stream: Iterator[PairBatch]) -> tuple[PairBatch, float]:
    started = time.perf_counter()
    batch = next(stream)
    return batch, time.perf_counter() - started


def _images_alone(place: Place, stream: Iterator[PairBatch], batch_size: int) -> float:
    """Images a second that the workers make while nobody trains."""
    _drain(place, stream, (os.cpu_count() or 1) * CHUNK // batch_size)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < (0.5 if place.toy else 2.0):
        next(stream)
        count += 1
    return count * batch_size / (time.perf_counter() - started)
