"""Nothing is lost when a run breaks off: it ends with the bits, and the log, of a run that nothing disturbed."""

import json
import logging
import random
import shutil
import time
from pathlib import Path

import pytest
import torch

from repro.config.errors import Interrupted
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.loop import Options
from repro.train.trainer import Trainer
from tests.ranks import CONTEXT, on_ranks
from tests.train.runs import CPU, StopAfter, assert_same_bits, trained

OFTEN = Options(checkpoint_seconds=0)
STEPS = 100
"""Of a run that is killed: long enough for several checkpoints at their least spacing."""


def stopped(spec, path, steps: int) -> RunDirectory:
    """A run directory after this many steps, with the checkpoint of a stop."""
    with pytest.raises(Interrupted):
        trained(spec, path, stop=StopAfter(steps))
    return RunDirectory(path)


def newest(directory: RunDirectory) -> dict:
    return torch.load(sorted(directory.checkpoints.glob("step-*.pt"))[-1], weights_only=True)


def logged(directory: RunDirectory) -> list[tuple]:
    return [(line["step"], line["loss"], line["gradient_norm"]) for line in directory.read_log()]


def assert_same(one, other, place: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for position, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, theirs, f"{place}[{position}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion"])
@pytest.mark.parametrize("workers", [0, 1])
def test_all_state_is_the_same_after_a_stop_and_a_resume(make_spec, tmp_path, optimizer, workers):
    spec = make_spec(optimizer=optimizer)
    undisturbed = newest(stopped(spec, tmp_path / "a", 6))
    stopped(spec, tmp_path / "b", 3)
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "b", Options(workers=workers), StopAfter(3))
    resumed = newest(RunDirectory(tmp_path / "b"))
    assert undisturbed.pop("clock").keys() == resumed.pop("clock").keys()
    assert {"model", "optimizer", "random", "last_loss", "loss_bound", "bad", "step", "spec_hash"} == set(undisturbed)
    assert_same(undisturbed, resumed)


def test_what_training_does_while_a_checkpoint_is_written_is_not_in_it(make_spec, tmp_path, monkeypatch):
    save = Checkpoints.save

    def slow_save(self, step, state):
        time.sleep(0.3)
        save(self, step, state)

    monkeypatch.setattr(Checkpoints, "save", slow_save)
    with pytest.raises(Interrupted):
        trained(make_spec(), tmp_path / "a", OFTEN, StopAfter(7))
    written = torch.load(min((tmp_path / "a" / "checkpoints").glob("step-*.pt")), weights_only=True)
    assert written["step"] < 7
    then = newest(stopped(make_spec(), tmp_path / "b", written["step"]))
    assert_same(written["model"], then["model"])
    assert_same(written["optimizer"], then["optimizer"])


def train_in_a_process(spec, path: Path) -> None:
    trained(spec, path, OFTEN)


def killed_again_and_again(spec, path: Path, kills: int) -> int:
    """Train to the end in processes of which each of the first is killed at a moment that nobody chose.

    Returns how many of them had a checkpoint to go on from.
    """
    directory, resumes = RunDirectory(path), 0
    for killed in [True] * kills + [False]:
        resumes += bool(list(directory.checkpoints.glob("step-*.pt")))
        lines = len(directory.read_log())
        process = CONTEXT.Process(target=train_in_a_process, args=(spec, path))
        process.start()
        if killed:
            until = time.monotonic() + 60
            while len(directory.read_log()) <= min(lines, 1) and process.is_alive() and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 1))
            process.kill()
        process.join(120)
    assert process.exitcode == 0
    return resumes


def test_a_run_killed_at_any_moment_ends_with_the_bits_and_the_log_of_one_that_was_not(make_spec, tmp_path):
    spec = make_spec(examples_seen=STEPS * 64)
    undisturbed, _ = trained(spec, tmp_path / "a")
    resumes = killed_again_and_again(spec, tmp_path / "b", kills=6)
    disturbed = RunDirectory(tmp_path / "b")
    assert resumes > 0
    assert_same_bits(undisturbed, disturbed)
    assert logged(disturbed) == logged(undisturbed)
    assert [step for step, *_ in logged(disturbed)] == list(range(1, STEPS + 1))


def test_without_a_good_checkpoint_a_run_begins_anew_with_an_empty_log(make_spec, tmp_path, caplog):
    undisturbed, _ = trained(make_spec(), tmp_path / "a")
    broken = stopped(make_spec(), tmp_path / "b", 4)
    for file in broken.checkpoints.glob("step-*.pt"):
        file.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        trained(make_spec(), tmp_path / "b")
    assert "training starts over" in caplog.text
    assert logged(broken) == logged(undisturbed)


