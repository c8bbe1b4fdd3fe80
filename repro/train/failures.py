"""How training fails, by name and with the numbers that led to it: divergence, bad samples, out of memory.

A loss that is still a number has diverged when it stays far above where it began, for many steps in a row. The sigmoid
loss with b = 0 begins at hundreds and falls, so the bound is a multiple of the first loss. Towers that begin well have
a first loss near zero, of which any multiple is small; so the bound is never below the same multiple of the loss of
towers that know nothing, 1 + ln B: what the best constant similarity gets (softmax: ln B).
"""

import contextlib
import math
import re
import traceback
from collections import Counter
from collections.abc import Iterator

import torch

from repro.config.errors import Diverged, OutOfMemory
from repro.config.files import full_disk_named, write_json
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size, format_bytes
from repro.runs.directory import RunDirectory

LEAST_STEPS = 20


class LossBound:
    """Counts the steps in a row whose loss is above the bound."""

    def __init__(self, spec: RunSpec):
        self.ratio, self.batch_size = spec.max_loss_ratio, spec.batch_size
        self.steps = max(LEAST_STEPS, math.ceil(spec.max_loss_share * spec.steps))
        self.first_loss: float | None = None
        self.above = 0

    @property
    def bound(self) -> float:
        if self.ratio is None or self.first_loss is None:
            return math.inf
        return self.ratio * max(self.first_loss, 1 + math.log(self.batch_size))

    def update(self, loss: float, step: int) -> None:
        """The loss of a step (the first is 1), of the global batch and so the same on all ranks.

        Raises Diverged where it is not finite, or too high for too long.
        """
        place = f"at step {step:,}, {(step - 1) * self.batch_size:,} examples"
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} {place}", agreed=True)
        if self.first_loss is None:
            self.first_loss = loss
        self.above = self.above + 1 if loss > self.bound else 0
        if self.above >= self.steps:
            raise Diverged(
                f"the loss is {loss:.4g} {place}, and was above {self.bound:.4g} for {self.above} steps in a row "
                f"(max_loss_ratio {self.ratio:g}; it began at {self.first_loss:.4g})",
                agreed=True,
            )

    def state(self) -> dict[str, float | int | None]:
        return {"first_loss": self.first_loss, "above": self.above}

    def restore(self, state: dict[str, float | int | None]) -> None:
        self.first_loss, self.above = state["first_loss"], state["above"]


FILE_NAME = "bad-samples.json"


def describe_bad(bad: Counter, count: int, of: int, allowed: float) -> str:
    worst = "; ".join(f"{shard}: {reason} ({n})" for (shard, reason), n in bad.most_common(5))
    return f"{count:,} of {of:,} samples are bad, more than the allowed {allowed:.1%} (max_bad_share): {worst}"


def write_bad(directory: RunDirectory, bad: Counter) -> None:
    """bad-samples.json: {shard: {reason: count}}, both sorted; no file where there is none."""
    if not bad:
        return
    by_shard: dict[str, dict[str, int]] = {}
    for (shard, reason), count in sorted(bad.items()):
        by_shard.setdefault(shard, {})[reason] = count
    file = directory.path / FILE_NAME
    with full_disk_named(file):
        write_json(file, by_shard)


SIGNS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
ONEDNN = "could not create a primitive"
"""All that oneDNN says where there is no memory for its code. With more words it is another error."""


@contextlib.contextmanager
def out_of_memory_named(rank: int, batch_size: int, local_batch: int, micro_batch: int) -> Iterator[None]:
    """The body is a training step. Raises OutOfMemory where it needs more memory than this rank has."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the step's tensors, which a smaller try needs back
        raise OutOfMemory(
            f"out of memory on rank {rank} at batch size {format_batch_size(batch_size)}, "
            f"local batch {local_batch:,}, micro-batch {micro_batch:,}{_tried(str(error))}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Said by torch, Python or numpy in their errors' type, by others in words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return str(error) == ONEDNN or any(sign in str(error) for sign in SIGNS)


def _tried(message: str) -> str:
    """': tried to allocate 2.0 GiB', where the message says how much."""
    if match := re.search(r"tried to allocate (\d+) bytes", message):
        return f": tried to allocate {format_bytes(int(match[1]))}"
    if match := re.search(r"(?:Tried to|Unable to) allocate ([\d.]+) (\wiB|bytes)", message):
        return f": tried to allocate {float(match[1]):g} {match[2]}"
    return ""
