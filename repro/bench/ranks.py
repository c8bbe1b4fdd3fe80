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

import psutil

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
            return _outcome(processes, connections, folder, limit_seconds, most_bytes)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()


_announce: Callable[[tuple], None] = lambda message: None  # noqa: E731


def watch_from_here() -> None:
    """Called on a rank: what it holds at this moment is not counted against most_bytes."""
    _announce(("holds", resident_bytes()))


def resident_bytes(pid: int | None = None) -> int:
    """What a process holds in memory at this moment. Raises psutil.Error where it has ended."""
    return psutil.Process(pid).memory_info().rss


def _outcome(
    processes: list, connections: list[Connection], folder: str, limit_seconds: float, most_bytes: int | None
) -> Outcome:
    """The parent's side of one call: messages, deaths, memory and the clock."""
    held: dict[int, int] = {}
    done: dict[int, Any] = {}
    failed: list[tuple[str, str]] = []
    deadline, timeout = time.monotonic() + limit_seconds, ("timeout", f"not done after {limit_seconds:g} s")
    waiting = set(range(len(processes)))
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            failed = failed or [timeout]
            break
        watching = most_bytes is not None and held
        ready = wait([connections[rank] for rank in waiting], min(left, WATCH_SECONDS if watching else left))
        for rank in [rank for rank in waiting if connections[rank] in ready]:
            try:
                kind, *content = connections[rank].recv()
            except EOFError:
                processes[rank].join()
                kind, content = "failed", _death(rank, processes[rank].exitcode, folder)
            if kind == "holds":
                held[rank] = content[0]
                continue
            waiting.remove(rank)
            if kind == "done":
                done[rank] = content[0]
            else:
                failed.append(tuple(content))
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        for rank in held.keys() - done.keys() if watching else ():
            with contextlib.suppress(psutil.Error):  # a rank that is ending
                if resident_bytes(processes[rank].pid) - held[rank] > most_bytes:
                    return Outcome("oom", f"stopped at more than {format_bytes(most_bytes)}")
    if failed:
        return Outcome(*min(failed, key=lambda failure: failure[0] != "oom"))  # which brings other failures
    return Outcome("ok", values=[done[rank] for rank in sorted(done)])


def _death(rank: int, code: int, folder: str) -> tuple[str, str]:
    if code == -signal.SIGKILL:
        return "oom", f"rank {rank} was killed (SIGKILL), as the system does when memory is out"
    said = Path(folder, f"output-{rank}").read_text(errors="replace").strip().splitlines()
    return "failed", f"rank {rank} died with exit code {code}" + (f": {said[-1][:200]}" if said else "")


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
    text = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}".removesuffix(": ")
    known = ("OutOfMemoryError", "MemoryError", "can't allocate memory", "out of memory", "bad_alloc")
    return ("oom" if any(word in text for word in known) else "failed"), text
