"""Lines of a launch whose output is piped."""

import io
import subprocess
import sys

from rich.console import Console

from repro.cli.progress import Progress
from repro.launch import Cell


def test_a_run_whose_ranks_are_gone_is_shown_once_the_launch_has_said_why(tmp_path, make_spec):
    cell = Cell.of(make_spec(), tmp_path, "mine")
    cell.directory.write_spec(cell.spec)
    folder = cell.directory.attempts
    folder.parent.mkdir(parents=True, exist_ok=True)
    claim = f"from repro import attempts; from pathlib import Path; attempts.claim(Path({str(folder)!r}), '', 2)"
    subprocess.run([sys.executable, "-c", claim], check=True)  # and is gone
    console = Console(file=io.StringIO(), width=200)
    with Progress([cell], console) as progress:
        progress.update()
        assert cell.state() == "interrupted" and console.file.getvalue() == ""
        cell.directory.write_result({"status": "killed", "reason": "rank 1 of 2 was killed by SIGKILL", "metrics": {}})
        progress.update()
    assert "killed: rank 1 of 2 was killed by SIGKILL" in console.file.getvalue()
