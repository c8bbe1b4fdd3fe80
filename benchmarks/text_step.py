"""A siglit step beside the bare text tower: how near training over embeddings comes to what its only tower costs.

The bare tower embeds the same tokens, in memory, in the same micro-batches, forward and backward, on the same threads:
no loss, no images, no optimizer. A step is all that training does: batch from the memory map, both passes, loss,
optimizer, log. Both are in this process, a step of one after a step of the other, so that what else the machine does
meets both; the ratio is that of the medians. CPU seconds say more where others use the machine too.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import pandas as pd
import torch
import torch.nn.functional as F

from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.data.pairs import PairBatch, batches
from repro.launch.complete import complete, prepare_data
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.trainer import Trainer

WARM_UP_STEPS = 3


def compare(
    loss: str, batch_size: int, micro_batch: int, steps: int, data: str, threads: int, repeats: int, pretrained: str
) -> pd.DataFrame:
    """One row a repeat: median seconds of a step and of the bare tower, and the tower's as a share of the step's."""
    values = {"loss": loss, "batch_size": batch_size, "micro_batch": micro_batch, "threads": threads, "data": data}
    values |= {"examples_seen": batch_size * (repeats * steps + WARM_UP_STEPS), "evals": (), "pretrained": pretrained}
    values |= {"max_loss_ratio": None}
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({"setup": ["siglit"]}, values)))
    prepare_data([spec], threads)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(folder)
        trainer = Trainer(spec, directory, torch.device("cpu"), Checkpoints(directory.checkpoints))
        rows = _measure(trainer, steps, repeats)
    settings = {"loss": loss, "batch_size": batch_size, "micro_batch": micro_batch, "threads": threads}
    return pd.DataFrame(rows).assign(**settings, model=spec.model, data=data)


def _measure(trainer: Trainer, steps: int, repeats: int) -> list[dict[str, float]]:
    spec: RunSpec = trainer.spec
    how = {"batch_size": spec.batch_size, "rank": 0, "ranks": 1, "workers": 0}
    stream = batches(trainer.pairs, first_step=0, steps=spec.steps, **how)
    kept = trainer.pairs[range(spec.batch_size)]
    direction = F.normalize(torch.randn(spec.batch_size, trainer.pairs.embeddings.dim), dim=-1)
    for _ in range(WARM_UP_STEPS):
        _step(trainer, stream)
        _bare(trainer, kept, direction)
    rows = []
    for repeat in range(repeats):
        taken: dict[str, list[tuple[float, float]]] = {"step": [], "tower": []}
        for _ in range(steps):
            taken["step"].append(_timed(lambda: _step(trainer, stream)))
            taken["tower"].append(_timed(lambda: _bare(trainer, kept, direction)))
        wall, cpu = ({what: statistics.median(times) for what, times in _column(taken, n).items()} for n in (0, 1))
        rows.append(
            {
                "repeat": repeat,
                "step_seconds": wall["step"],
                "tower_seconds": wall["tower"],
                "ratio": wall["tower"] / wall["step"],
                "cpu_ratio": cpu["tower"] / cpu["step"],
                "examples_per_second": spec.batch_size / wall["step"],
            }
        )
    return rows


def _column(taken: dict[str, list[tuple[float, float]]], column: int) -> dict[str, list[float]]:
    return {what: [times[column] for times in all_times] for what, all_times in taken.items()}


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of this process's CPU time."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def _step(trainer: Trainer, stream: Iterator[PairBatch]) -> None:
    started = time.perf_counter()
    batch = next(stream)
    trainer.take_step(batch, time.perf_counter() - started)


def _bare(trainer: Trainer, batch: PairBatch, direction: torch.Tensor) -> None:
    """Forward and backward of the text tower alone, a micro-batch after the other: nothing needs all of the batch."""
    for tokens, gradient in zip(
        batch.tokens.split(trainer.micro_batch), direction.split(trainer.micro_batch), strict=True
    ):
        trainer.model.encode_text(tokens).backward(gradient)
