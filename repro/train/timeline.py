"""Where a step's time goes: marks along the step, each of which says what the time from there on belongs to.

On CPUs a mark is a reading of the clock. A GPU runs behind the host, so there a mark is an event in its stream, read at
the end of a later step when the GPU has long passed it: nobody waits for the device, and no step is left out.
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator

import torch

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
