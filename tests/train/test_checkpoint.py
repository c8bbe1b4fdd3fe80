"""The newest good checkpoint is never lost, and one that is not good is never loaded."""

import logging
import os
import re
import subprocess
import sys

import pytest
import torch

from repro.config.errors import InputError
from repro.train.checkpoint import Checkpoints

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path)


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((1000,), float(step))}


def saved(store: Checkpoints, *steps: int) -> None:
    for step in steps:
        store.save(step, state(step))


def names(store: Checkpoints) -> list[str]:
    return sorted(file.name for file in store.folder.iterdir())


def test_the_last_two_are_kept_with_their_checksums_and_the_newest_is_loaded(store):
    saved(store, 1, 2, 3)
    two, three = "step-000000002.pt", "step-000000003.pt"
    assert names(store) == [two, f"{two}.sha256", three, f"{three}.sha256"]
    assert store.load_latest(CPU)["step"] == 3


def test_sha256sum_checks_a_checkpoint(store):
    saved(store, 1)
    check = ["sha256sum", "-c", "step-000000001.pt.sha256"]
    assert subprocess.run(check, cwd=store.folder).returncode == 0
    with (store.folder / "step-000000001.pt").open("r+b") as file:
        file.seek(700)
        file.write(b"x")
    assert subprocess.run(check, cwd=store.folder).returncode == 1


def cut_off(file):
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def lose_the_checksum(file):
    file.with_name(f"{file.name}.sha256").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_off, r"bytes do not give the sha256 in step-000000002.pt.sha256"),
        (flip_a_bit, r"bytes do not give the sha256"),
        (lose_the_checksum, r"step-000000002.pt.sha256 is missing"),
    ],
)
def test_a_damaged_newest_is_set_aside_with_a_warning_for_the_one_before(store, caplog, damage, reason):
    saved(store, 1, 2)
    damage(store.folder / "step-000000002.pt")
    with caplog.at_level(logging.WARNING):
        assert store.load_latest(CPU)["step"] == 1
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith(str(store.folder / "step-000000002.pt"))
    assert re.search(reason, warning)
    assert "step-000000002.pt.damaged" in names(store)


def test_a_damaged_one_does_not_count_among_the_two_that_are_kept(store):
    saved(store, 1, 2, 3)
    cut_off(store.folder / "step-000000003.pt")
    store.load_latest(CPU)
    saved(store, 4)
    assert [name for name in names(store) if name.endswith(".pt")] == ["step-000000002.pt", "step-000000004.pt"]


def test_no_good_one_is_none_with_a_warning(store, caplog):
    saved(store, 1, 2)
    for file in store.folder.glob("*.pt"):
        cut_off(file)
    with caplog.at_level(logging.WARNING):
        assert store.load_latest(CPU) is None
    assert "none of 2 checkpoints is good; training starts over" in caplog.text


def test_nothing_there_is_none_without_a_warning(store, caplog):
    assert store.load_latest(CPU) is None
    assert not caplog.records


def test_a_file_that_is_whole_but_no_checkpoint_is_an_error_and_not_damage(store):
    """Its checksum says that it is what was written: unpickling it could run code, and setting it aside hide a bug."""

    class Code:
        def __reduce__(self):
            return print, ("unpickled",)

    store.save(1, {"step": 1, "code": Code()})
    with pytest.raises(InputError, match=r"not a checkpoint .UnpicklingError; nothing in it was run"):
        store.load_latest(CPU)


def test_a_write_that_fails_leaves_the_one_before_and_nothing_else(store):
    saved(store, 1)
    with pytest.raises(TypeError):
        store.save(2, {"step": (i for i in range(3))})
    assert store.load_latest(CPU)["step"] == 1
    assert names(store) == ["step-000000001.pt", "step-000000001.pt.sha256"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from repro.train.checkpoint import Checkpoints

def check_owner():
    check_owner.asked += 1
    if check_owner.asked == 2:  # the file is whole, under its temporary name
        os.kill(os.getpid(), signal.SIGKILL)

check_owner.asked = 0
Checkpoints(Path(sys.argv[1]), check_owner).save(2, {"step": 2, "weights": torch.zeros(1000)})
"""


def killed_while_writing(store: Checkpoints) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(store.folder)])
    assert len(list(store.folder.glob(".step-000000002.pt.*"))) == 1


def test_what_a_killed_write_left_is_gone_after_the_next_load(store):
    saved(store, 1)
    killed_while_writing(store)
    assert store.load_latest(CPU)["step"] == 1
    assert names(store) == ["step-000000001.pt", "step-000000001.pt.sha256"]


def test_what_a_killed_write_left_is_gone_after_the_next_save(store):
    killed_while_writing(store)
    saved(store, 1)
    assert names(store) == ["step-000000001.pt", "step-000000001.pt.sha256"]


class TakenOver(Exception):
    """Another process has the run."""


@pytest.mark.parametrize("asked", [1, 2])
def test_a_run_that_another_process_has_is_left_alone(tmp_path, asked):
    saved(Checkpoints(tmp_path), 1)
    before = names(Checkpoints(tmp_path))
    answers = iter([None] * (asked - 1) + [TakenOver()])

    def check_owner():
        if error := next(answers):
            raise error

    with pytest.raises(TakenOver):
        Checkpoints(tmp_path, check_owner).save(2, state(2))
    assert names(Checkpoints(tmp_path)) == before


def test_the_final_weights_take_the_place_of_checkpoints_with_a_checksum_and_the_columns(store):
    saved(store, 1, 2)
    store.save_final({"w": torch.ones(3)}, {"final_loss": 1.5})
    assert names(store) == ["final.json", "final.pt", "final.pt.sha256", "open_clip_pytorch_model.bin"]
    assert subprocess.run(["sha256sum", "-c", "final.pt.sha256"], cwd=store.folder).returncode == 0
    assert torch.load(store.folder / "open_clip_pytorch_model.bin", weights_only=True)["w"].tolist() == [1, 1, 1]
    assert store.trained() == {"final_loss": 1.5}


def test_final_weights_that_were_damaged_are_set_aside_and_count_as_not_trained(store, caplog):
    store.save_final({"w": torch.ones(3000)}, {"final_loss": 1.5})
    flip_a_bit(store.folder / "final.pt")
    assert store.trained() is None
    assert "final.pt is damaged or cut off" in caplog.text
    assert not (store.folder / "final.pt").exists()
