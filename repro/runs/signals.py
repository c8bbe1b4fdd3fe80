"""Being asked to stop: signals become a question that the training loop asks after each step.

SIGUSR2 is the scheduler's word that the job must make room (its time is nearly over, or a more urgent one waits): the
run leaves a checkpoint and is queued again. SIGTERM, SIGINT and SIGHUP end it: it leaves a checkpoint too. Where
nobody asks (data are prepared, a model is evaluated) there is no state to save, and the signal interrupts at once.
"""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn, Self

from repro.config.errors import Interrupted

END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MAKE_ROOM = signal.SIGUSR2


class StopRequest:
    """Remembers the signals that came while it was entered. Called, it says whether one did, and that somebody asks."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.is_polled = False
        self._previous: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> Self:
        for number in (*END, MAKE_ROOM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        self.is_polled = True
        return bool(self.received)

    def stop_polling(self) -> None:
        """From here on a signal interrupts at once; one that came meanwhile does so now. Raises Interrupted."""
        self.is_polled = False
        if self.received:
            raise Interrupted(f"stopped by {self.name}")

    @property
    def name(self) -> str:
        return signal.Signals(self.received[-1]).name if self.received else ""

    @property
    def to_make_room(self) -> bool:
        """Whether the run is to go on elsewhere or later by itself."""
        return not any(number in END for number in self.received)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a data worker, forked from here: the run ends it
        again = number in self.received
        self.received.append(number)
        if number == signal.SIGINT and again:
            raise KeyboardInterrupt  # a person who types Ctrl-C twice does not want to wait
        if not self.is_polled and len(self.received) == 1:  # a second one would break into the leave-taking
            raise Interrupted(f"stopped by {self.name}")


@contextlib.contextmanager
def whole_program() -> Iterator[None]:
    """The body is all that this process does. It ends with the body's exit code as soon as the exit handlers have run:
    once torch is imported, what Python does after them takes more than a second of a core.
    """
    code = 1

    def end() -> None:
        exit_at_once(code)

    atexit.register(end)  # the first to be registered is the last to be called
    try:
        yield
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise


def exit_at_once(code: int) -> NoReturn:
    """End this process without Python's and the process group's goodbyes, which wait for threads and lost ranks."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
