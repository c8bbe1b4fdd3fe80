"""Measurements of a run while it trains: norms, logits, speed, memory. Nothing here changes a result.

Where a step's time goes is read from marks along the step, each of which says what the time from there on belongs to.
On CPUs a mark is a reading of the clock. A GPU runs behind the host, so there a mark is an event in its stream, read at
the end of a later step when the GPU has long passed it: nobody waits for the device, and no step is left out.
"""

import contextlib
import itertools
import math
import resource
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Self

import torch

from repro.train.distributed import sum_over_ranks

PARTS = ("towers", "loss", "exchange", "optimizer")
"""Parts of a step once its batch is there; the rest of the step belongs to none of them."""

Mark = float | torch.cuda.Event
Marks = list[tuple[str | None, Mark]]
"""In order: the part that begins, or None for the rest, and when."""


class Timeline:
    """One rank's steps on its device. A part may stand inside another: its time is then not the outer one's."""

    def __init__(self, device: torch.device | None = None):
        """By default on CPUs."""
        self._on_gpu = device is not None and device.type == "cuda"
        self._part: str | None = None
        self._marks: Marks = []
        self._ended: deque[Marks] = deque()  # steps not read yet
        self._free: list[torch.cuda.Event] = []

    @contextlib.contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Count the time of the body as this one of PARTS."""
        before = self._part
        self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(before)

    def end_step(self, counted: bool) -> None:
        """Outside of all parts. counted: whether `read` is to tell of this step."""
        if counted and self._marks:
            self._ended.append(self._marks)
        self._marks = []

    def read(self, wait: bool = False) -> dict[str, float]:
        """Seconds of each part, over the counted steps that ended since the last call.

        A step that a GPU has not come to the end of is left to the next call, unless asked to wait for it.
        """
        seconds = dict.fromkeys(PARTS, 0.0)
        while self._ended and (wait or self._is_past(self._ended[0])):
            marks = self._ended.popleft()
            if self._on_gpu:
                marks[-1][1].synchronize()
            for (part, start), (_, end) in itertools.pairwise(marks):
                if part is not None:
                    seconds[part] += self._between(start, end)
            if self._on_gpu:
                self._free += [event for _, event in marks]
        return seconds

    def _turn_to(self, part: str | None) -> None:
        self._marks.append((part, self._mark()))
        self._part = part

    def _mark(self) -> Mark:
        if not self._on_gpu:
            return time.perf_counter()
        event = self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _is_past(self, marks: Marks) -> bool:
        return not self._on_gpu or marks[-1][1].query()

    def _between(self, start: Mark, end: Mark) -> float:
        return start.elapsed_time(end) / 1e3 if self._on_gpu else end - start


@dataclass
class Clock:
    """Seconds and examples of training, the first step after each start aside (it warms up), over resumes too.

    seconds: of this rank, from the end of a step to the end of the next. data_seconds, parts_seconds: how long of these
    it waited for batches, and what each of PARTS took. blocked_seconds: what checkpoints took from training,
    in all; not part of seconds.
    """

    examples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    parts_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    steps: int = 0
    blocked_seconds: float = 0.0
    last_blocked_seconds: float = 0.0
    _last: float | None = field(default=None, repr=False)
    _timeline: Timeline = field(default_factory=Timeline, repr=False)

    @classmethod
    def on(cls, device: torch.device, state: dict[str, Any] | None = None) -> Self:
        """A clock that starts anew, or that goes on from the state of another one.

        Checkpoints may come from versions that did not measure the parts: after one that has taken steps they stay NaN.
        """
        state = state or {}
        unknown = {"parts_seconds": dict.fromkeys(PARTS, math.nan)} if state.get("steps") else {}
        return cls(**unknown | state, _timeline=Timeline(device))

    def during(self, part: str) -> AbstractContextManager[None]:
        """Count the time of the body as this one of PARTS, and not as the part around it."""
        return self._timeline.during(part)

    def tick(self, examples: int, data_seconds: float) -> None:
        """One step done."""
        now = time.perf_counter()
        self._timeline.end_step(counted=self._last is not None)
        self._read_parts()
        if self._last is not None:
            self.examples += examples
            self.seconds += now - self._last
            self.data_seconds += data_seconds
            self.steps += 1
        self._last = now

    def blocked_since(self, started: float) -> None:
        """From `started` (time.perf_counter) to this moment a checkpoint held training up."""
        self.last_blocked_seconds = time.perf_counter() - started
        self.blocked_seconds += self.last_blocked_seconds
        if self._last is not None:
            self._last += self.last_blocked_seconds

    def paused_since(self, started: float) -> None:
        """From `started` (time.perf_counter) to this moment nothing was trained, and nothing is measured."""
        if self._last is not None:
            self._last += time.perf_counter() - started

    @property
    def blocked_share(self) -> float:
        total = self.seconds + self.blocked_seconds
        return self.blocked_seconds / total if total else 0.0

    def affords(self, share: float) -> bool:
        """Whether one more checkpoint that blocks as long as the last keeps the share of all within this one."""
        return self.blocked_seconds + self.last_blocked_seconds <= share * (self.seconds + self.blocked_seconds)

    def split(self) -> dict[str, float | None]:
        """Seconds of a mean step, by what they went to; together they are seconds ÷ steps. None where it is not known.

        data_seconds: waiting for batches, with all that workers did not do beforehand. towers_seconds: all passes of
        both towers, forward and backward, with copying their inputs to the device; the wall time of both where they
        run side by side. loss_seconds: the loss and its gradients at the embeddings, while this rank works.
        exchange_seconds: how long it stood waiting for others: in the loss, and while gradients are averaged, flattened
        and copied back. What travels while tiles are made is hidden, and is no part of it; a rank that comes late is
        seen here, on the others. optimizer_seconds: clearing and clipping gradients, and the update. other_seconds: the
        rest: numbers of log lines, sums of them over ranks, asking whether to stop.
        """
        self._read_parts(wait=True)
        parts = {"data": self.data_seconds, **self.parts_seconds}
        parts["other"] = self.seconds - sum(parts.values())
        known = {part: self.steps > 0 and math.isfinite(seconds) for part, seconds in parts.items()}
        return {f"{part}_seconds": seconds / self.steps if known[part] else None for part, seconds in parts.items()}

    def _read_parts(self, wait: bool = False) -> None:
        for part, seconds in self._timeline.read(wait).items():
            self.parts_seconds[part] += seconds

    def state(self) -> dict[str, Any]:
        self._read_parts(wait=True)
        values = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return values | {"parts_seconds": self.parts_seconds.copy()}


def peak_memory_bytes(device: torch.device) -> int:
    """GPU: the most that tensors took. CPU: the most that the process held (resident set)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mean_logits(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: float, logit_bias: float
) -> tuple[float, float]:
    """Mean logit of the positives, and of all negatives of the global batch, from this rank's [b, d] embeddings.

    Σᵢⱼ xᵢ·yⱼ = (Σᵢ xᵢ)·(Σⱼ yⱼ), so no B × B matrix is needed.
    """
    images, texts = image_features.double(), text_features.double()
    dim = images.shape[1]
    paired = (images * texts).sum()
    sums = torch.cat([images.sum(0), texts.sum(0), paired.view(1), paired.new_tensor([len(images)])])
    sums = sum_over_ranks(sums)
    all_pairs, paired, count = (sums[:dim] @ sums[dim : 2 * dim]).item(), sums[-2].item(), sums[-1].item()
    negatives = (all_pairs - paired) / max(1.0, count * count - count)
    return logit_scale * paired / count + logit_bias, logit_scale * negatives + logit_bias


def norm(tensors: list[torch.Tensor]) -> float:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))).item()
