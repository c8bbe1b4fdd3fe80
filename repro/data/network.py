"""Repeat downloads and requests, with growing pauses, where a failure can pass by itself.

Connections that break, timeouts, bodies cut off, 408, 429 and 5xx can; a 404 or 403 cannot, and is raised at once.
"""

import email.utils
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from repro.config.errors import InputError, Interrupted

TRIES = 5
FIRST_PAUSE_SECONDS = 1.0
"""Doubled with each try, and up to a quarter more, so that ranks that failed together do not come back together."""
LONGEST_PAUSE_SECONDS = 300.0
"""A server that asks for more (Retry-After) is asked again after this."""

PASSING_STATUS = (408, 429, *range(500, 600))
PASSING_ERRORS = {"ConnectionError", "Timeout", "TimeoutError", "ChunkedEncodingError", "TransportError"}
"""By name, of the class or one it derives from: requests, httpx and Python itself agree on these, and none of them
has to be imported here."""
FINAL_ERRORS = {"OfflineModeIsEnabled"}

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


class MayPass(RuntimeError):
    """Raised by an attempt that failed in a way that may pass, where no library's error says so."""


def retried(what: str, attempt: Callable[[], Answer]) -> Answer:
    """Return the result of `attempt()`, in TRIES tries at most.

    Raises InputError that begins with `what` (an URL, a name on the hub) and ends with the last error and the number
    of tries; an error that cannot pass is raised as it is, at once.
    """
    for tried in range(1, TRIES + 1):
        try:
            return attempt()
        except Exception as error:
            if not may_pass(error):
                raise
            if tried == TRIES:
                raise InputError(f"{what}: {_in_one_line(error)} (tried {TRIES} times)") from error
            pause = pause_seconds(tried, error)
            logger.warning("%s: %s; try %d of %d in %.1f s", what, _in_one_line(error), tried + 1, TRIES, pause)
        time.sleep(pause)
    raise AssertionError("unreachable: the last try returns or raises")


def weights_from_hub(place: str, fetch: Callable[[], Answer]) -> Answer:
    """Return the result of `fetch()`, retried: a model with public weights. Raises InputError where that fails.

    A stop that comes meanwhile, and too little memory, are raised as they are.
    """
    try:
        return retried(f"pretrained {place}", fetch)
    except (MemoryError, InputError, Interrupted):
        raise
    except Exception as error:  # hub, disk and loaders each have their own
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for it
            raise
        raise InputError(
            f"pretrained {place}: the weights could not be downloaded "
            f"({type(error).__name__}: {_in_one_line(error)[:300]}); "
            "expected a network, or the weights in the hub's cache ($HF_HOME), or a file of weights"
        ) from None


def check_on_hub(what: str, repository: str, files: Sequence[str]) -> None:
    """Raises InputError where none of the files of a hub's repository is in its cache, and none can be downloaded."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return
    for number, file in enumerate(files, 1):
        try:
            retried(f"{what} of the hub", lambda file=file: get_hf_file_metadata(hf_hub_url(repository, file)))
            return
        except InputError:
            raise
        except Exception as error:  # the hub's, its transport's, a proxy's
            if number == len(files) or "EntryNotFound" not in type(error).__name__:
                raise InputError(
                    f"{what} could not be downloaded from the hub: {_in_one_line(error)[:300]}; expected a network, "
                    "or its files in the hub's cache ($HF_HOME)"
                ) from None


def may_pass(error: BaseException) -> bool:
    """Whether this error, or one that it was made from, is of the kind that passes by itself."""
    chain = list(_with_causes(error))
    names = [{kind.__name__ for kind in type(cause).__mro__} for cause in chain]
    if any(found & FINAL_ERRORS for found in names):
        return False
    statuses = [status for status in map(_status, chain) if status is not None]
    if statuses:
        return statuses[0] in PASSING_STATUS
    return any(found & PASSING_ERRORS or isinstance(e, MayPass) for found, e in zip(names, chain, strict=True))


def pause_seconds(tried: int, error: BaseException) -> float:
    """Before the next try: 1, 2, 4, 8 s and a little, or what the server asked for."""
    asked = max(map(_retry_after_seconds, _with_causes(error)), default=0.0)
    backed_off = FIRST_PAUSE_SECONDS * 2 ** (tried - 1) * random.uniform(1, 1.25)  # noqa: S311 no secret
    return min(LONGEST_PAUSE_SECONDS, max(asked, backed_off))


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _retry_after_seconds(error: BaseException) -> float:
    """Read Retry-After of a 429 or 503, in seconds or as a date; 0 where there is none that can be read."""
    response: Any = getattr(error, "response", None)
    value = response.headers.get("Retry-After") if _status(error) in (429, 503) else None
    if value is None:
        return 0.0
    if value.isdigit():
        return float(value)
    date = email.utils.parsedate_tz(value)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else 0.0


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
