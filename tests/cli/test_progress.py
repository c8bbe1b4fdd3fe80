"""Lines of a launch whose output is piped."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from repro.cli.progress import Progress, summarise
from repro.launch import Cell


@pytest.fixture
def abandoned(tmp_path, make_spec):
    """A run whose process was there, and is gone without a result."""
    cell = Cell.of(make_spec(), tmp_path, "mine")
    cell.directory.write_spec(cell.spec)
    folder = cell.directory.attempts
    folder.parent.mkdir(parents=True, exist_ok=True)
    claim = f"from repro.runs.ownership import claim; from pathlib import Path; claim(Path({str(folder)!r}), '', 2)"
    subprocess.run([sys.executable, "-c", claim], check=True)
    return cell


def test_a_run_whose_ranks_are_gone_is_shown_once_the_launch_has_said_why(abandoned):
    console = Console(file=io.StringIO(), width=200)
    with Progress([abandoned], console) as progress:
        progress.update()
        assert abandoned.state() == "interrupted" and console.file.getvalue() == ""
        abandoned.directory.write_result({"status": "killed", "reason": "rank 1 of 2 was killed by SIGKILL"})
        progress.update()
    assert "killed: rank 1 of 2 was killed by SIGKILL" in console.file.getvalue()


def test_what_a_rank_left_of_its_failure_is_the_reason_of_a_run_that_nobody_looked_after(abandoned):
    assert summarise(abandoned).reason == "its process exited without recording a result"
    failure = {"status": "failed", "reason": "rank 0 of 2: lost rank 1", "lost_contact": True}
    abandoned.directory.write_failure(0, failure)
    assert summarise(abandoned).reason == "rank 0 of 2: lost rank 1"
