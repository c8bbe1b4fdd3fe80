"""The errors that mean something to a person, and the one phrase they share: the nearest name that works.

`InputError` is the person's mistake: the command line prints its message and leaves with code 2.
The others end a run, and become its status in the results table (docs/architecture.md, law 6).
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """Something the person gave is wrong; the message says what, where, and what would work."""


class BadData(RuntimeError):
    """Too many samples of a data set cannot be used; counts: (shard, reason) → samples. Status `bad-data`.

    agreed: whether all ranks raise it together, or one of them alone has found it.
    """

    status = "bad-data"

    def __init__(self, message: str, counts: Mapping[tuple[str, str], int] | None = None, agreed: bool = False):
        super().__init__(message)
        self.counts, self.agreed = Counter(counts or {}), agreed


class Diverged(RuntimeError):
    """The loss is no longer a finite number, or stays far above where it began. Status `diverged`."""

    status = "diverged"

    def __init__(self, message: str, agreed: bool = False):
        super().__init__(message)
        self.agreed = agreed


class DiskFull(RuntimeError):
    """A file of the run could not be written: no room, or no quota. Status `disk-full`."""

    status = "disk-full"


class OutOfMemory(RuntimeError):
    """A training step needs more memory than there is; a smaller micro-batch may fit. Status `oom`."""

    status = "oom"


class EvaluationFailed(RuntimeError):
    """A data set could not be evaluated on; metrics: of those that could. Training is not lost. Status `failed`."""

    status = "failed"

    def __init__(self, message: str, metrics: Mapping[str, float] | None = None, agreed: bool = False):
        super().__init__(message)
        self.metrics, self.agreed = dict(metrics or {}), agreed


class Interrupted(RuntimeError):
    """The run was asked to stop, and left a checkpoint to go on from. Status `interrupted`.

    agreed: whether all ranks stop together, or a signal reached one of them alone.
    """

    status = "interrupted"

    def __init__(self, message: str, agreed: bool = False):
        super().__init__(message)
        self.agreed = agreed


def nearest(name: str, known: Iterable[str]) -> str:
    """'; the nearest is X' or '; known: A, B, C', to end an error message about an unknown name."""
    known = sorted(known)
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if match:
        return f"; the nearest is '{match[0]}'"
    return f"; known: {', '.join(known[:20])}" if known else ""
