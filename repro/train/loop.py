"""Training: batches in order → gradient → optimizer step; a log line, a checkpoint or a way out after any step.

And evaluations on the way (spec.evaluate_at): of the weights after so many examples, with training left as it was. They
leave evals/at-<examples>/<dataset>.json. Rank 0 evaluates while the others wait. What a run has is not evaluated again
after a kill; what belongs to steps that are made again is removed with their log lines.
"""

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from repro.config.errors import BadData, EvaluationFailed, Interrupted
from repro.config.spec import RunSpec
from repro.config.units import format_examples
from repro.data.pairs import PairBatch, batches
from repro.evaluate import evaluate_towers
from repro.runs.directory import RunDirectory
from repro.runs.liveness import COMPUTING, PREPARING, READING, activity
from repro.train import distributed
from repro.train.checkpoint import Background, Checkpoints
from repro.train.failures import write_bad
from repro.train.state import lenient, random_state, set_random_state
from repro.train.trainer import Trainer
from repro.world.source import eval_folders

BLOCKED_SHARE = 0.02
"""Largest share of the training time that checkpoints may take: they come less often where they take long."""


@dataclass(frozen=True)
class Options:
    """How a run is carried out; changes nothing of its result (a micro-batch: its last bits).

    checkpoint_seconds: between two checkpoints, or longer (see BLOCKED_SHARE). check_owner: raises where another
    process has taken the run over; called before anything is put in place. micro_batch: at most this, if the spec's
    does not fit in memory. timeout_seconds: how long ranks wait for one that trains no further.
    """

    workers: int = 0
    checkpoint_seconds: float = 300.0
    check_owner: Callable[[], None] = lambda: None
    micro_batch: int | None = None
    timeout_seconds: float = distributed.TIMEOUT_SECONDS


