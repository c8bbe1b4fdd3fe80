"""What `deterministic` tells torch, and what a person is told where an operation has no fixed order of sums."""

import os
import subprocess
import sys

import pytest
import torch

from repro.runs.directory import RunDirectory
from repro.runs.execute import run
from repro.train import trainer
from repro.train.loop import Options
from repro.train.state import lenient, set_deterministic


@pytest.fixture(autouse=True)
def as_before():
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    yield
    torch.use_deterministic_algorithms(strict, warn_only=warns)


def test_strict_mode_does_more_than_warn_and_sets_cublas_up_before_cuda_starts():
    code = (
        "from repro.train.state import set_deterministic; import os, torch; set_deterministic(True);"
        "print(torch.cuda.is_initialized(), os.environ['CUBLAS_WORKSPACE_CONFIG'],"
        "torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", ":4096:8", "True", "False"]


def test_evaluation_is_lenient_with_anybodys_model_and_training_strict_again_after_it():
    set_deterministic(True)
    with lenient():
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()


def has_no_fixed_order(*_):
    """An operation that strict mode refuses on CPUs too."""
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)


def test_a_run_with_an_operation_that_has_no_fixed_order_says_which_and_how_to_train_with_it(
    make_spec, tmp_path, monkeypatch
):
    embed = trainer.Trainer.embed_texts

    def embed_without_order(self, tokens):
        has_no_fixed_order()
        return embed(self, tokens)

    monkeypatch.setattr(trainer.Trainer, "embed_texts", embed_without_order)
    spec = make_spec(examples_seen=64, warmup_examples=0)
    refused = run(spec, RunDirectory(tmp_path / "strict"), Options())
    assert refused["status"] == "failed"
    assert refused["reason"] == "put_ gives other bits each time; --set deterministic=false trains with it"
    free = spec.model_copy(update={"deterministic": False})
    assert free.run_id != spec.run_id
    assert run(free, RunDirectory(tmp_path / "free"), Options())["status"] == "finished"
