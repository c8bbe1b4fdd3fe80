"""repro plan, and repro sweep alone: what runs would take, at once, and mistakes with exit code 2."""

import csv
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.cli.predictions import fits_in_words
from repro.config.cluster import Layout
from repro.config.files import resource
from repro.estimate import Prediction
from tests.test_estimate import B16, place, spec_with

PAPER = ["plan", "batch-size", "--scale", "paper", "--cluster", "gpu8", "--data", "x.tar"]


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def test_a_plan_says_what_the_papers_runs_take(invoke):
    result = invoke(*PAPER, "--loss", "sigmoid", "--batch-size", "4k", "307k", "--examples", "3B")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "assumed: 200 TFLOP/s a rank" in result.output
    assert "203.1M learn" in result.output
    assert "sigmoid loss beside siglip-b16" in result.output
    assert lines[-1].startswith("total: 2 runs")
    table = lines[: lines.index("")]
    assert len(table) == 4 and max(map(len, table)) <= 100


def test_runs_that_take_the_same_share_a_line_and_a_csv_has_them_all(invoke, tmp_path):
    result = invoke(*PAPER, "--loss", "sigmoid", "--batch-size", "4k", "--seed", "0", "1", "2", "--csv", "plan.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "plan.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6  # two lengths
    assert {row["ranks"] for row in rows} == {"8"} and float(rows[0]["loss_flops"]) > 0


def test_a_laptop_sweep_is_planned_for_this_machine(invoke):
    result = invoke("plan", "batch-size", "--jobs", "2")
    assert result.exit_code == 0, result.output
    assert "place: this machine" in result.output and "with 2 at a time" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "batch-sise"], "unknown sweep 'batch-sise'; the nearest is 'batch-size'"),
        (["plan", "batch-size", "--scale", "papr"], "no scale 'papr'; the nearest is 'paper'"),
        ([*PAPER[:-4], "--cluster", "gpu9"], "unknown cluster 'gpu9'; the nearest is 'gpu8'"),
        (["plan", "batch-size", "--setup", "siglipp"], "unknown setup 'siglipp'; the nearest is 'siglip'"),
        (["plan", "batch-size", "--set", "model=labtop"], "unknown model 'labtop'; the nearest is 'laptop'"),
        (["plan", "batch-size", "--local-batch", "64"], "--local-batch is for --executor slurm"),
        ([*PAPER, "--jobs", "2"], "--jobs is for --executor local"),
        (["plan"], "Missing argument 'NAME'"),
        (["plan", "batch-size", "--ranks", "3"], "cannot be divided among 3 ranks"),
    ],
)
def test_mistakes_are_messages_and_exit_code_2(arguments, message, invoke):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("arguments", [PAPER, ["sweep"], ["plan", "batch-size"]])
def test_planning_imports_no_torch(arguments, tmp_path):
    code = f"""
import sys
from repro.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    code = end.code
sys.exit(code or ('torch' in sys.modules and 'imported torch') or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_sweep_alone_lists_runs_and_hours_at_each_scale(invoke):
    result = invoke("sweep")
    assert result.exit_code == 0, result.output
    assert "Accuracy against batch" in result.output
    assert "GPU-" in result.output and "core-" in result.output
    assert max(map(len, result.output.split("\n\n")[0].splitlines())) <= 100


@pytest.fixture
def own_sweeps(tmp_path, monkeypatch):
    """No sweeps but those of a folder of one's own, with one recipe."""
    folder = tmp_path / "sweeps"
    (folder / "recipes").mkdir(parents=True)
    shutil.copy(resource("sweeps") / "batch-size.yaml", folder)
    for scale in ("laptop", "gpu"):
        shutil.copy(resource("sweeps") / "recipes" / f"siglip-{scale}.yaml", folder / "recipes")
    monkeypatch.setattr("repro.config.sweep.folders", lambda: [folder])
    return folder


def test_a_sweep_that_is_wrong_or_lacks_its_recipe_hides_no_other(invoke, own_sweeps):
    (own_sweeps / "wrong.yaml").write_text("scale: {}")
    (own_sweeps / "mine.yaml").write_text(
        "scales: {laptop: {setup: released}, gpu: {set: {loss: sigmoid, model: nowhere}}}"
    )
    result = invoke("sweep")
    output = " ".join(result.output.split())
    assert result.exit_code == 0, output
    assert "mine at scale laptop: there is no recipe for setup 'released'" in output
    assert "mine at scale gpu: model nowhere is not measured yet" in output
    assert "wrong.yaml: unknown key 'scale'; the nearest is 'scales'" in output
    assert "Accuracy against batch" in output


def test_a_plan_without_a_recipe_names_those_there_are(invoke, own_sweeps):
    result = invoke("plan", "batch-size", "--setup", "released")
    assert result.exit_code == 2
    assert "no recipe for setup 'released' at scale 'laptop'; known: siglip-gpu, siglip-laptop" in result.output


@pytest.mark.parametrize(
    ("gibibytes", "auto", "words"),
    [(80, False, "yes"), (20, False, "no; 256"), (20, True, "with 256"), (1, True, "no"), (None, False, "?")],
)
def test_whether_it_fits_is_said_with_the_micro_batch_that_would(gibibytes, auto, words):
    there = None if gibibytes is None else gibibytes * 2**30
    plan = Prediction(spec_with(4096), Layout(1, 8), B16, place(there, auto_micro_batch=auto))
    assert fits_in_words(plan) == words