def train(
    spec: RunSpec,
    directory: RunDirectory,
    device: torch.device,
    options: Options,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train to the end and leave final.pt; returns the result's columns, at once where an earlier call did so.

    Goes on from the newest good checkpoint. Raises Interrupted or EvaluationFailed (after leaving one), Diverged,
    BadData, DiskFull or OutOfMemory. Periodic checkpoints are copied into host memory, which must have room for weights
    and optimizer state (with AdamW three times the weights) once more, and written from there while training goes on.
    """
    first = distributed.rank() == 0
    checkpoints = Checkpoints(directory.checkpoints, options.check_owner, spec.spec_hash)
    with distributed.rank_0_first():
        columns = checkpoints.trained() if first else None
    columns = distributed.from_first_rank(columns)
    if columns is not None:
        return columns
    with _bad_samples_recorded(directory, options):
        trainer = Trainer(spec, directory, device, checkpoints, options.micro_batch)
        trainer.restore()
        if first:
            cut_evaluations(spec, directory, trainer.step)
        stream = _batches(trainer, options.workers)
        with Background() as background:
            _take_steps(trainer, stream, background, options.checkpoint_seconds, asked_to_stop)
        trainer.check_bad(at_least=0)
        columns = trainer.result()
        trainer.save_final(columns)
    return columns


def _take_steps(
    trainer: Trainer,
    stream: Iterator[PairBatch],
    background: Background,
    checkpoint_seconds: float,
    asked_to_stop: Callable[[], bool],
) -> None:
    """All steps that are left, and the evaluations between them.

    Raises Interrupted after a step at which any rank was asked to stop, EvaluationFailed where one on the way fails.
    """
    clock, saved_at = trainer.clock, time.monotonic()
    _evaluate_if_due(trainer, background, asked_to_stop)  # what a stop or a kill left undone
    while trainer.step < trainer.spec.steps:
        waiting_since = time.perf_counter()
        activity.move(READING, trainer.step + 1)
        batch = next(stream)
        activity.move(COMPUTING)
        trainer.take_step(batch, data_seconds=time.perf_counter() - waiting_since)
        activity.move(PREPARING)
        background.check()
        _evaluate_if_due(trainer, background, asked_to_stop)
        # On CPUs what writes a checkpoint takes a core from training as long as it does.
        taken = clock.last_blocked_seconds + (background.last_seconds if trainer.device.type == "cpu" else 0.0)
        spacing = max(checkpoint_seconds, taken / BLOCKED_SHARE)
        due = time.monotonic() - saved_at > spacing and clock.affords(BLOCKED_SHARE)
        # While the loss is too high the last checkpoint from before is kept.
        stop, save = trainer.agree(asked_to_stop(), due and not background.busy and not trainer.loss_bound.above)
        if trainer.step == trainer.spec.steps:
            return
        if stop:
            background.wait()
            trainer.save_and_wait()
            spec = trainer.spec
            message = f"stopped after {trainer.examples_seen:,} of {spec.examples_seen:,} examples"
            raise Interrupted(message, agreed=True)
        if save:
            trainer.save(background)
            saved_at = time.monotonic()


def _batches(trainer: Trainer, workers: int) -> Iterator[PairBatch]:
    stream = batches(
        trainer.pairs,
        first_step=trainer.step,
        steps=trainer.spec.steps,
        batch_size=trainer.spec.batch_size,
        rank=trainer.rank,
        ranks=trainer.ranks,
        workers=workers,
    )
    try:
        yield from stream
    except BadData as error:
        raise BadData(str(error), trainer.bad + error.counts) from None


@contextlib.contextmanager
def _bad_samples_recorded(directory: RunDirectory, options: Options) -> Iterator[None]:
    """Where bad data end the run, its directory says which."""
    try:
        yield
    except BadData as error:
        if distributed.rank() == 0:
            options.check_owner()
            write_bad(directory, error.counts)
        raise


def evaluation_steps(spec: RunSpec) -> dict[int, int]:
    """Step → the examples asked for, for evaluations on the way: after the first step that has seen them all.

    What comes with or after the last step is left to the final evaluation.
    """
    if not spec.evals:
        return {}
    steps = {-(-examples // spec.batch_size): examples for examples in sorted(spec.evaluate_at, reverse=True)}
    return {step: examples for step, examples in steps.items() if 0 < step < spec.steps}


def cut_evaluations(spec: RunSpec, directory: RunDirectory, step: int) -> None:
    """Remove the evaluations that come after a step from which training goes on."""
    for later, examples in evaluation_steps(spec).items():
        if later > step:
            shutil.rmtree(directory.evals_at(examples), ignore_errors=True)


def _evaluate_if_due(trainer: Trainer, background: Background, asked_to_stop: Callable[[], bool]) -> None:
    """Evaluate the weights of this step where the spec asks for it; called on all ranks at once.

    Raises EvaluationFailed, on every rank, with a checkpoint left. Asked to stop, it leaves after a data set; the
    others follow when training goes on.
    """
    examples = evaluation_steps(trainer.spec).get(trainer.step)
    if examples is None:
        return
    started = time.perf_counter()
    with distributed.rank_0_first():
        failure = _evaluate(trainer, examples, asked_to_stop) if trainer.rank == 0 else ""
    failure = distributed.from_first_rank(failure)
    trainer.clock.paused_since(started)
    if failure:
        background.wait()
        trainer.save_and_wait()
        text = f"after {format_examples(examples)} examples: {failure}; --retry goes on from there"
        raise EvaluationFailed(text, agreed=True)


def _evaluate(trainer: Trainer, examples: int, asked_to_stop: Callable[[], bool]) -> str:
    trainer.checkpoints.check_owner()
    states = random.getstate(), np.random.get_state(), random_state(trainer.device)
    names = {"model": f"local-dir:{trainer.directory.checkpoints.resolve()}", "pretrained": f"step {trainer.step}"}
    try:
        with lenient():
            evaluate_towers(
                trainer.whole_towers,
                names,
                eval_folders(trainer.spec),
                trainer.directory.evals_at(examples),
                trainer.device,
                asked_to_stop=asked_to_stop,
            )
    except EvaluationFailed as failure:
        return str(failure)
    finally:
        trainer.set_train_mode()
        random.setstate(states[0])
        np.random.set_state(states[1])
        set_random_state(states[2], trainer.device)
        if trainer.device.type == "cuda":
            torch.cuda.empty_cache()  # blocks of an evaluation's sizes are in the way of training's
    return ""
