"""Damaged checkpoints: the run goes on from the last good one to the same end; what is not ours is refused."""

import hashlib
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from repro import results
from repro.config.errors import Interrupted
from repro.launch import Cell, JobSettings, launch
from repro.runs.directory import RunDirectory
from repro.runs.execute import run
from repro.runs.signals import StopRequest
from repro.train.loop import Options
from tests.drill.conftest import eval_folder, overwrite, small_cell

NEWEST, BEFORE = "step-000000004.pt", "step-000000002.pt"


class StopAfter(StopRequest):
    """As if a signal came in the middle of a step: the n-th of this start."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def __call__(self) -> bool:
        self.steps -= 1
        return self.steps <= 0


class Kind(NamedTuple):
    """What is done to the checkpoints folder of a run that was stopped twice; what a run then says, and its status."""

    damage: Callable[[Path], object]
    warning: str = ""
    status: str = "finished"
    reason: str = ""


def signed(file: Path) -> None:
    """As if it had been written so: the checksum is that of the content."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n")


def both_damaged(folder: Path) -> None:
    for name in (NEWEST, BEFORE):
        os.truncate(folder / name, 1000)


def of_another_run(folder: Path) -> None:
    state = torch.load(folder / NEWEST, weights_only=True)
    torch.save(state | {"spec_hash": "3f2a91c4"}, folder / NEWEST)
    signed(folder / NEWEST)


def of_no_run(folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / NEWEST)
    signed(folder / NEWEST)


class Evil:
    """Unpickled, it would run a command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def pickle_with_a_command(folder: Path) -> None:
    (folder / NEWEST).write_bytes(pickle.dumps(Evil(f"touch {folder}/was-run"), protocol=2))
    signed(folder / NEWEST)


KINDS = {
    "nothing": Kind(lambda f: None),
    "newest cut off": Kind(lambda f: os.truncate(f / NEWEST, 1000), f"{NEWEST} is damaged or cut off (its 1,000 bytes"),
    "newest with one byte flipped": Kind(
        lambda f: overwrite(f / NEWEST, bytes([(f / NEWEST).read_bytes()[50_000] ^ 1]), at=50_000),
        "do not give the sha256 in step-000000004.pt.sha256); set aside as step-000000004.pt.damaged",
    ),
    "newest empty": Kind(lambda f: (f / NEWEST).write_bytes(b""), f"{NEWEST} is damaged or cut off (its 0 bytes"),
    "newest without its checksum": Kind(
        lambda f: (f / f"{NEWEST}.sha256").unlink(), f"{NEWEST} is damaged or cut off ({NEWEST}.sha256 is missing)"
    ),
    "both damaged": Kind(both_damaged, "none of 2 checkpoints is good; training starts over"),
    "no config": Kind(lambda f: (f / "open_clip_config.json").unlink()),
    "config damaged": Kind(lambda f: (f / "open_clip_config.json").write_text("{")),
    "a leftover of a killed write": Kind(lambda f: (f / f".{NEWEST}.x.unfinished").write_bytes(b"half")),
    "of another run": Kind(of_another_run, status="failed", reason="the checkpoint of another run (spec 3f2a91c4, exp"),
    "weights alone": Kind(of_no_run, status="failed", reason="the checkpoint of another run (spec None, expected"),
    "a pickle with a command": Kind(
        pickle_with_a_command,
        status="failed",
        reason=f"{NEWEST}: not a checkpoint (UnpicklingError; nothing in it was run); remove it, and the run goes on",
    ),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, world) -> Cell:
    """A run of six steps, stopped after the second and the fourth."""
    folder = tmp_path_factory.mktemp("checkpoints")
    cell = small_cell(folder / "whole", examples_seen=384, evals=(str(eval_folder(folder / "wds_tiny")),))
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(cell.spec, cell.directory, Options(), stop=StopAfter(2))
    assert [file.name for file in sorted(cell.directory.checkpoints.glob("step-*.pt"))] == [BEFORE, NEWEST]
    return cell


def copy_of(cell: Cell, runs: Path) -> Cell:
    directory = RunDirectory(runs / "drill" / cell.directory.path.name)
    shutil.copytree(cell.directory.path, directory.path, symlinks=True)
    return Cell(cell.spec, directory)


@pytest.fixture(scope="module")
def undisturbed(stopped, tmp_path_factory) -> dict:
    whole = Cell(stopped.spec, RunDirectory(tmp_path_factory.mktemp("undisturbed") / "drill" / stopped.spec.run_id))
    launch([whole], JobSettings(), executor="inline")
    return results.row(whole.directory)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_goes_on_from_the_last_good_checkpoint_or_says_why_not(stopped, undisturbed, tmp_path, caplog, name):
    kind, cell = KINDS[name], copy_of(stopped, tmp_path)
    kind.damage(cell.directory.checkpoints)
    with caplog.at_level(logging.WARNING):
        launch([cell], JobSettings(), executor="inline")
    row = results.row(cell.directory)
    assert (row["status"], kind.reason in row["reason"]) == (kind.status, True), row["reason"]
    assert kind.warning in caplog.text
    assert not list(cell.directory.checkpoints.glob("*.unfinished")) + list(tmp_path.rglob("was-run"))
    if kind.status == "finished":
        assert row["final_loss"] == undisturbed["final_loss"]
        assert row["wds_tiny/acc1"] == undisturbed["wds_tiny/acc1"]


@pytest.mark.parametrize(
    ("damage", "warning"),
    [
        (lambda file: os.truncate(file, 1000), "final.pt is damaged or cut off (its 1,000 bytes"),
        (lambda file: file.write_bytes(b""), "final.pt is damaged or cut off (its 0 bytes"),
        (lambda file: overwrite(file, b"\x93" * 64, at=70_000), "final.pt is damaged or cut off"),
    ],
)
def test_final_weights_that_are_damaged_before_their_evaluation_are_trained_again(
    stopped, undisturbed, tmp_path, caplog, damage, warning
):
    cell = copy_of(stopped, tmp_path)
    launch([cell], JobSettings(), executor="inline")
    cell.directory.result_file.unlink()
    shutil.rmtree(cell.directory.evals)
    damage(cell.directory.final)
    with caplog.at_level(logging.WARNING):
        launch([cell], JobSettings(), executor="inline")
    assert warning in caplog.text
    row = results.row(cell.directory)
    assert (row["status"], row["final_loss"]) == ("finished", undisturbed["final_loss"])
    assert (cell.directory.checkpoints / "final.pt.damaged").exists()


def test_weights_that_are_no_weights_are_refused_by_eval(stopped, tmp_path, repro):
    cell = copy_of(stopped, tmp_path)
    launch([cell], JobSettings(), executor="inline")
    cell.directory.final.write_bytes(pickle.dumps(Evil(f"touch {tmp_path}/was-run"), protocol=2))
    outside = shutil.copytree(cell.directory.checkpoints, tmp_path / "outside")
    for target, message in (
        (cell.directory.path, "final.pt: is damaged or cut off"),
        (outside, "open_clip_config.json: open_clip cannot build a model with the weights beside it: "),
    ):
        done = repro("eval", target, "--eval", cell.spec.evals[0])
        assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not (tmp_path / "was-run").exists()
