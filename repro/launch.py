"""list[RunSpec] → jobs: in this process (inline), or in local processes, N at a time.

Launching twice is launching once: a finished run is not run again, one that another process is running is waited
for. Whatever a job ends with is in its run directory, and states are read from there and nowhere else.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.data.evalsets import evaluated
from repro.data.source import eval_folders
from repro.errors import InputError, Interrupted, nearest
from repro.rundir import UNFINISHED, CorruptRun, RunDirectory, read_json
from repro.spec import RunSpec

EXECUTORS = ("inline", "local")
INTERRUPTED = 130
"""Exit code of a job that was asked to stop and left a checkpoint."""
POLL_SECONDS = 0.3
"""Between two looks at the run directories."""
PRELOADED = ["repro.run", "clip_benchmark.datasets.builder", "clip_benchmark.metrics.zeroshot_classification"]
"""Imported once, by the process that all jobs are forked from."""


@dataclass(frozen=True)
class Cell:
    """One run of a launch: what it is, where it lies."""

    spec: RunSpec
    directory: RunDirectory

    @classmethod
    def of(cls, spec: RunSpec, runs: Path, sweep: str) -> "Cell":
        return cls(spec, RunDirectory(runs.resolve() / sweep / spec.run_id))

    def state(self) -> str:
        """The directory's status; a finished run that lacks an evaluation is `pending`."""
        try:
            status = self.directory.status()
        except CorruptRun:
            return "corrupt"
        if status == "finished" and not evaluated(self.directory, eval_folders(self.spec)):
            return "pending"
        return status


@dataclass(frozen=True)
class JobSettings:
    """How jobs are carried out; changes no result."""

    workers: int = 0
    checkpoint_seconds: float = 300.0


def launch(
    cells: list[Cell],
    settings: JobSettings,
    executor: str = "local",
    jobs: int = 1,
    retry: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run every cell that is not a result yet (with `retry`, also those that failed).

    watch is called often, to show progress. On Ctrl-C running jobs leave a checkpoint before this returns by
    KeyboardInterrupt.
    """
    if executor not in EXECUTORS:
        raise InputError(f"unknown executor '{executor}'{nearest(executor, EXECUTORS)}")
    waiting = [cell for cell in cells if needs_a_job(cell, retry)]
    waiting.sort(key=lambda cell: -cell.spec.steps)  # the longest first, so that processes end together
    for cell in waiting:
        if cell.state() != "running":
            cell.directory.write_spec(cell.spec)
            if retry:
                cell.directory.result_file.unlink(missing_ok=True)
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}  # both are read at import
    if executor == "inline":
        _launch_inline(waiting, settings, watch)
    else:
        _launch_local(waiting, settings, jobs, watch)


def needs_a_job(cell: Cell, retry: bool) -> bool:
    state = cell.state()
    return state in UNFINISHED or (retry and state not in ("finished", "corrupt"))


def _launch_inline(waiting: list[Cell], settings: JobSettings, watch: Callable[[], None]) -> None:
    for cell in waiting:
        watch()
        _wait_while_elsewhere(cell, watch)
        if cell.state() in UNFINISHED:
            try:
                _run(cell, settings)
            except Interrupted:
                raise KeyboardInterrupt from None
    watch()


def _launch_local(waiting: list[Cell], settings: JobSettings, jobs: int, watch: Callable[[], None]) -> None:
    """Each job in a process of its own, forked from one that has imported what all of them need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    processes: dict[Any, Cell] = {}
    queue = list(waiting)
    try:
        while queue or processes:
            while queue and len(processes) < jobs:
                cell = queue.pop(0)
                _wait_while_elsewhere(cell, watch)
                if cell.state() not in UNFINISHED:
                    continue
                process = context.Process(target=_job, args=(cell, settings))
                process.start()
                processes[process] = cell
            time.sleep(POLL_SECONDS)
            watch()
            for process in [p for p in processes if not p.is_alive()]:
                _record_a_crash(processes.pop(process), process.exitcode)
                if process.exitcode == INTERRUPTED:  # a person's Ctrl-C, which may reach a job and not us
                    raise KeyboardInterrupt
        watch()
    except KeyboardInterrupt:
        _stop(list(processes))
        watch()
        raise


def _job(cell: Cell, settings: JobSettings) -> None:
    """The process of one run: its output goes to the run's job/output.log."""
    output = os.open(cell.directory.output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        _run(cell, settings)
    except Interrupted:
        sys.exit(INTERRUPTED)
    except InputError as error:
        cell.directory.write_result({"status": "failed", "reason": str(error)})


def _run(cell: Cell, settings: JobSettings) -> None:
    from repro.run import run
    from repro.train.loop import Options

    run(cell.spec, cell.directory, Options(settings.workers, settings.checkpoint_seconds))


def _record_a_crash(cell: Cell, exit_code: int | None) -> None:
    """A job that ended without a result of its own was killed: say by what."""
    if exit_code in (0, INTERRUPTED) or cell.directory.result_file.exists():
        return
    if exit_code is not None and exit_code < 0:
        status, reason = "killed", f"by {signal.Signals(-exit_code).name}"
        if exit_code == -signal.SIGKILL:
            reason += ": by the system, short of memory, or by a person"
    else:
        status, reason = "failed", f"exit code {exit_code}; see {cell.directory.output_file}"
    cell.directory.write_result({"status": status, "reason": reason})


def _stop(processes: list[Any]) -> None:
    """Ask running jobs to leave a checkpoint, and wait; a second Ctrl-C ends them at once."""
    with contextlib.suppress(KeyboardInterrupt):
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        return
    for process in processes:
        process.kill()
        process.join()


def _wait_while_elsewhere(cell: Cell, watch: Callable[[], None]) -> None:
    """Another process (a second terminal) has this run: its result is ours too."""
    while cell.directory.is_locked():
        time.sleep(POLL_SECONDS)
        watch()


def default_jobs(threads: int) -> int:
    """As many runs side by side as there are cores for; one where there is a GPU."""
    if Path("/dev/nvidia0").exists():
        return 1
    return max(1, len(os.sched_getaffinity(0)) // threads)


def read_spec_file(file: Path) -> RunSpec:
    """A spec from a run's spec.json, or one that a person wrote. Raises InputError."""
    try:
        values = read_json(file)
    except CorruptRun as error:
        raise InputError(str(error)) from None
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected the keys and values of a RunSpec")
    return RunSpec.parse(values, str(file))
