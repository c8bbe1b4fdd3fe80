"""Damaged run directories: what is corrupt is named, the others are shown, and the sweep typed again goes on."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from repro import results
from repro.launch import JobSettings, launch
from repro.runs.directory import RunDirectory
from tests.drill.conftest import eval_folder, not_as_root, small_cell, typed

OLD = time.time() - 3600
LAUNCH = "20261124-061500-a1b2c3"


class Kind(NamedTuple):
    """damage; the run's status in the table, and a part of its reason; what the sweep typed again says of it."""

    damage: Callable[[RunDirectory], object]
    status: str
    reason: str
    again: str = ""


def written(name: str, content: str | bytes) -> Callable[[RunDirectory], object]:
    """This file of the run with this content, an hour ago."""

    def damage(directory: RunDirectory) -> None:
        file = directory.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(file, (OLD, OLD))

    return damage


def another_spec(directory: RunDirectory) -> None:
    values = json.loads(directory.spec_file.read_text())
    directory.spec_file.write_text(json.dumps(values | {"batch_size": 128, "micro_batch": 128}))


def cut(name: str) -> Callable[[RunDirectory], object]:
    return lambda directory: os.truncate(directory.path / name, (directory.path / name).stat().st_size * 2 // 3)


GARBAGE = b"\x93\xff\x00garbage\n" * 30

FINISHED = {
    "spec.json missing": Kind(lambda d: d.spec_file.unlink(), "corrupt", "spec.json: no such file", "rewritten: "),
    "spec.json empty": Kind(written("spec.json", ""), "corrupt", "spec.json: an empty file", "rewritten: "),
    "spec.json cut off": Kind(cut("spec.json"), "corrupt", "spec.json: not JSON", "rewritten: "),
    "spec.json a list": Kind(written("spec.json", "[]"), "corrupt", "expected keys and values", "rewritten: "),
    "spec.json of another run": Kind(another_spec, "corrupt", "is the spec of siglip-sigmoid-bs128", "left out: "),
    "result.json empty": Kind(written("result.json", ""), "corrupt", "result.json: an empty file", "result.json: an e"),
    "result.json cut off": Kind(cut("result.json"), "corrupt", "result.json: not JSON", "result.json: not JSON"),
    "result.json a list": Kind(written("result.json", "[1]"), "corrupt", "found list", "found list; remove it"),
    "result.json without status": Kind(
        written("result.json", "{}"), "corrupt", "expected a result with a status", "with a status, and metrics by name"
    ),
    "result.json with a list of metrics": Kind(
        written("result.json", '{"status": "finished", "metrics": [1]}'), "corrupt", "and metrics by name", "remove it"
    ),
    "result.json not text": Kind(written("result.json", GARBAGE), "corrupt", "not a text file", "not a text file"),
    "log.jsonl not text": Kind(written("log.jsonl", GARBAGE), "finished", ""),
    "final.json damaged": Kind(written("checkpoints/final.json", "{"), "finished", ""),
    "an attempt is empty": Kind(written("job/attempts/0001.json", ""), "finished", ""),
    "micro-batch.json garbage": Kind(written("job/micro-batch.json", GARBAGE), "finished", ""),
    "an evaluation's JSON damaged": Kind(written("evals/wds_tiny.json", "{"), "finished", ""),
    "provenance.json damaged": Kind(written("provenance.json", "{"), "finished", "provenance.json: not JSON"),
    "provenance.json a list": Kind(written("provenance.json", "[]"), "finished", "expected keys and values"),
}


def interrupted(directory: RunDirectory) -> None:
    """As a run that lost its process on the way, without a checkpoint yet."""
    directory.result_file.unlink()
    for file in directory.checkpoints.glob("final.*"):
        file.unlink()


def job_is_a_file(directory: RunDirectory) -> None:
    shutil.rmtree(directory.job)
    directory.job.write_text("")


UNFINISHED = {
    "spec.json empty": Kind(written("spec.json", ""), "finished", "", "rewritten: "),
    "spec.json of another run": Kind(another_spec, "corrupt", "is the spec of", "left out: "),
    "log.jsonl with a cut last line": Kind(cut("log.jsonl"), "finished", ""),
    "log.jsonl with garbage within": Kind(
        lambda d: d.log_file.write_bytes(d.log_file.read_bytes() + GARBAGE + b'{"step": 2}\n'), "finished", ""
    ),
    "log.jsonl of numbers": Kind(written("log.jsonl", "1\n2\n"), "finished", ""),
    "an attempt is empty": Kind(written("job/attempts/0001.json", ""), "finished", ""),
    "an attempt is a list": Kind(written("job/attempts/0001.json", "[1]"), "finished", ""),
    "an attempt is a number": Kind(written("job/attempts/0001.json", "1"), "finished", ""),
    "an attempt is garbage": Kind(written("job/attempts/0001.json", GARBAGE), "finished", ""),
    "micro-batch.json garbage": Kind(written("job/micro-batch.json", GARBAGE), "finished", ""),
    "micro-batch.json a list": Kind(written("job/micro-batch.json", "[]"), "finished", ""),
    "micro-batch.json of no number": Kind(written("job/micro-batch.json", '{"micro_batch": "x"}'), "finished", ""),
    "an evaluation's JSON cut off": Kind(cut("evals/wds_tiny.json"), "finished", ""),
    "an evaluation's JSON without metrics": Kind(written("evals/wds_tiny.json", "{}"), "finished", ""),
    "provenance.json damaged": Kind(written("provenance.json", "{"), "finished", ""),
    "job is a file": Kind(
        lambda d: (shutil.rmtree(d.job), d.job.write_text("")),
        "interrupted",
        "",
        "job: cannot be written (File exists)",
    ),
    "a result of a run told to stop, with garbage for a reason": Kind(
        written("result.json", '{"status": "interrupted", "reason": [1]}'), "finished", ""
    ),
}
KINDS = max(len(FINISHED), len(UNFINISHED))


def type_sweep(folder: Path) -> object:
    seeds = ["--seed", *range(KINDS)]
    small = ["--loss", "sigmoid", "--batch-size", 64, "--examples", 128, "--set", "data=shapes:2048"]
    where = ["--runs", folder / "runs", "--executor", "inline"]
    return typed("sweep", "batch-size", *small, *seeds, "--eval", folder.parent / "wds_tiny", *where)


@pytest.fixture(scope="module")
def wide():
    """Lines are not folded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1000")
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory, wide, world) -> Path:
    """Finished runs, one for each kind."""
    folder = tmp_path_factory.mktemp("directories") / "swept"
    eval_folder(folder.parent / "wds_tiny")
    done = type_sweep(folder)
    assert done.exit_code == 0, done.output
    return folder


class Drilled(NamedTuple):
    """The damaged runs, what was typed, and the rows of the table before and after the sweep was typed again."""

    said: dict[str, str]
    before: dict[str, dict]
    after: dict[str, dict]


def drill(swept: Path, name: str, kinds: dict[str, Kind], first: Callable[[RunDirectory], object]) -> Drilled:
    """A copy of the finished runs, each damaged in its way; and a garbled launch and an empty lock in their midst."""
    folder = swept.parent / name
    sweep = folder / "runs" / "batch-size"
    shutil.copytree(swept, folder, symlinks=True)
    directories = {kind: RunDirectory(run) for kind, run in zip(kinds, by_seed(sweep), strict=False)}
    for kind, directory in directories.items():
        first(directory)
        kinds[kind].damage(directory)
    shutil.rmtree(sweep / ".launches")
    (sweep / ".launches" / LAUNCH).mkdir(parents=True)
    written("launch.json", GARBAGE)(RunDirectory(sweep / ".launches" / LAUNCH))
    written(".lock", "")(RunDirectory(sweep))
    where = ["--runs", folder / "runs"]
    said = {"status": typed("status", *where, "--all"), "collect": typed("collect", *where, "--out", folder / "t.csv")}
    said["report"] = typed("report", *where, "--out", folder / "report")
    assert {one.exit_code for one in said.values()} == {0}
    before = {kind: results.row(directory) for kind, directory in directories.items()}
    said["sweep"] = type_sweep(folder)
    after = {kind: results.row(directory) for kind, directory in directories.items()}
    return Drilled({command: done.output for command, done in said.items()}, before, after)


def by_seed(sweep: Path) -> list[Path]:
    runs = [run for run in sweep.iterdir() if not run.name.startswith(".")]
    return sorted(runs, key=lambda run: int(run.name.split("-")[-2].removeprefix("s")))


@pytest.fixture(scope="module")
def finished(swept) -> Drilled:
    return drill(swept, "finished", FINISHED, lambda directory: None)


@pytest.fixture(scope="module")
def unfinished(swept) -> Drilled:
    return drill(swept, "unfinished", UNFINISHED, interrupted)


@pytest.mark.parametrize("name", FINISHED)
def test_what_is_corrupt_in_a_finished_run_is_named_in_table_status_and_sweep(finished, name):
    kind, row = FINISHED[name], finished.before[name]
    assert (row["status"], kind.reason in row["reason"]) == (kind.status, True), row["reason"]
    assert "nan" not in finished.said["collect"]
    if kind.status == "corrupt":
        assert f"corrupt: {row['reason']}" in finished.said["collect"]
        assert row["reason"] in finished.said["status"]
    if kind.again:
        about = [line for line in finished.said["sweep"].splitlines() if row["run_id"] in line]
        assert any(kind.again in line for line in about), about
    mended = kind.again == "rewritten: "
    assert finished.after[name]["status"] == ("finished" if mended else kind.status)


def test_the_runs_beside_the_corrupt_ones_are_in_the_report(finished):
    done = sum(kind.status == "finished" for kind in FINISHED.values())
    assert f"{done} of {KINDS} runs finished" in finished.said["report"]


@pytest.mark.parametrize("command", ["status", "sweep"])
def test_a_launch_that_cannot_be_read_is_named_and_the_runs_go_on(finished, unfinished, command):
    for drilled in (finished, unfinished):
        assert f"{LAUNCH}/launch.json: not a text file; its jobs, if any, are not known" in drilled.said[command]


def test_a_lock_that_names_no_holder_is_broken(finished, unfinished):
    for drilled in (finished, unfinished):
        assert "another launch of this sweep is being submitted" not in drilled.said["sweep"]


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_run_with_damaged_files_goes_on_when_the_sweep_is_typed_again(unfinished, name):
    kind, row = UNFINISHED[name], unfinished.after[name]
    assert (row["status"], kind.reason in row["reason"]) == (kind.status, True), row["reason"]
    assert kind.again in unfinished.said["sweep"]
    if kind.status == "finished":
        assert row["wds_tiny/acc1"] in (0.5, 1.0)
        assert row["torch_version"]


def test_a_runs_folder_that_is_a_file_is_named_by_every_command(tmp_path, repro):
    (tmp_path / "runs").write_text("")
    for command in (["status"], ["collect"], ["report"], ["cancel"], ["retry"], ["sweep", "batch-size"]):
        done = repro(*command, "--runs", tmp_path / "runs")
        assert done.exit_code == 2, command
        assert f"--runs {tmp_path}/runs: " in done.output, command


def test_a_damaged_trained_json_fails_its_run_and_says_what_to_remove(swept, repro):
    folder = swept.parent / "trained"
    shutil.copytree(swept, folder, symlinks=True)
    run = RunDirectory(by_seed(folder / "runs" / "batch-size")[-1])
    run.result_file.unlink()
    run.trained_file.write_text("{")
    assert type_sweep(folder).exit_code == 1
    row = results.row(run)
    assert row["status"] == "failed"
    assert f"{run.trained_file}: not JSON" in row["reason"] and "remove this file to train again" in row["reason"]
    run.trained_file.unlink()
    done = repro("retry", run.path.name, "--runs", folder / "runs")
    assert (done.exit_code, results.row(run)["status"]) == (0, "finished"), done.output


def test_a_run_directory_that_goes_away_ends_its_run_and_no_other(tmp_path, world):
    lost, other = small_cell(tmp_path / "runs", examples_seen=60_000), small_cell(tmp_path / "runs")
    said = []

    def take_away() -> None:
        if lost.directory.log_file.exists():
            lost.directory.path.rename(tmp_path / "elsewhere")
            lost.directory.path.write_text("")

    launch([lost, other], JobSettings(), jobs=2, watch=take_away, say=said.append)
    assert other.state() == "finished"
    assert f"{lost.directory.path} cannot be written (" in said[-1]


@not_as_root
def test_a_run_directory_that_may_not_be_written_is_left_out(swept):
    folder = swept.parent / "readonly"
    shutil.copytree(swept, folder, symlinks=True)
    run = RunDirectory(by_seed(folder / "runs" / "batch-size")[-1])
    interrupted(run)
    run.path.chmod(0o555)
    done = type_sweep(folder)
    assert (done.exit_code, "left out: " in done.output) == (1, True), done.output
