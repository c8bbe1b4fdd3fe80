"""The parent of a test cluster's daemons: no process of the cluster outlives it, and it does not outlive the test.

It reads one daemon a line from its standard input, {"argv": […], "log": path, "environment": {…}}, and answers with
the daemon's process id. When its standard input ends (the test closed it, or died in whatever way), it ends all of
them. SLURM lets steps and jobs survive their slurmd by design; as subreaper the keeper inherits these orphans, and so
can find and end them.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, reap)
    # Ctrl-C and a closed terminal are the test's to handle: it closes our standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    daemons = []
    try:
        for line in sys.stdin:
            daemons.append(start(**json.loads(line)))
            print(daemons[-1].pid, flush=True)
    finally:
        end_all([daemon.pid for daemon in daemons])


def start(argv: list[str], log: str, environment: dict[str, str]) -> subprocess.Popen:
    with Path(log).open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | environment,
            start_new_session=True,
            preexec_fn=die_with_us,
        )


def die_with_us() -> None:
    """In a daemon before it starts: should the keeper itself be killed hard, only jobs that run are left."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):  # what a process ignores, its children would ignore
        signal.signal(number, signal.SIG_DFL)


def reap(*_) -> None:
    """Collect dead children, adopted ones included: a zombie still counts as a process of its group."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def end_all(daemons: list[int], seconds: float = 5.0) -> None:
    """Ask the daemons to stop, the latest started first; then kill every descendant until none is left."""
    for pid in reversed(daemons):
        if pid in descendants():
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: pid not in descendants(), seconds)

    def kill_the_rest() -> bool:
        left = descendants()
        kill(left)
        return not left

    wait_until(kill_the_rest, seconds)


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, or with another of them
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
        reap()


def descendants(*ancestors: int) -> set[int]:
    """Process ids of all that descend from `ancestors`, or from this process; without the ancestors themselves."""
    roots = set(ancestors) or {os.getpid()}
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - roots


if __name__ == "__main__":
    main()
