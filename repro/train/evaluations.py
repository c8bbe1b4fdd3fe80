"""Evaluations on the way (spec.evaluate_at): of the weights after so many examples, with training left as it was.

They leave evals/at-<examples>/<dataset>.json. Rank 0 evaluates while the others wait. What a run has is not evaluated
again after a kill; what belongs to steps that are made again is removed with their log lines.
"""

import random
import shutil
import time
from collections.abc import Callable

import numpy as np
import torch

from repro.config.errors import EvaluationFailed
from repro.config.spec import RunSpec
from repro.config.units import format_examples
from repro.evaluate import evaluate_towers
from repro.runs.directory import RunDirectory
from repro.train import distributed
from repro.train.state import lenient, random_state, set_random_state
from repro.train.trainer import Trainer
from repro.world.source import eval_folders


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


def evaluate_if_due(trainer: Trainer, asked_to_stop: Callable[[], bool]) -> str:
    """Evaluate the weights of this step where the spec asks for it; called on all ranks at once.

    Returns why it failed, on every rank; '' where it did not. Asked to stop, it leaves after a data set; the others
    follow when training goes on.
    """
    examples = evaluation_steps(trainer.spec).get(trainer.step)
    if examples is None:
        return ""
    started = time.perf_counter()
    with distributed.rank_0_first():
        failure = _evaluate(trainer, examples, asked_to_stop) if trainer.rank == 0 else ""
    failure = distributed.from_first_rank(failure)
    trainer.clock.paused_since(started)
    return f"after {format_examples(examples)} examples: {failure}; --retry goes on from there" if failure else ""


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
