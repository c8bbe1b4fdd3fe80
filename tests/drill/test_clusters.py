"""Broken cluster profiles, command lines for SLURM, and machines without it: exit code 2, and nothing submitted."""

import shutil
from pathlib import Path

import pytest

SLURM = ("--executor", "slurm", "--cluster")
GOOD = "ranks_per_node: 2\ntime: 1h\n"

PROFILES = {
    "unknown key": (GOOD + "partion: gpu\n", "mine.yaml: unknown key 'partion'; the nearest is 'partition'"),
    "missing key": ("ranks_per_node: 2\n", "mine.yaml: 'time' is missing"),
    "not YAML": ("{ranks_per_node: [", "mine.yaml: cannot be read as YAML"),
    "a list": ("- 1\n", "mine.yaml: expected keys and values, found list"),
    "no number": ("ranks_per_node: two\ntime: 1h\n", "mine.yaml: ranks_per_node 'two': expected a valid integer"),
    "minutes or seconds": ("ranks_per_node: 2\ntime: 90\n", "mine.yaml: time '90'"),
    "grace longer than the time": (GOOD + "grace: 2h\n", "mine.yaml: time 1 h is not longer than grace 2 h"),
    "too few nodes": (GOOD + "max_nodes: 1\n", "batch_size 1,024 at local_batch 64 needs 8 nodes of 2 ranks, and max"),
}


@pytest.fixture
def sweep(tmp_path, monkeypatch, repro, world):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(GOOD)
    small = ["--loss", "sigmoid", "--batch-size", 64, "--examples", 1024, "--set", "data=shapes:2048", "evals=[]"]
    return lambda *more: repro("sweep", "batch-size", *small, *more)


@pytest.mark.parametrize("name", PROFILES)
def test_a_broken_profile_is_refused(sweep, name):
    content, message = PROFILES[name]
    Path("mine.yaml").write_text(content)
    done = sweep(*SLURM, "mine.yaml", "--batch-size", 1024, "--local-batch", 64)
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not list(Path("runs").glob("*/.launches/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SLURM, "gpu9"), "unknown cluster 'gpu9'; the nearest is 'gpu8'; or give the path of a .yaml file"),
        ((*SLURM, "none.yaml"), "none.yaml: no such file"),
        ((*SLURM, "mine.yaml", "--job", "tme=2h"), "--job: unknown key 'tme'; the nearest is 'time'"),
        ((*SLURM, "mine.yaml", "--job", "time"), "--job 'time': expected key=value, such as --job time=2h"),
        (("--cluster", "mine.yaml"), "--cluster is for --executor slurm; the executor is local"),
        (("--executor", "slurm"), "--executor slurm needs --cluster NAME"),
        (("--executor", "slrum"), "unknown executor 'slrum'; the nearest is 'slurm'"),
    ],
)
def test_a_mistyped_command_line_is_refused(sweep, arguments, message):
    done = sweep(*arguments)
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not list(Path("runs").glob("*/.launches/*"))


@pytest.fixture
def only(tmp_path, monkeypatch):
    """only(squeue="exit 0"): a machine whose PATH holds these commands and no others."""
    shell = shutil.which("sh")

    def make(**scripts: str) -> None:
        folder = tmp_path / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, script in scripts.items():
            (folder / name).write_text(f"#!{shell}\n{script}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return make


SCONTROL = "echo MaxArraySize = 1001"


@pytest.mark.parametrize("missing", ["scontrol", "sbatch", "srun"])
def test_a_machine_without_slurm_is_said_to_be_one(sweep, only, missing):
    there = {"squeue": "exit 0", "sbatch": "exit 0", "srun": "exit 0", "scontrol": SCONTROL}
    only(**{name: script for name, script in there.items() if name != missing})
    done = sweep(*SLURM, "mine.yaml")
    assert done.exit_code == 2
    assert f"{missing} is not on this machine: SLURM's commands are needed; without SLURM use --ex" in done.output


def test_what_is_queued_must_be_known_before_more_is_submitted(sweep, only, repro):
    only(squeue="exit 0", srun="exit 0", scontrol=SCONTROL, sbatch="echo Invalid account >&2; exit 1")
    done = sweep(*SLURM, "mine.yaml")
    assert (done.exit_code, "sbatch refused the jobs: Invalid account" in done.output) == (2, True), done.output
    only(srun="exit 0", sbatch="exit 0")
    done = sweep(*SLURM, "mine.yaml")
    assert (done.exit_code, "squeue is not on this machine" in done.output) == (2, True), done.output
    only(squeue="echo Unable to contact slurm controller >&2; exit 1", srun="exit 0", sbatch="exit 0")
    done = sweep(*SLURM, "mine.yaml")
    assert (done.exit_code, "squeue failed: Unable to contact slurm controller" in done.output) == (2, True)
    shown = repro("status")
    assert shown.exit_code == 0
    assert "what is queued is not known: squeue failed: Unable to contact" in shown.output


def test_a_launch_that_cannot_be_read_is_not_submitted_past(sweep, only):
    only(squeue="exit 0", srun="exit 0", sbatch="echo Submitted batch job 7")
    launch = Path("runs/batch-size/.launches/20261124-061500-a1b2c3/launch.json")
    launch.parent.mkdir(parents=True)
    launch.write_text('{"executor": "sl')
    done = sweep(*SLURM, "mine.yaml")
    assert done.exit_code == 2
    assert "a1b2c3/launch.json: not JSON" in done.output
    assert "(squeue --name repro-20261124-061500-a1b2c3-0): move " in done.output
