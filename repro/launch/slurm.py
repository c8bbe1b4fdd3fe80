"""Jobs of a SLURM cluster: arrays submitted through submitit, and what such a job does on its first node.

The batch script becomes one light process (submitit's, which calls a `SlurmJob`) on the first node; that starts the
ranks with srun and looks after them. SLURM tells the ranks alone to make room: they leave a checkpoint and end, and
this process has the job requeued under its id, by submitit's own checkpoint mechanism. What SLURM does when, as it was
seen, is in docs/cluster.md.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import submitit

from repro.config.errors import InputError
from repro.config.units import format_bytes
from repro.launch import scheduler
from repro.launch.cell import Cell, JobSettings
from repro.launch.job import Exit, Job
from repro.launch.local import free_port, in_words
from repro.launch.rank import JOB_ID, as_arguments
from repro.runs import ownership
from repro.runs.directory import UNFINISHED, RunDirectory

if TYPE_CHECKING:
    from repro.config.cluster import ClusterProfile, Layout

POLL_SECONDS = 0.5
"""Between two looks at the ranks."""
KILL_SECONDS = 15.0
"""Time for srun to end its tasks before it is killed itself."""
TASK_ENDED = re.compile(r"srun: error: (\S+): tasks? ([\d,\[\]-]+): (.+)")
OVER_MEMORY = re.compile(r"slurmstepd(?:-(\S+))?: error: .* exceeded memory limit \((\d+) > (\d+)\), being killed")
"""Said by the accounting plugin (JobAcctGatherParams=OverMemoryKill): bytes used, bytes allowed."""
OUT_OF_MEMORY = "Out Of Memory"
IDLE_STARTS = 5
"""After so many in a row that got no further a run is given up: its time limit is shorter than its start."""
NODE_FAILURE = "srun: error: Node failure on"
CAUSES = {signal.strsignal(number): number for number in signal.valid_signals()}
"""'Killed' → 9: SLURM's words for a signal are the C library's."""


@dataclass(frozen=True)
class SlurmJob:
    """The callable of one job: submitit pickles it, calls it, and calls it again when the job was requeued."""

    run_directory: str
    settings: JobSettings

    def __call__(self) -> str:
        directory = RunDirectory(Path(self.run_directory))
        job_id = job_id_from_environment()
        leaving: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: leaving.append(number))  # SLURM ends or requeues the job
        earlier = [attempt for attempt in ownership.all_attempts(directory.attempts) if attempt.job_id == job_id]
        job = Job(
            Cell(directory.read_spec(), directory),
            self.settings,
            SlurmRanks,
            say=lambda text: print(text, flush=True),
            leaving=lambda: bool(leaving),
            deaths=len(deaths_among(earlier)),
            log=submitit.JobEnvironment().paths.stderr,
        )
        if directory.cancelled_file.exists() or job.cell.state() not in UNFINISHED:
            return "nothing to do"
        if reason := no_use_starting(earlier, self.settings.restarts):
            job.give_up(reason)
            return job.outcome
        job.start()
        while not job.poll():
            time.sleep(POLL_SECONDS)
        print(f"{directory.path.name}: {job.outcome}", flush=True)
        if not leaving and (job.outcome == "make-room" or (job.outcome == "stopped" and scheduler.preempted(job_id))):
            # A job that ends while it is being preempted counts as done, and SLURM does not requeue it. At the request
            # to requeue it ends the job at once: the command that asks must outlive the signal.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's handler calls checkpoint(), requeues the job and exits
        return job.outcome

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """All state is in the run directory: the requeued job calls the same thing again."""
        return submitit.helpers.DelayedSubmission(self)


def deaths_among(earlier: Sequence[ownership.Attempt]) -> list[ownership.Attempt]:
    """Attempts that did not end in order: a rank died, or all exited without saying why."""
    return [attempt for attempt in earlier if not attempt.outcome or attempt.outcome.startswith("died")]


def no_use_starting(earlier: Sequence[ownership.Attempt], restarts: int) -> str:
    """Why a job that was requeued should not start its run once more, or ''. earlier: the same job's attempts."""
    deaths = deaths_among(earlier)
    if len(deaths) > restarts:
        last_words = deaths[-1].outcome or "a node lost, or killed with no time for a checkpoint"
        return f"{len(deaths)} starts did not end in order; the last: {last_words}"
    last = earlier[-IDLE_STARTS:]
    told_to_stop = [attempt for attempt in last if attempt.outcome == "interrupted"]
    if len(told_to_stop) == IDLE_STARTS and len({attempt.examples_seen for attempt in last}) == 1:
        return f"{IDLE_STARTS} starts in a row were told to stop before they got any further: they need more time"
    return ""


