"""The largest batch that fits: a search over sizes, each tried in a process of its own."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from repro.bench.capacity import Search, Trial, largest_that_fits
from repro.cli import main
from repro.cli.bench import bench
from repro.config.errors import InputError
from repro.config.sweep import load_sweep
from repro.config.units import parse_bytes


def up_to(limit: int, tried: list[int]):
    return lambda size: tried.append(size) or Trial("fits" if size <= limit else "too large", size)


def test_powers_of_two_until_one_does_not_fit():
    tried: list[int] = []
    largest, found = largest_that_fits(up_to(3000, tried), Search(1, smallest=256))
    assert (largest, found.status, tried) == (2048, "ok", [256, 512, 1024, 2048, 4096])


def test_multiples_of_a_step_in_between():
    largest, found = largest_that_fits(up_to(3000, []), Search(1, smallest=256, step=256))
    assert (largest, found.status, found.peak_bytes) == (2816, "ok", 2816)


def test_the_cap_and_a_timeout_are_at_least():
    largest, found = largest_that_fits(up_to(10**9, []), Search(1, smallest=256, largest=1024))
    assert (largest, found.status) == (1024, "at least")
    largest, found = largest_that_fits(
        lambda size: Trial("fits" if size < 1000 else "timeout"), Search(1, smallest=256)
    )
    assert (largest, found.status) == (512, "at least")


def test_none_fits():
    largest, found = largest_that_fits(up_to(100, []), Search(1, smallest=256))
    assert (largest, found.status) == (0, "none fits")


def test_a_quarter_of_the_memory_holds_half_the_batch_of_the_plain_loss(tmp_path):
    out = tmp_path / "capacity.csv"
    options = ["--impl", "plain", "--loss", "sigmoid", "--dim", "16", "--device", "cpu"]
    options += ["--smallest", "1k", "--largest", "4k"]
    for memory in ("150MB", "600MB"):
        done = CliRunner().invoke(main, ["bench", "capacity", *options, "--memory", memory, "--out", str(out)])
        assert done.exit_code == 0, done.output
    table = pd.read_csv(out).sort_values("memory_limit_bytes")
    small, large = table["batch_size"]
    assert large == 2 * small
    assert (table["peak_memory_bytes"] <= table["memory_limit_bytes"]).all()


def test_a_whole_training_step_is_measured(tmp_path):
    out = tmp_path / "capacity.csv"
    options = ["--impl", "plain", "--loss", "softmax", "--device", "cpu", "--model", "laptop", "--micro-batch", "64"]
    options += ["--smallest", "64", "--largest", "64", "--memory", "2GB", "--out", str(out)]
    done = CliRunner().invoke(main, ["bench", "capacity", *options])
    assert done.exit_code == 0, done.output
    row = pd.read_csv(out).iloc[0]
    assert (row["status"], row["batch_size"], row["model"]) == ("at least", 64, "laptop")
    assert row["peak_memory_bytes"] > 4 * 4 * 500_000  # weights, gradients and moments alone


@pytest.fixture
def measurement(tmp_path, monkeypatch):
    """A sweep that measures, with a bench and options of one's own: measurement({"capacity": {...}})."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()

    def write(bench):
        text = yaml.safe_dump({"title": "Mine", "scales": {"laptop": {"bench": bench}}})
        (tmp_path / "sweeps" / "mine.yaml").write_text(text)

    return write


def typed(*arguments: str):
    return CliRunner().invoke(main, ["sweep", *arguments])


def test_a_sweep_that_is_a_measurement_runs_the_same_command(measurement):
    options = {"impl": "plain", "dim": 16, "device": "cpu", "smallest": "1k", "largest": "2k", "memory": "600MB"}
    measurement({"capacity": options})
    planned = typed("mine", "--dry-run")
    assert "Mine: repro bench capacity --out results/mine.csv --device cpu --dim 16 --impl plain" in planned.output
    assert "nothing was measured" in planned.output
    assert not Path("results").exists()
    done = typed("mine", "--loss", "sigmoid", "--set", "largest=1k")
    assert done.exit_code == 0, done.output
    table = pd.read_csv("results/mine.csv")
    assert table[["loss", "batch_size", "status"]].to_numpy().tolist() == [["sigmoid", 1024, "at least"]]
    assert {"machine", "torch_version", "command", "date"} <= set(table)


@pytest.mark.parametrize(
    ("bench", "arguments", "message"),
    [
        ({"capacity": {}}, ["--seed", "1"], "--seed is for sweeps of runs, and 'mine' is a measurement"),
        ({"capacty": {}}, [], "unknown command 'capacty'; the nearest is 'capacity'"),
        (
            {"capacity": {"memry": "1GB"}},
            [],
            "scales.laptop.bench.capacity: No such option '--memry'. Did you mean '--memory'?",
        ),
        ({"capacity": {}}, ["--set", "memory"], "expected key=value"),
    ],
)
def test_mistakes_in_a_measurement_name_what_would_work(measurement, bench, arguments, message):
    measurement(bench)
    done = typed("mine", *arguments)
    assert (done.exit_code, message in " ".join(done.output.split())) == (2, True), done.output


@pytest.mark.parametrize("scale", ["laptop", "gpu", "paper"])
def test_the_capacity_sweep_names_options_that_there_are(scale):
    name, options = load_sweep("capacity").bench(scale)
    known = {option.lstrip("-") for parameter in bench.commands[name].params for option in parameter.opts}
    assert options.keys() <= known


def test_memory_as_people_write_it():
    assert parse_bytes("2GB") == 2 * 10**9
    assert parse_bytes("1.5 GiB") == 3 * 2**29
    with pytest.raises(InputError, match="such as 500MB"):
        parse_bytes("2 gigs")
