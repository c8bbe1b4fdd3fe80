"""How long whole commands take over grids of up to 10,000 runs, and how often they call SLURM's.

Run directories are made in a temporary folder. Where a SLURM answers, runs are submitted to it as held jobs, which
never start, and cancelled again. Each command is a process of its own, timed from its start to its end: what a person
waits for.
"""

import importlib.util
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import grid_runs
from repro.config.errors import InputError
from repro.launch import scheduler
from repro.world.source import make_world

PROFILE = """\
ranks_per_node: 2
cpus_per_rank: 1
time: 10m
grace: 1m
options: {hold: true}
"""
LOCAL_BATCH = 64
PAGE_RUNS = 500
MEASURED = (
    "import resource, subprocess, sys, time; began = time.perf_counter(); "
    "code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode; "
    "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)
"""A small process that starts a command: a child counts what its parent holds as its own at first."""
COUNTED = ("sbatch", "squeue", "scancel")
MOST_SECONDS = {"dry run": 3.0, "dry run, slurm": 3.0, "status": 2.0, "collect": 15.0, "report": 30.0}
"""What we ask of ourselves, at 1,000 runs and 10,000 (collect, report)."""


@dataclass(frozen=True)
class Bench:
    """A temporary folder with grids of runs, a cluster's profile, and SLURM's commands wrapped to be counted."""

    folder: Path
    count: int
    """Of the grid that most commands see; `collected` for `repro collect` and `repro report`."""
    collected: int

    @property
    def calls_file(self) -> Path:
        return self.folder / "calls"

    def run(self, what: str, *arguments: str) -> dict[str, Any]:
        """One command: its seconds, memory, and calls of SLURM's commands. Raises InputError where it fails."""
        self.calls_file.write_text("")
        environment = os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "COLUMNS": "160"}
        command = [sys.executable, "-c", MEASURED, sys.executable, "-m", "repro", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise InputError(f"{what}: ended with {done.returncode}: {done.stderr.strip()[-800:]}")
        seconds, kibibytes = done.stdout.split()
        calls = Counter(self.calls_file.read_text().split())
        measured = {"what": what, "seconds": float(seconds), "peak_memory_bytes": int(kibibytes) * 1024}
        return measured | {name: calls[name] for name in COUNTED}


def compare(
    folder: Path, count: int, collected: int, repeats: int, report: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """One row a command and repeat, the commands in turn. folder: empty; what is made there is left there."""
    make_world(grid_runs.DATA)
    bench = Bench(folder, count, collected)
    _wrap_slurm(bench)
    page_runs = min(PAGE_RUNS, collected)
    report(f"making {2 * count + page_runs + collected:,} run directories")
    grid_runs.make(folder / "mixed", count)
    grid_runs.make(folder / "done", count, finished=True)
    grid_runs.make(folder / "some", page_runs)
    grid_runs.make(folder / "many", collected)
    with_slurm = slurm_answers()
    if not with_slurm:
        report("no SLURM answers here: nothing is submitted")
    rows = []
    for repeat in range(repeats):
        for row in (*_on_disk(bench), *(_on_slurm(bench, repeat) if with_slurm else ())):
            calls = ", ".join(f"{row[name]} {name}" for name in COUNTED if row[name])
            report(f"{row['what']}, {row['runs']:,} runs: {row['seconds']:.2f} s" + (f", {calls}" if calls else ""))
            rows.append({"repeat": repeat, **row})
    slurm = scheduler.call(["squeue", "--version"]).strip() if with_slurm else ""
    return pd.DataFrame(rows).assign(slurm_version=slurm)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Median and spread of each command, beside what it may take."""
    rows = []
    for (what, runs), part in table.groupby(["what", "runs"], sort=False):
        row = {"what": what, "runs": runs, "seconds": part["seconds"].median()}
        row |= {"least": part["seconds"].min(), "most": part["seconds"].max(), "limit": MOST_SECONDS.get(what)}
        for name in ("peak_memory_bytes", "page_bytes", "page_ready_seconds"):
            row[name] = part[name].max() if name in part else math.nan
        rows.append(row | {name: part[name].max() for name in COUNTED})
    return pd.DataFrame(rows)


def slurm_answers() -> bool:
    try:
        scheduler.call(["squeue", "--noheader"])
    except scheduler.SchedulerError:
        return False
    return True


def _on_disk(bench: Bench) -> Iterator[dict[str, Any]]:
    sweep, runs = grid_runs.options(bench.count), {"runs": bench.count}
    slurm = ["--executor", "slurm", "--cluster", "profile.yaml", "--local-batch", str(LOCAL_BATCH)]
    yield bench.run("dry run", *sweep, "--dry-run") | runs
    yield bench.run("dry run, slurm", *sweep, *slurm, "--dry-run") | runs
    yield bench.run("status", "status", grid_runs.SWEEP, "--runs", "mixed") | runs
    yield bench.run("status, no name", "status", "--runs", "mixed") | runs
    yield bench.run("status, all shown", "status", grid_runs.SWEEP, "--runs", "mixed", "--all") | runs
    yield bench.run("typed again, all done", *sweep, "--runs", "done") | runs
    collect = ["collect", grid_runs.SWEEP, "--runs", "many", "--out", "many.csv"]
    yield bench.run("collect", *collect) | {"runs": bench.collected}
    for name, count in {"some": min(PAGE_RUNS, bench.collected), "many": bench.collected}.items():
        measured = bench.run("report", "report", "--runs", name, "--out", f"report-{name}")
        page = bench.folder / f"report-{name}" / "index.html"
        yield measured | {"page_bytes": page.stat().st_size, "page_ready_seconds": ready_seconds(page), "runs": count}


def _on_slurm(bench: Bench, repeat: int) -> Iterator[dict[str, Any]]:
    """Submission of a part and of all, what follows on that, and the end of it."""
    slurm = ["--executor", "slurm", "--cluster", "profile.yaml", "--local-batch", str(LOCAL_BATCH)]
    for count in dict.fromkeys((min(300, bench.count), bench.count)):
        folder = f"queued-{count}-{repeat}"
        sweep, runs = [*grid_runs.options(count), *slurm, "--runs", folder], {"runs": count}
        try:
            yield bench.run("submit", *sweep) | runs
            yield bench.run("submit again, all queued", *sweep) | runs
            yield bench.run("status, all queued", "status", grid_runs.SWEEP, "--runs", folder) | runs
            yield bench.run("cancel", "cancel", grid_runs.SWEEP, "--runs", folder) | runs
            yield bench.run("submit again, all cancelled", *sweep) | runs
        finally:  # whatever happened: a held job would wait in the queue forever
            bench.run("cancel", "cancel", grid_runs.SWEEP, "--runs", folder)


def ready_seconds(page: Path) -> float:
    """From opening a page in Chromium until its script has run; NaN without playwright or Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return math.nan
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page.resolve().as_uri())
        timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        seconds = tab.evaluate(timing) / 1000
        browser.close()
    return seconds


def _wrap_slurm(bench: Bench) -> None:
    """SLURM's commands, put first on the path: each writes down that it was called, and is then the real one."""
    (bench.folder / "profile.yaml").write_text(PROFILE)
    (bench.folder / "bin").mkdir()
    for name in COUNTED:
        if real := shutil.which(name):
            wrapper = bench.folder / "bin" / name
            wrapper.write_text(f'#!/bin/sh\necho {name} >> "{bench.calls_file}"\nexec "{real}" "$@"\n')
            wrapper.chmod(0o755)
