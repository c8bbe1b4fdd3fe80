"""What a sweep would take on a cluster fits on a screen, and comes at once."""

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from repro.cli.predictions import arrays_notes, arrays_table
from repro.launch.cell import Cell
from repro.launch.prepare import Launch, Options
from tests.test_jobs import paper


def launch_on(profile, specs=(), job=()):
    options = Options.chosen({"executor": "slurm", "cluster": profile, "job": tuple(job)})
    cells = tuple(Cell.of(spec, Path("runs"), "batch-size") for spec in specs)
    return Launch(cells, options, options.profile(), {spec.run_id: 8192 for spec in specs})


def shown(launch):
    arguments = launch.arrays(launch.specs), launch.predictions(), launch.profile
    console = Console(file=io.StringIO(), width=80)
    console.print(arrays_table(*arguments))
    return console.file.getvalue(), "\n".join(arrays_notes(*arguments))


def test_each_array_is_a_row_with_what_it_takes():
    table, notes = shown(launch_on("gpu8", paper(seeds=range(28))))
    rows = [line.split() for line in table.splitlines()]
    assert [row[:6] for row in rows[2:]] == [
        ["512–32k", "784", "1", "8", "64–4k", "1–8"],
        ["98k", "112", "2", "16", "6k", "12"],
        ["307k", "112", "5", "40", "7680", "15"],
    ]
    assert rows[2][7:] == ["GiB", "8", "854,793", "150,528"]
    assert "1,008 jobs in 3 arrays, each one call of sbatch; at most 512 nodes at once" in notes
    assert "at most 301,056 GPU-hours per attempt of all jobs (time 24 h)" in notes
    assert "GPU-hours (speed assumed: 200 TFLOP/s a rank" in notes


def test_without_tflops_of_gpus_there_is_a_bound_and_no_estimate():
    _, notes = shown(launch_on("gpu8", paper(512, loss="sigmoid", examples_seen="3B"), ["tflops_per_rank=null"]))
    assert "at most 192 GPU-hours per attempt" in notes and "tflops_per_rank in the cluster's profile gives" in notes


def test_no_jobs_make_an_empty_table():
    assert "0 jobs" in shown(launch_on("gpu8"))[1]


def test_a_dry_run_of_a_thousand_runs_imports_nothing_heavy():
    seeds = ",".join(map(str, range(101)))
    code = f"""
import sys
from pathlib import Path
from repro.cli import main
try:
    main(['sweep', 'batch-size', '--seed', '{seeds}', '--dry-run'])
except SystemExit:
    pass
sys.exit(f"imported {{heavy}}" if (heavy := {{'torch', 'pandas', 'open_clip'}} & set(sys.modules)) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "1010 runs" in done.stdout
    assert done.returncode == 0, done.stderr
