"""Trainers on one device whose batches are random and resident, for sections that measure steps.

They are the very trainers of a run, in a folder of their own; only nobody decodes and copies a batch for them.
"""

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from repro.bench.gpu.place import Place
from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.data.pairs import PairBatch
from repro.launch.complete import complete
from repro.models.model_config import read_config
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.meters import Clock
from repro.train.state import set_deterministic
from repro.train.trainer import Trainer
from repro.world.source import make_world

WORLD = "shapes:2048"
"""Data that a trainer opens and does not read."""
CLIP_TOKENS = 49_408
MOST_STEPS = 20
"""That are timed."""
MANY_STEPS = 10_000
"""Length of a spec, so that no step but the first is logged."""


def without_hub_tokenizer(model: str, folder: Path) -> str:
    """A model's config as a file, with CLIP's tokenizer, which open_clip brings along, in place of one of the hub's.

    The token embedding gets a row for each of its tokens; all that takes time in the towers stays the same.
    """
    config, _ = read_config(model)
    text_cfg = config["model_cfg"]["text_cfg"]
    if text_cfg.pop("hf_tokenizer_name", None):
        text_cfg.pop("tokenizer_kwargs", None)
        text_cfg["vocab_size"] = CLIP_TOKENS
    file = folder / f"{model}.json"
    file.write_text(json.dumps(config))
    return str(file)


def spec_of(place: Place, setup: str, model: str, scale: str, batch_size: int, **values: Any) -> RunSpec:
    """A cell of the sweep batch-size at this scale; at the laptop's in a rehearsal."""
    values = {"data": WORLD, "evals": (), "precision": "bf16", "loss": "sigmoid", "batch_size": batch_size} | values
    values |= {"examples_seen": batch_size * MANY_STEPS, "warmup_examples": 0, "max_loss_ratio": None}
    if not place.toy:
        values["model"] = without_hub_tokenizer(model, place.scratch)
    scale = "laptop" if place.toy else scale
    (spec,) = complete(expand(load_sweep("batch-size"), scale, Overrides({"setup": [setup]}, values)))
    return spec


@contextmanager
def trainer_of(place: Place, spec: RunSpec) -> Iterator[Trainer]:
    """In a folder of its own, with what it holds of the device given back at the end."""
    release(place)
    make_world(WORLD)
    torch.set_num_threads(spec.threads)
    set_deterministic(spec.deterministic)
    directory = RunDirectory(place.scratch / "steps" / spec.run_id)
    trainer = Trainer(spec, directory, place.torch_device, Checkpoints(directory.checkpoints))
    if place.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        yield trainer
    finally:
        del trainer
        release(place)


def release(place: Place) -> None:
    gc.collect()
    if place.device == "cuda":
        torch.cuda.empty_cache()


def random_batch(trainer: Trainer) -> PairBatch:
    """On the trainer's device."""
    size, device, towers = trainer.local_batch, trainer.device, trainer.towers
    if trainer.frozen:
        images = F.normalize(torch.randn(size, trainer.pairs.embeddings.dim, device=device), dim=-1).half()
    else:
        images = torch.randint(256, (size, 3, *towers.image_size), dtype=torch.uint8, device=device)
    vocabulary = towers.vocabulary_size
    return PairBatch(images, torch.randint(1, vocabulary, (size, towers.context_length), device=device))


def enough_seconds(place: Place) -> float:
    """For the timed steps of one figure."""
    return 0.3 if place.toy else 3.0


def take_steps(place: Place, trainer: Trainer, next_batch: Callable[[], tuple[PairBatch, float]]) -> Clock:
    """Steps by a clock of their own, all of which count: the trainer is warm.

    next_batch: also gives the seconds that it was waited for.
    """
    trainer.clock = clock = Clock.on(trainer.device)
    clock.tick(0, 0.0)
    while clock.steps < MOST_STEPS and clock.seconds < enough_seconds(place):
        trainer.take_step(*next_batch())
    return clock
