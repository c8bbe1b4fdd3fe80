"""The errors that mean something to a person, and the one phrase they share: the nearest name that works.

`InputError` is the person's mistake: the command line prints its message and leaves with code 2.
The others end a run, and become its status in the results table (docs/architecture.md, law 6).
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the person gave is wrong; the message says what, where, and what would work."""


class BadData(RuntimeError):
    """Too many samples of a data set cannot be used. Status `bad-data`."""

    status = "bad-data"


class Diverged(RuntimeError):
    """The loss is no longer a finite number. Status `diverged`."""

    status = "diverged"


class Interrupted(RuntimeError):
    """The run was asked to stop, and left a checkpoint to go on from. Status `interrupted`."""

    status = "interrupted"


def nearest(name: str, known: Iterable[str]) -> str:
    """'; the nearest is X' or '; known: A, B, C', to end an error message about an unknown name."""
    known = sorted(known)
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if match:
        return f"; the nearest is '{match[0]}'"
    return f"; known: {', '.join(known[:20])}" if known else ""
