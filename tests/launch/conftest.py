"""Runs to launch, small enough to be killed again and again."""

import contextlib
import os
import signal

import pytest

from repro import attempts
from repro.launch import Cell
from repro.rundir import RunDirectory


@pytest.fixture
def cell(tmp_path, make_spec):
    def make(**values):
        return Cell.of(make_spec(**values), tmp_path / "runs", "mine")

    return make


def processes_of(directory: RunDirectory) -> dict[int, int]:
    """Rank → pid of the living ranks of a run."""
    said = {int(file.name[6:]): int(file.read_text().split()[1]) for file in directory.job.glob("alive-*")}
    return {rank: pid for rank, pid in said.items() if attempts.process_started(pid)}


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
