"""A function on N ranks, each a fresh process, joined in a real process group; and what became of it.

A rank that dies takes only its own measurement with it: the outcome says how, and the benchmark goes on.
Processes are forked from a server that has imported torch and done nothing with it, so each is fresh and starts at
once. A parent can also watch the ranks' memory and stop them above a limit, before the machine is out of memory.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from repro.bench.resident import resident_bytes
from repro.config.units import format_bytes

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["repro.bench.measure", "repro.bench.traffic", "open_clip.loss"]
WATCH_SECONDS = 0.01
GRACE_SECONDS = 1.0
"""When a rank fails, others fail of its absence; so long the first cause is waited for."""


@dataclass(frozen=True)
class Outcome:
    """status: 'ok', 'oom', 'failed' or 'timeout'. values: what the function returned on each rank, in order."""

    status: str
    reason: str = ""
    values: list[Any] = field(default_factory=list)


def on_ranks(
    function: Callable[..., Any],
    *arguments: Any,
    ranks: int = 1,
    threads: int = 1,
    device: str = "cpu",
    limit_seconds: float = 600.0,
    most_bytes: int | None = None,
) -> Outcome:
    """`function(rank, *arguments)` on every rank; never raises for what happens there.

    One rank has no process group. Several have gloo, or nccl on cuda with a device each.
    most_bytes: on CPUs, ranks are stopped once one holds so much more than when it called `watch_from_here`.
    """
    CONTEXT.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        processes, connections = [], []
        for rank in range(ranks):
            receiving, sending = CONTEXT.Pipe(duplex=False)
            place = (rank, ranks, threads, device, folder, limit_seconds)
            process = CONTEXT.Process(target=_one_rank, args=(sending, place, function, arguments), daemon=True)
            process.start()
            sending.close()
            processes.append(process)
            connections.append(receiving)
        try:
            return _Waiting(processes, connections, folder, most_bytes).outcome(limit_seconds)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()


_announce: Callable[[tuple], None] = lambda message: None  # noqa: E731


def watch_from_here() -> None:
    """Called on a rank: what it holds at this moment is not counted against most_bytes."""
    _announce(("holds", resident_bytes()))


class _Waiting:
    """The parent's side of one call: messages, deaths, memory and the clock."""

    def __init__(self, processes: list, connections: list[Connection], folder: str, most_bytes: int | None):
        self.processes, self.connections, self.folder, self.most_bytes = processes, connections, folder, most_bytes
        self.held: dict[int, int] = {}
        self.done: dict[int, Any] = {}
        self.failed: list[tuple[str, str]] = []

    def outcome(self, limit_seconds: float) -> Outcome:
        deadline = time.monotonic() + limit_seconds
        open_ranks = set(range(len(self.processes)))
        while open_ranks:
            left = deadline - time.monotonic()
            if left <= 0:
                return self._first_failure() or Outcome("timeout", f"not done after {limit_seconds:g} s")
            watching = self.most_bytes is not None and self.held
            ready = wait([self.connections[r] for r in open_ranks], min(left, WATCH_SECONDS if watching else left))
            for rank in [r for r in open_ranks if self.connections[r] in ready]:
                if not self._hear(rank):
                    open_ranks.remove(rank)
                    if self.failed:
                        deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
            if watching and (over := self._over_memory()):
                return over
        return self._first_failure() or Outcome("ok", values=[self.done[r] for r in sorted(self.done)])

    def _hear(self, rank: int) -> bool:
        """One message of a rank; whether more may come."""
        try:
            kind, *content = self.connections[rank].recv()
        except EOFError:
            self.processes[rank].join()
            self.failed.append(self._death(rank))
            return False
        if kind == "holds":
            self.held[rank] = content[0]
            return True
        if kind == "done":
            self.done[rank] = content[0]
        else:
            self.failed.append((content[0], content[1]))
        return False

    def _death(self, rank: int) -> tuple[str, str]:
        code = self.processes[rank].exitcode
        if code == -signal.SIGKILL:
            return "oom", f"rank {rank} was killed (SIGKILL), as the system does when memory is out"
        said = Path(self.folder, f"output-{rank}").read_text(errors="replace").strip().splitlines()
        return "failed", f"rank {rank} died with exit code {code}" + (f": {said[-1][:200]}" if said else "")

    def _first_failure(self) -> Outcome | None:
        """Out of memory rather than the other failures that it brings."""
        failures = sorted(self.failed, key=lambda failure: failure[0] != "oom")
        return Outcome(*failures[0]) if failures else None

    def _over_memory(self) -> Outcome | None:
        for rank, held in self.held.items():
            with contextlib.suppress(OSError, ValueError):  # a rank that is ending
                if rank not in self.done and resident_bytes(self.processes[rank].pid) - held > self.most_bytes:
                    return Outcome("oom", f"stopped at more than {format_bytes(self.most_bytes)}")
        return None


def _one_rank(sending: Connection, place: tuple, function: Callable[..., Any], arguments: tuple) -> None:
    global _announce
    rank, ranks, threads, device, folder, limit_seconds = place
    _announce = sending.send
    with open(Path(folder, f"output-{rank}"), "w") as output:  # libraries' chatter; a crash's last line is its reason
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    warnings.simplefilter("ignore")
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    try:
        with _group(rank, ranks, threads, device, folder, limit_seconds):
            answer = ("done", function(rank, *arguments))
    except BaseException as error:
        answer = ("failed", *_describe(error))
    sending.send(answer)
    os._exit(0)  # a group whose other ranks are gone may not end in time


@contextlib.contextmanager
def _group(rank: int, ranks: int, threads: int, device: str, folder: str, limit_seconds: float) -> Iterator[None]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(rank)
    if ranks == 1:
        yield
        return
    backend = "nccl" if device == "cuda" else "gloo"
    store = f"file://{folder}/store"
    limit = timedelta(seconds=limit_seconds + 60)
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=ranks, timeout=limit)
    yield
    dist.barrier()  # none leaves while another still needs it


def _describe(error: BaseException) -> tuple[str, str]:
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    known = ("OutOfMemoryError", "MemoryError", "can't allocate memory", "out of memory", "bad_alloc")
    return ("oom" if any(word in text for word in known) else "failed"), text
