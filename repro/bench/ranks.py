"""A function on N ranks, each a fresh process, joined in a real process group; and what became of it.

A rank that dies takes only its own measurement with it: the outcome says how, and the benchmark goes on.
Processes are forked from a server that has imported torch and done nothing with it, so each is fresh and starts at
once.
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

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["repro.bench.measure", "repro.bench.traffic", "open_clip.loss"]
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
) -> Outcome:
    """`function(rank, *arguments)` on every rank; never raises for what happens there.

    One rank has no process group. Several have gloo, or nccl on cuda with a device each.
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
            return _outcome(processes, connections, folder, limit_seconds)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()


def _outcome(processes: list, connections: list[Connection], folder: str, limit_seconds: float) -> Outcome:
    """The parent's side of one call: answers, deaths and the clock."""
    done: dict[int, Any] = {}
    failed: list[tuple[str, str]] = []
    deadline = time.monotonic() + limit_seconds
    while len(done) + len(failed) < len(processes):
        open_connections = [connection for connection in connections if not connection.closed]
        ready = wait(open_connections, max(0.0, deadline - time.monotonic()))
        if not ready:
            failed = failed or [("timeout", f"not done after {limit_seconds:g} s")]
            break
        for connection in ready:
            rank = connections.index(connection)
            try:
                status, content = connection.recv()
            except EOFError:
                processes[rank].join()
                status, content = _death(rank, processes[rank].exitcode, folder)
            connection.close()
            if status == "ok":
                done[rank] = content
            else:
                failed.append((status, content))
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    if failed:
        return Outcome(*min(failed, key=lambda failure: failure[0] != "oom"))  # which brings other failures
    return Outcome("ok", values=[done[rank] for rank in sorted(done)])


def _death(rank: int, code: int, folder: str) -> tuple[str, str]:
    if code == -signal.SIGKILL:
        return "oom", f"rank {rank} was killed (SIGKILL), as the system does when memory is out"
    said = Path(folder, f"output-{rank}").read_text(errors="replace").strip().splitlines()
    text = f"rank {rank} died with exit code {code}" + (f": {said[-1][:200]}" if said else "")
    return _status_of(text), text


def _status_of(text: str) -> str:
    known = ("OutOfMemoryError", "MemoryError", "can't allocate memory", "out of memory", "bad_alloc")
    return "oom" if any(word in text for word in known) else "failed"


def _one_rank(sending: Connection, place: tuple, function: Callable[..., Any], arguments: tuple) -> None:
    rank, ranks, threads, device, folder, limit_seconds = place
    with open(Path(folder, f"output-{rank}"), "w") as output:  # libraries' chatter; a crash's last line is its reason
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    warnings.simplefilter("ignore")
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    try:
        with _group(rank, ranks, threads, device, folder, limit_seconds):
            answer = ("ok", function(rank, *arguments))
    except BaseException as error:
        lines = str(error).strip().splitlines() or [""]
        text = f"{type(error).__name__}: {lines[0][:200]}".removesuffix(": ")
        answer = (_status_of(text), text)
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
