"""list[Cell] → jobs: in this process (inline), in local processes, or on a SLURM cluster.

Launching twice is launching once: under a lock, what is done, running or queued anywhere is found and left alone, and
what is taken up is written down before it starts. Whatever a job ends with is in its run directory.
"""

import datetime
import getpass
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from repro.config.errors import InputError, Interrupted
from repro.config.files import write_json
from repro.launch import records, scheduler
from repro.launch.cell import Cell, JobSettings, labelled, needs_a_job, take_up
from repro.launch.prepare import Launch, Options, default_jobs
from repro.launch.records import Group, JobPlace, survey
from repro.runs import ownership
from repro.runs.directory import UNFINISHED

POLL_SECONDS = 1.0
"""Between two looks at runs that another launch sees to."""

__all__ = [
    "Cell",
    "JobSettings",
    "Launch",
    "cancel",
    "default_jobs",
    "labelled",
    "launch",
    "needs_a_job",
    "states",
    "submit",
]


def launch(
    cells: Sequence[Cell],
    settings: JobSettings,
    executor: str = "local",
    jobs: int = 1,
    retry: bool = False,
    watch: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Run every cell that is not a result yet (with `retry`, also those that failed) here, and wait for their ends.

    watch is called often, to show progress. On Ctrl-C, SIGTERM or SIGHUP running jobs leave a checkpoint before this
    returns by KeyboardInterrupt.
    """
    os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}  # both are read at import
    with _signals_are_ctrl_c(), ExitStack() as alive:
        with records.submission_lock(_folder(cells), say):
            for problem in records.unreadable_launches(_folder(cells)):
                say(problem)
            waiting = [taken.cell for taken in take_up(states(cells), retry, say)]
            waiting.sort(key=lambda cell: -cell.spec.steps)  # the longest first, so that processes end together
            group = Group("", tuple(cell.spec.run_id for cell in waiting))
            if waiting:
                how = asdict(settings)
                options = Options(executor=executor, jobs=jobs, timeout=how.pop("timeout_seconds"), **how)
                record = records.new_launch(_folder(cells), records.new_token(), "local", [group], asdict(options))
                alive.enter_context(ownership.beating(record.file))
        if executor == "inline":
            _launch_inline(waiting, settings, watch, say)
        elif waiting:
            from repro.launch.local import launch_local

            launch_local(waiting, settings, jobs, watch, say)
        _wait_for_other_launches(cells, watch)


def submit(launch: Launch, retry: bool = False, say: Callable[[str], None] = lambda text: None) -> list[Group]:
    """Submit every cell that is not a result and nowhere yet to SLURM, and return the arrays that were submitted.

    Raises SchedulerError, which says how far it came: arrays submitted before it stay submitted, and all other runs
    are left as they were.
    """
    from repro.launch.slurm import submit as submit_array

    folder = _folder(launch.cells)
    with records.submission_lock(folder, say) as make_sure:
        if problems := records.unreadable_launches(folder):
            raise InputError("\n".join(problems))  # what they queued would be submitted twice
        taken_up = {taken.cell.spec.run_id: taken for taken in take_up(states(launch.cells), retry, say)}
        try:
            specs = [taken.cell.spec for taken in taken_up.values()]
            arrays = launch.arrays(specs, scheduler.largest_array()) if specs else []
            token = records.new_token()
            groups = [
                Group(f"repro-{token}-{number}", tuple(spec.run_id for spec in array.specs))
                for number, array in enumerate(arrays)
            ]
            if groups:
                record = records.new_launch(folder, token, "slurm", groups, asdict(launch.options))
            for number, (array, group) in enumerate(zip(arrays, groups, strict=True)):
                make_sure()
                try:
                    directories = [taken_up[run].cell.directory for run in group.runs]
                    job_id = submit_array(
                        record.folder, group.name, directories, array.layout, launch.settings, launch.profile
                    )
                except scheduler.SchedulerError as error:
                    raise scheduler.SchedulerError(f"{error}\n{_so_far(groups, number)}") from None
                for run in group.runs:
                    del taken_up[run]
                groups[number] = replace(group, job_id=job_id)
                record = replace(record, groups=tuple(groups))
                record.write()
            return groups
        finally:
            for taken in taken_up.values():  # those that were not submitted
                taken.put_back()


def _so_far(groups: Sequence[Group], refused: int) -> str:
    """Say what of a launch was submitted, where the scheduler refused one of its arrays."""
    done, left = (sum(len(group.runs) for group in part) for part in (groups[:refused], groups[refused:]))
    jobs = ", ".join(group.job_id for group in groups[:refused])
    part = f"{refused} of {len(groups)} arrays were submitted ({done} runs; jobs {jobs})"
    smaller = "; --job max_array_size=N makes smaller arrays" if len(groups[refused].runs) > 1 else ""
    submitted = part if refused else "nothing was submitted"
    return f"{submitted}; {left} runs are missing: typed again, the command submits them{smaller}"


def cancel(cells: Sequence[Cell]) -> list[Cell]:
    """Stop cells that have not ended, wherever they are; returns those. Each leaves a checkpoint, if it can.

    Raises SchedulerError, and InputError for a local process of another machine or person.
    """
    found = [(cell, state, place) for cell, state, place in states(cells) if state in UNFINISHED]
    for cell, _, _ in found:
        by = {"by": getpass.getuser(), "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
        write_json(cell.directory.cancelled_file, by)
    job_ids = [place.job_id for _, _, place in found if place is not None and place.job_id and place.state != "gone"]
    if job_ids:
        scheduler.cancel(job_ids)
    for cell, state, _ in found:
        attempt = ownership.latest(cell.directory.attempts)
        if state == "running" and attempt is not None and not attempt.job_id:
            _end(attempt)
    return [cell for cell, _, _ in found]


def _end(attempt: ownership.Attempt) -> None:
    if attempt.host != socket.gethostname():
        raise InputError(f"{attempt.file.parents[2]}: runs on {attempt.host}; cancel it there")
    try:
        if attempt.is_alive():
            os.kill(attempt.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended by itself
    except PermissionError:
        raise InputError(f"{attempt.file.parents[2]}: its process {attempt.pid} belongs to somebody else") from None


def states(cells: Sequence[Cell]) -> list[tuple[Cell, str, JobPlace | None]]:
    """Every cell with its state and its place; one question to the scheduler. Raises SchedulerError."""
    if not cells:
        return []
    found = [(cell, cell.directory.path.name, cell.state()) for cell in cells]
    unfinished = [name for _, name, state in found if state in UNFINISHED]
    places = survey(_folder(cells), unfinished) if unfinished else {}
    return [  # what was unfinished is read again: a job that has left the queue since wrote its result before
        (cell, cell.state(places) if state in UNFINISHED else state, places.get(name)) for cell, name, state in found
    ]


def _folder(cells: Sequence[Cell]) -> Path:
    """runs/<sweep> of cells of one sweep."""
    return cells[0].directory.path.parent


def _launch_inline(
    waiting: Sequence[Cell], settings: JobSettings, watch: Callable[[], None], say: Callable[[str], None]
) -> None:
    from repro.runs.execute import run
    from repro.train.loop import Options

    for cell in waiting:
        watch()
        options = Options(
            workers=settings.workers,
            checkpoint_seconds=settings.checkpoint_seconds,
            micro_batch=cell.directory.read_micro_batch(),
        )
        try:
            run(cell.spec, cell.directory, options)
        except Interrupted:
            raise KeyboardInterrupt from None
        except InputError as error:  # recorded, unless another process has the run, which is then waited for
            say(str(error))
    watch()


def _wait_for_other_launches(cells: Sequence[Cell], watch: Callable[[], None]) -> None:
    """Runs that other processes have queued or are running without SLURM: their results are ours too."""
    while any(state in ("queued", "running") and not (place and place.job_id) for _, state, place in states(cells)):
        time.sleep(POLL_SECONDS)
        watch()


@contextmanager
def _signals_are_ctrl_c() -> Iterator[None]:
    """Told to end, or left by its terminal, a launch leaves as on Ctrl-C: with checkpoints."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