def test_the_share_that_checkpoints_took_is_kept_over_a_resume(make_spec, tmp_path):
    with pytest.raises(Interrupted):
        trained(make_spec(), tmp_path / "a", OFTEN, StopAfter(5))
    blocked = newest(RunDirectory(tmp_path / "a"))["clock"]["blocked_seconds"]
    assert blocked > 0
    _, result = trained(make_spec(), tmp_path / "a")
    assert result["checkpoint_share"] > 0


def on_each_rank(spec, paths: list[Path], stop_after: int = 0):
    """Train with a directory of each rank's own; a stop comes on rank 1."""
    import torch.distributed as dist

    stop = StopAfter(stop_after) if stop_after and dist.get_rank() == 1 else lambda: False
    try:
        return trained(spec, paths[dist.get_rank()], stop=stop)[1]["final_loss"]
    except Interrupted:
        return sorted(file.name for file in (paths[0] / "checkpoints").glob("step-*.pt"))


def restored(spec, paths: list[Path]) -> tuple[int, float, float]:
    import torch.distributed as dist

    torch.set_num_threads(1)
    directory = RunDirectory(paths[dist.get_rank()])
    trainer = Trainer(spec, directory, CPU, Checkpoints(directory.checkpoints, spec_hash=spec.spec_hash))
    trainer.restore()
    return trainer.step, trainer.last_loss, sum(p.double().sum().item() for p in trainer.parameters)


def test_ranks_that_see_different_files_resume_from_rank_0s(make_spec, tmp_path):
    spec = make_spec()
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    undisturbed = on_ranks(2, on_each_rank, spec, [tmp_path / "a"] * 2)
    # No rank has left before the checkpoint was on disk.
    for seen in on_ranks(2, on_each_rank, spec, [whole] * 2, 4):
        assert seen == ["step-000000004.pt"]
    on_ranks(2, on_each_rank, spec, [whole] * 2, 2)
    shutil.copytree(whole, damaged, symlinks=True)
    (damaged / "checkpoints" / "step-000000006.pt").write_bytes(b"")
    one, other = on_ranks(2, restored, spec, [whole, damaged])
    assert one == other
    assert one[0] == 6
    assert (damaged / "checkpoints" / "step-000000006.pt").exists()  # rank 1 looks at none
    assert on_ranks(2, on_each_rank, spec, [whole, damaged]) == undisturbed
    assert_same_bits(RunDirectory(tmp_path / "a"), RunDirectory(whole))


class TakenOver(Exception):
    """Another process has the run."""


def test_a_process_that_lost_its_run_puts_nothing_in_place(make_spec, tmp_path):
    calls = []

    def lost_at_the_first_checkpoint():
        calls.append(None)
        if len(calls) > 1:  # the first is on resuming, before the log is cut back
            raise TakenOver

    options = Options(checkpoint_seconds=0, check_owner=lost_at_the_first_checkpoint)
    with pytest.raises(TakenOver):
        trained(make_spec(), tmp_path / "a", options)
    assert not list((tmp_path / "a" / "checkpoints").glob("*.pt*"))


def test_bad_samples_stand_in_the_run_directory_by_shard_and_reason(make_spec, tmp_path, world, bad_shard):
    spec = make_spec(data=f"{world.train_pattern}::{bad_shard(3)}", max_bad_share=0.5, examples_seen=2112)
    directory, result = trained(spec, tmp_path / "a")
    found = json.loads((directory.path / "bad-samples.json").read_text())
    assert list(found) == ["bad.tar"]
    assert sum(found["bad.tar"].values()) == result["bad_samples"] > 0
    clean, _ = trained(make_spec(), tmp_path / "b")
    assert not (clean.path / "bad-samples.json").exists()


def test_bad_samples_are_left_with_a_checkpoint_and_counted_once(make_spec, tmp_path, world, bad_shard):
    spec = make_spec(data=f"{world.train_pattern}::{bad_shard(500)}", max_bad_share=0.9)
    undisturbed, _ = trained(spec, tmp_path / "a")
    directory = stopped(spec, tmp_path / "b", 4)
    at_the_stop = json.loads((directory.path / "bad-samples.json").read_text())
    trained(spec, tmp_path / "b")
    at_the_end = json.loads((directory.path / "bad-samples.json").read_text())
    assert at_the_stop["bad.tar"] != at_the_end["bad.tar"]
    assert at_the_end == json.loads((undisturbed.path / "bad-samples.json").read_text())
