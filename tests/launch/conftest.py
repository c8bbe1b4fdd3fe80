"""Runs to launch, small enough to be killed again and again."""

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from repro.cli import main
from repro.launch import Cell
from repro.runs import ownership
from repro.runs.directory import RunDirectory


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """typed("status", folder=…) → the command's result, in this process: ranks are forked from one server for all."""

    def run(*arguments: str, folder: Path = tmp_path) -> Result:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")
        return CliRunner().invoke(main, list(map(str, arguments)))

    return run


@pytest.fixture
def cell(tmp_path, make_spec):
    def make(**values):
        return Cell.of(make_spec(**values), tmp_path / "runs", "mine")

    return make


def processes_of(directory: RunDirectory) -> dict[int, int]:
    """Rank → pid of the living ranks of a run."""
    said = {int(file.name[6:]): file.read_text().split() for file in directory.job.glob("alive-*")}
    pids = {rank: int(words[1]) for rank, words in said.items() if len(words) > 1}
    return {rank: pid for rank, pid in pids.items() if ownership.process_started(pid)}


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def has_signals(pid: int) -> bool:
    """Whether signals await a process that was stopped; also when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    return any(int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))


def sha256_fits(file: Path) -> bool:
    digest = file.with_name(f"{file.name}.sha256").read_text().split()[0]
    return hashlib.sha256(file.read_bytes()).hexdigest() == digest


class SmallDisk:
    """Called to show progress: once there is a checkpoint, fills the disk to the last byte."""

    def __init__(self, folder: Path):
        self.folder, self.filler = folder, folder / "filler"

    def __call__(self) -> None:
        if not self.filler.exists() and list(self.folder.glob("*/*/checkpoints/step-*.pt")):
            with self.filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while filler.write(bytes(4096)):
                    pass

    def make_room(self) -> None:
        self.filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A file system of its own at `folder`; only root can have one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
