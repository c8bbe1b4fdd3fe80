"""A person at a terminal of the cluster: types repro commands in a folder, and looks at what the runs left."""

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

from repro import results
from repro.runs import ownership
from repro.runs.directory import RunDirectory, run_directories
from tests.slurm.cluster import Cluster

ROOT = Path(__file__).parents[2]
PROFILE = """\
partition: low
ranks_per_node: 1
cpus_per_rank: 1
memory: 2GB
time: 10m
grace: 20s
requeue: 2
max_nodes: 2
"""
ON_THE_CLUSTER = ("--executor", "slurm", "--cluster", "here", "--local-batch", "32", "--checkpoint-seconds", "1")


class Person:
    """Types in `folder`, which holds a cluster profile named here."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        (folder / "sweeps" / "clusters").mkdir(parents=True)
        (folder / "sweeps" / "clusters" / "here.yaml").write_text(PROFILE)
        self.python = sys.executable
        self.environment = os.environ | cluster.environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "500"}

    def types(self, *arguments: str, exit_code: int = 0) -> str:
        """What a repro command prints, on stdout and then on stderr; it must end with this code."""
        command = [self.python, "-m", "repro", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submits(self, *arguments: str) -> str:
        """Two nodes a run, one rank each; returns the id of the job or array, '' where nothing was missing."""
        found = re.search(r"Submitted job (\d+)", self.types("sweep", *arguments, *ON_THE_CLUSTER))
        return found[1] if found else ""

    def runs(self) -> list[RunDirectory]:
        return run_directories(self.folder / "runs")

    def table(self) -> "results.pd.DataFrame":
        return results.load(self.folder / "runs")

    def preempts(self, *what: str) -> None:
        """An urgent job that is over soon."""
        self.cluster.command("sbatch", "--partition=high", "-N2", "--output=/dev/null", *what, "--wrap=sleep 2")

    def waits(self, condition, what: str, seconds: float = 300) -> None:
        try:
            self.cluster.wait_for(condition, what, seconds)
        except TimeoutError as error:
            logs = [file.read_text() for file in self.folder.glob("runs/*/.launches/*/*_log.err")]
            raise TimeoutError("\n".join([str(error), self.types("status", "--all"), *logs])) from None


def outcomes(directory: RunDirectory) -> list[str]:
    """Of the run's attempts, '' for one that lives or exited without saying why."""
    return [attempt.outcome for attempt in ownership.all_attempts(directory.attempts)]


def trains(directory: RunDirectory) -> bool:
    """Whether the attempt in force has come to training: it logs."""
    attempt = ownership.latest(directory.attempts)
    if attempt is None or attempt.outcome or not directory.log_file.exists():
        return False
    started = datetime.datetime.fromisoformat(attempt.started_at).timestamp()
    return directory.log_file.stat().st_mtime > started + 1
