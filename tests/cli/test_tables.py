"""What a sweep would take on a cluster fits on a screen, and comes at once."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from repro.cli.tables import jobs_notes, jobs_table
from repro.config.cluster import load_profile
from repro.config.layout import plan_jobs
from tests.test_jobs import nodes_of, paper


def shown(groups, profile):
    console = Console(file=io.StringIO(), width=80)
    console.print(jobs_table(groups, profile))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def groups():
    specs = paper(seeds=range(28))
    return plan_jobs(specs, [8192] * len(specs), load_profile("gpu8"))


def test_each_array_is_a_row_with_what_it_takes(groups):
    rows = [line.split() for line in shown(groups, load_profile("gpu8")).splitlines()]
    assert [row[:6] for row in rows[2:]] == [
        ["512–32k", "784", "1", "8", "64–4k", "1–8"],
        ["98k", "112", "2", "16", "6k", "12"],
        ["307k", "112", "5", "40", "7680", "15"],
    ]
    assert rows[2][6:] == ["≥", "32.5", "GiB", "8", "854,776", "150,528"]


def test_the_notes_give_jobs_arrays_nodes_and_hours(groups):
    notes = "\n".join(jobs_notes(groups, load_profile("gpu8")))
    assert "1,008 jobs in 3 arrays, each one call of sbatch; at most 512 nodes at once" in notes
    assert "at most 301,056 GPU-hours per attempt of all jobs (time 24 h)" in notes
    assert "GPU-hours at 200 TFLOP/s a rank; the longest run takes" in notes


def test_without_tflops_there_is_a_bound_and_no_estimate():
    profile = nodes_of(4, cpus_per_rank=2)
    groups = plan_jobs(paper(512, loss="sigmoid", examples_seen="3B"), [512], profile)
    notes = "\n".join(jobs_notes(groups, profile))
    assert "at most 8 CPU-hours per attempt" in notes and "tflops_per_rank in the cluster's profile gives" in notes
    assert "a rank computes with 8 threads and has 2 cores (cpus_per_rank)" in notes
    assert shown(groups, profile)


def test_no_jobs_make_an_empty_table():
    assert "0 jobs" in jobs_notes([], load_profile("gpu8"))[0]
    assert shown([], load_profile("gpu8"))


def test_a_dry_run_of_a_thousand_runs_imports_nothing_heavy():
    seeds = ",".join(map(str, range(28)))
    code = f"""
import sys
from repro.cli import main
try:
    main(['sweep', 'batch-size', '--scale', 'paper', '--seed', '{seeds}', '--dry-run'])
except SystemExit:
    pass
sys.exit(f"imported {{heavy}}" if (heavy := {{'torch', 'pandas', 'open_clip', 'numpy'}} & set(sys.modules)) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "1008 runs" in done.stdout
    assert done.returncode == 0, done.stderr
