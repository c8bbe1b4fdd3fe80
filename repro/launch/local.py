"""Jobs as processes of this machine, some at a time, forked from one that has imported what all of them need."""

import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from repro.config.hardware import visible_gpus
from repro.launch.cell import Cell, JobSettings
from repro.launch.job import Exit, Job
from repro.launch.rank import run_rank
from repro.runs.directory import RunDirectory
from repro.runs.liveness import leave

POLL_SECONDS = 0.3
"""Between two looks at the processes."""
PRELOADED = [
    "repro.runs.execute",
    "open_clip",
    "clip_benchmark.datasets.builder",
    "clip_benchmark.metrics.zeroshot_classification",
    "clip_benchmark.metrics.zeroshot_retrieval",
]
"""Imported once, by the process that all jobs are forked from."""


class LocalRanks:
    """One run's ranks on this machine. gpus: what they see, as CUDA_VISIBLE_DEVICES names it; none: all there are."""

    def __init__(self, cell: Cell, settings: JobSettings, gpus: Sequence[str] = ()):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        port = free_port() if settings.ranks > 1 else 0
        self.processes = [
            context.Process(target=rank_process, args=(cell.directory, settings, rank, port, tuple(gpus)))
            for rank in range(settings.ranks)
        ]
        self.ended: list[Exit] = []
        self.node_failed = False
        for process in self.processes:
            process.start()

    def exits(self) -> list[Exit]:
        known = {one.rank for one in self.ended}
        for rank, process in enumerate(self.processes):
            if rank not in known and process.exitcode is not None:
                self.ended.append(Exit(rank, process.exitcode, self._in_words(rank, process.exitcode)))
        return self.ended

    def running(self) -> bool:
        return any(process.exitcode is None for process in self.processes)

    def terminate(self) -> None:
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def _in_words(self, rank: int, code: int) -> str:
        return in_words(rank, len(self.processes), "", code)


def in_words(rank: int, ranks: int, node: str, code: int) -> str:
    """'rank 1 of 2 on n2 was killed by SIGKILL: …'."""
    who = (f"rank {rank} of {ranks}" if ranks > 1 else "its process") + (f" on {node}" if node else "")
    if code >= 0:
        return f"{who} ended with exit code {code}"
    cause = ": by the system, short of memory, or by a person" if -code == signal.SIGKILL else ""
    return f"{who} was killed by {signal.Signals(-code).name}{cause}"


def launch_local(
    waiting: Sequence[Cell], settings: JobSettings, jobs: int, watch: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Run cells, at most `jobs` at a time. On Ctrl-C the jobs leave a checkpoint, then KeyboardInterrupt goes on."""
    queue = list(waiting)
    active: list[Job] = []
    gpus, stopping = Gpus(visible_gpus()), []
    try:
        while queue or active:
            for cell in _startable(queue, jobs - len(active)):
                job = Job(
                    cell,
                    settings,
                    partial(LocalRanks, gpus=gpus.take(cell, settings.ranks)),
                    say=lambda text, cell=cell: say(f"{cell.label}: {text}"),
                    leaving=lambda: bool(stopping),
                )
                job.start()
                active.append(job)
            time.sleep(POLL_SECONDS)
            watch()
            for job in [job for job in active if _is_over(job, say)]:
                active.remove(job)
                gpus.give_back(job.cell)
                if job.outcome == "busy":
                    queue.append(job.cell)
                elif job.outcome in ("stopped", "make-room") and not job.cell.directory.cancelled_file.exists():
                    raise KeyboardInterrupt  # a person's Ctrl-C, which may reach a job and not us
        watch()
    except KeyboardInterrupt:
        stopping.append(True)
        _stop(active, say)
        watch()
        raise


class Gpus:
    """Deals GPUs to runs: one for each rank, those first that the fewest runs have."""

    def __init__(self, names: Sequence[str]):
        self.names, self.taken = tuple(names), {}

    def take(self, cell: Cell, ranks: int) -> tuple[str, ...]:
        load = Counter(name for names in self.taken.values() for name in names)
        free_first = sorted(self.names, key=lambda name: (load[name], self.names.index(name)))
        self.taken[cell.spec.run_id] = tuple(sorted(free_first[:ranks], key=self.names.index))
        return self.taken[cell.spec.run_id]

    def give_back(self, cell: Cell) -> None:
        self.taken.pop(cell.spec.run_id, None)


def _is_over(job: Job, say: Callable[[str], None]) -> bool:
    """Whether a job has ended; one whose end cannot be written down does not take the others with it."""
    try:
        return job.poll()
    except OSError as error:
        job.ranks.kill()
        say(f"{job.cell.label}: its end cannot be recorded: {error}")
        return True


def _startable(queue: list[Cell], most: int) -> list[Cell]:
    """The next cells to start, taken from the queue; those that another process runs stay in it, till they end."""
    found: list[Cell] = []
    for cell in list(queue):
        if len(found) >= most:
            break
        state = cell.state()
        if state != "running":
            queue.remove(cell)
            found += [cell] if state in ("pending", "interrupted") else []
    return found


def rank_process(directory: RunDirectory, settings: JobSettings, rank: int, port: int, gpus: tuple[str, ...]) -> None:
    """The process of one rank."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(settings.ranks)}
    if settings.ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    leave(run_rank(directory, settings))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _stop(active: Sequence[Job], say: Callable[[str], None]) -> None:
    """Ask running jobs to stop, and wait for their ends; what does not come to one, or a second Ctrl-C, is killed."""
    left = list(active)
    try:
        for job in left:
            job.ranks.terminate()
        while left:
            left = [job for job in left if not _is_over(job, say)]
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        for job in active:
            job.ranks.kill()
