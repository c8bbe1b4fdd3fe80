"""The newest good checkpoint is never lost."""

import logging

import pytest
import torch

from repro.train import checkpoint

CPU = torch.device("cpu")


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000000002.pt", "step-000000003.pt"]
    assert checkpoint.load_latest(tmp_path, CPU) == {"step": 3}


def test_a_damaged_newest_gives_way_to_the_one_before_with_a_warning(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, {"step": 1})
    checkpoint.save(tmp_path, 2, {"step": 2})
    newest = tmp_path / "step-000000002.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load_latest(tmp_path, CPU) == {"step": 1}
    assert "step-000000002.pt cannot be read" in caplog.text


def test_a_write_that_fails_leaves_the_one_before(tmp_path):
    checkpoint.save(tmp_path, 1, {"step": 1})
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path, 2, {"step": (i for i in range(3))})
    assert checkpoint.load_latest(tmp_path, CPU) == {"step": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["step-000000001.pt"]


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.load_latest(tmp_path, CPU) is None
