"""One piece of work at a time in a thread of its own, whose failure is not lost."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class Background:
    """Leaving it as a context waits for the work. What the work raises is raised by the next `check` or `wait`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._work: Future[None] | None = None
        self.last_seconds = 0.0
        """Seconds that the last work took."""

    @property
    def busy(self) -> bool:
        return self._work is not None and not self._work.done()

    def start(self, work: Callable[[], None]) -> None:
        """Waits for work that is under way, and raises what it raised."""
        self.wait()
        self._work = self._thread.submit(self._timed, work)

    def _timed(self, work: Callable[[], None]) -> None:
        started = time.perf_counter()
        work()
        self.last_seconds = time.perf_counter() - started

    def check(self) -> None:
        """Raises what finished work raised."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.error("while %s ended the run, a checkpoint failed too: %s", type(error).__name__, failure)
        finally:
            self._thread.shutdown()
