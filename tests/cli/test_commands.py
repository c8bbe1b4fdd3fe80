"""The command line: values as people type them, help at once, mistakes with exit code 2 and nothing started."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import grid_runs
from repro.cli import main
from repro.cli.options import CommandWithSeveral, Several, select
from repro.runs.directory import RunDirectory


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


@click.command(cls=CommandWithSeveral)
@click.argument("name", required=False)
@click.option("--loss", cls=Several)
@click.option("--data", cls=Several, paths=True)
@click.option("--retry", is_flag=True)
def example(name, loss, data, retry):
    click.echo(repr((name, loss, data, retry)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["s", "--loss", "a", "b", "--retry"],
        ["s", "--loss", "a,b", "--retry"],
        ["s", "--retry", "--loss", "a", "--loss", "b"],
        ["--retry", "s", "--loss=a", "--loss=b"],
    ],
)
def test_several_values_follow_an_option_repeat_it_or_take_commas(arguments):
    assert CliRunner().invoke(example, arguments).output.strip() == "('s', ('a', 'b'), (), True)"


def test_paths_keep_their_commas():
    output = CliRunner().invoke(example, ["--data", "{a,b}.tar", "c.tar"]).output
    assert output.strip() == "(None, (), ('{a,b}.tar', 'c.tar'), False)"


def test_help_groups_the_commands_by_the_way_one_goes(invoke):
    output = invoke("--help").output
    places = [output.index(title) for title in ("From a sweep to its report", "One run", "Data", "Measure")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["sweep", "--help"], ["plan", "--help"], ["sweep", "batch-size", "--los", "x"]]
)
def test_help_and_wrong_options_import_nothing_heavy(arguments):
    code = f"""
import sys
from repro.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = {{'torch', 'pandas', 'open_clip', 'pydantic', 'numpy', 'rich'}} & set(sys.modules)
sys.exit(f'imported {{heavy}}' if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help(invoke):
    for name in ("plan", "sweep", "status", "collect", "report", "run", "eval", "data", "bench"):
        assert invoke(name, "--help").exit_code == 0, name


def test_a_dry_run_lists_the_runs_with_steps_and_needs_and_starts_nothing(invoke, tmp_path):
    done = invoke("sweep", "batch-size", "--dry-run", "--batch-size", "32", "128")
    assert done.exit_code == 0, done.output
    assert "4 runs; nothing was started" in done.output
    assert not list(tmp_path.iterdir())


SWEEP = ("sweep", "batch-size")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swep",), "unknown command 'swep'; the nearest is 'sweep'"),
        (("sweep", "batchsize"), "the nearest is 'batch-size'"),
        ((*SWEEP, "--loss", "sigmod"), "the nearest is 'sigmoid'"),
        ((*SWEEP, "--scale", "labtop"), "the nearest is 'laptop'"),
        ((*SWEEP, "--setup", "siglap"), "the nearest is 'siglip'"),
        ((*SWEEP, "--set", "lerning_rate=1"), "the nearest is 'learning_rate'"),
        ((*SWEEP, "--set", "model=labtop"), "unknown model 'labtop'; the nearest is 'laptop'"),
        ((*SWEEP, "--batch-size", "lots"), "'lots' is not a batch size"),
        ((*SWEEP, "--batch-size", "768"), "micro_batch 512 does not divide batch_size 768"),
        ((*SWEEP, "--batch-size", "1M"), "examples_seen"),
        ((*SWEEP, "--executor", "lokal"), "the nearest is 'local'"),
        ((*SWEEP, "--data", "none/{0..3}.tar"), "no such file"),
        ((*SWEEP, "--data", "."), "is a folder; name the shards in it"),
        ((*SWEEP, "--eval", "no/folder"), "no such folder"),
        ((*SWEEP, "--eval", "imagenet1"), "the nearest is 'imagenet1k'"),
        ((*SWEEP, "--eval", "."), "nshards.txt is missing"),
        ((*SWEEP, "--scale", "paper"), "name shards of your own with --data"),
        ((*SWEEP, "--jobs", "0"), "0 is not in the range"),
        ((*SWEEP, "--executor", "inline", "--ranks", "2"), "--ranks is for --executor local; the executor is inline"),
        ((*SWEEP, "--job", "time=1h"), "--job is for --executor slurm; the executor is local"),
        ((*SWEEP, "--timeout", "nan"), "nan is not a finite number"),
        ((*SWEEP, "--timeout", "1e300"), "1e+300 is not in the range"),
        ((*SWEEP, "--checkpoint-seconds", "-1"), "-1.0 is not in the range"),
        (("run", "none.json", "--checkpoint-seconds", "inf"), "inf is not a finite number"),
        (("bench", "gpu", "--device", "cpu", "--minutes", "nan"), "nan is not a finite number"),
        (("run", "none.json"), "none.json"),
        (("run", "none.json", "--sweep", "../elsewhere"), "'../elsewhere': expected the name of one folder"),
        (("status",), "no runs here yet; make some with"),
        (("collect",), "no runs here yet"),
        (("report",), "no runs here yet"),
        (("eval", "nothing", "--eval", "shapes"), "neither a run nor a checkpoint"),
        (("data", "check", "none.tar"), "no such file"),
    ],
)
def test_mistakes_get_a_message_and_exit_code_2_and_start_nothing(invoke, tmp_path, arguments, message):
    done = invoke(*arguments)
    assert message in done.output.replace("\n", " ")
    assert done.exit_code == 2
    assert not list(tmp_path.glob("runs/*/*"))


def test_shards_without_a_pair_are_refused_before_anything_starts(invoke, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("0.json"))
    done = invoke(*SWEEP, "--data", "empty.tar")
    assert "no image-caption pair" in done.output
    assert done.exit_code == 2


def test_a_runs_folder_that_cannot_be_written_is_named(invoke, tmp_path):
    (tmp_path / "file").write_text("")
    done = invoke(*SWEEP, "--runs", "file")
    assert "--runs file: cannot be made or written" in done.output
    assert done.exit_code == 2


def test_a_runs_folder_of_another_version_is_refused(invoke, tmp_path):
    run = tmp_path / "runs" / "batch-size" / "old-run"
    run.mkdir(parents=True)
    (run / "spec.json").write_text('{"format": 99}')
    done = invoke(*SWEEP)
    assert "old-run has format 99" in done.output
    assert done.exit_code == 2
    assert [p.name for p in Path(tmp_path / "runs" / "batch-size").iterdir()] == ["old-run"]


def test_a_run_named_twice_is_meant_once(tmp_path, make_spec):
    spec = make_spec()
    directory = RunDirectory(tmp_path / "mine" / spec.run_id)
    directory.write_spec(spec)
    (cells,) = select([spec.run_id, str(directory.path), "mine"], tmp_path).values()
    assert [cell.directory.path for cell in cells] == [directory.path]


def test_a_long_table_is_shown_in_part_and_written_whole(invoke, tmp_path):
    grid_runs.make(tmp_path / "runs", 50, finished=True)
    done = invoke("collect")
    assert "50 runs in results/batch-size.csv; the first 40 are shown" in done.output
    assert len((tmp_path / "results" / "batch-size.csv").read_text().splitlines()) == 51