class SlurmRanks:
    """One run's ranks, as the tasks of one srun of this job."""

    def __init__(self, cell: Cell, settings: JobSettings):
        self.count = settings.ranks
        self.ended: list[Exit] = []
        self.terminated_at: float | None = None
        self.node_failed = False
        environment = os.environ | {
            "MASTER_ADDR": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "MASTER_PORT": str(free_port()),
            JOB_ID: job_id_from_environment(),
        }
        command = ["srun", *srun_options(self.count), *as_arguments(cell.directory, settings)]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)  # noqa: S603
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def exits(self) -> list[Exit]:
        if self.process.poll() is not None:
            self.reader.join(timeout=5)
            if self.process.returncode and not self.ended:
                return [Exit(0, self.process.returncode, f"srun ended with exit code {self.process.returncode}")]
        return list(self.ended)

    def running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGUSR2)  # srun hands it on to all tasks; at SIGTERM it would kill them

    def kill(self) -> None:
        """Kill all tasks, by srun; where that hangs on a lost node, srun itself."""
        if self.terminated_at is None:
            self.terminated_at = time.monotonic()
            self.process.send_signal(signal.SIGTERM)
        elif time.monotonic() - self.terminated_at > KILL_SECONDS:
            self.process.kill()

    def _read(self) -> None:
        """srun says on its stderr which task ended how; all of it goes on to the job's log."""
        for line in self.process.stderr:
            sys.stderr.write(line)
            sys.stderr.flush()
            if NODE_FAILURE in line:
                self.node_failed = True
            self.ended += exits_of(line, self.count)


def srun_options(ranks: int) -> list[str]:
    """How srun starts a run's ranks in this job, whatever options its batch script had.

    Each rank sees all of the job's GPUs on its node, unless the profile's options bind them: ranks choose among what
    they see. With --gpu-bind=none SLURM would say nothing about GPUs, and ranks would see other jobs' as well.
    """
    options = ["--export=ALL", "--kill-on-bad-exit=1", "--wait=0", f"--ntasks={ranks}"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
        options.append(f"--cpus-per-task={cpus}")  # since SLURM 22.05 srun does not take it from the job
    if gpus := os.environ.get("SLURM_GPUS_PER_NODE"):
        options.append(f"--gpus-per-node={gpus}")
    return options


def exits_of(line: str, ranks: int) -> list[Exit]:
    """The tasks that a line of srun's says have ended: 'srun: error: n2: tasks 2-3: Killed'.

    Where the accounting plugin ends all of a step that is over its memory limit on one node, it says so first.
    """
    if over := OVER_MEMORY.match(line):
        node, used, most = over[1] or "one node", format_bytes(int(over[2])), format_bytes(int(over[3]))
        text = f"the ranks on {node} were over the job's memory limit: {used} of {most}"
        return [Exit(0, -signal.SIGKILL, text, out_of_memory=True)]
    if (ended := TASK_ENDED.match(line)) is None:
        return []
    node, tasks, how = ended.groups()
    return [_exit(rank, ranks, node, how.strip()) for rank in _numbers(tasks)]


def _exit(rank: int, ranks: int, node: str, how: str) -> Exit:
    """One line of srun's: 'Killed', 'Segmentation fault (core dumped)', 'Exited with exit code 1', 'Out Of Memory'."""
    if how.startswith(OUT_OF_MEMORY):
        return Exit(rank, -signal.SIGKILL, f"rank {rank} of {ranks} on {node} was over the job's memory limit", True)
    if code := re.match(r"Exited with exit code (\d+)", how):
        return Exit(rank, int(code[1]), in_words(rank, ranks, node, int(code[1])))
    number = CAUSES.get(how.removesuffix(" (core dumped)"))
    if number is None:
        return Exit(rank, 1, f"rank {rank} of {ranks} on {node}: {how}")
    return Exit(rank, -number, in_words(rank, ranks, node, -number))


def _numbers(tasks: str) -> list[int]:
    """'0,2-3' → [0, 2, 3]."""
    spans = [part.partition("-") for part in tasks.strip("[]").split(",")]
    return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]


def job_id_from_environment() -> str:
    """'123' or '123_4', as squeue and sacct write it."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def submit(
    folder: Path,
    name: str,
    directories: list[RunDirectory],
    layout: "Layout",
    settings: JobSettings,
    profile: "ClusterProfile",
) -> str:
    """Submit runs of one layout as one array named `name`; returns its job id. Raises SchedulerError.

    folder: where submitit keeps the jobs' scripts and logs. settings: but for the ranks, which the layout has.
    """
    from repro.config.cluster import sbatch_parameters

    for needed in ("sbatch", "srun"):
        if shutil.which(needed) is None:
            raise scheduler.missing(needed)
    # exec: a shell in between would die at SIGTERM, and SLURM would then kill this process before it could act.
    command = f"exec {profile.python or shlex.quote(sys.executable)}"
    executor = submitit.SlurmExecutor(folder, max_num_timeout=sys.maxsize, python=command)
    settings = replace(settings, ranks=layout.ranks)
    try:
        executor.update_parameters(job_name=name, **sbatch_parameters(profile, layout.nodes, layout.ranks_per_node))
        with scheduler.own_environment(), executor.batch():
            jobs = [executor.submit(SlurmJob(str(directory.path), settings)) for directory in directories]
    except submitit.core.utils.FailedJobError as error:
        raise scheduler.SchedulerError(f"sbatch refused the jobs: {error}") from None
    except ValueError as error:
        raise InputError(f"cluster profile: {error}") from None
    return jobs[0].job_id.partition("_")[0]
