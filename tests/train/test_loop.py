"""Training as a whole: exact resume, the same run on any number of ranks, and honest ends."""

import json
import math

import pytest
import torch

from repro.config.errors import BadData, Diverged, InputError, Interrupted
from repro.config.spec import LOG_COLUMNS
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.failures import LossBound
from repro.train.loop import Options
from repro.train.state import to_host
from tests.ranks import on_ranks
from tests.train.runs import StopAfter, assert_same_bits, trained, weights


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"micro_batch": 32},
        {"loss": "softmax"},
        {"optimizer": "adafactor"},
        {"threads": 2},
        {"negatives": "random", "negatives_share": 0.3},
    ],
)
def test_a_run_stopped_half_way_and_resumed_ends_with_the_same_bits(make_spec, tmp_path, change):
    spec = make_spec(**change)
    undisturbed, _ = trained(spec, tmp_path / "a")
    with pytest.raises(Interrupted, match="stopped after 256 of 512"):
        trained(spec, tmp_path / "b", stop=StopAfter(4))
    resumed, _ = trained(spec, tmp_path / "b")
    assert_same_bits(undisturbed, resumed)
    assert [line["loss"] for line in undisturbed.read_log()] == [line["loss"] for line in resumed.read_log()]


def test_the_same_spec_twice_gives_the_same_bits_and_another_seed_does_not(make_spec, tmp_path):
    one, _ = trained(make_spec(examples_seen=128), tmp_path / "a")
    again, _ = trained(make_spec(examples_seen=128), tmp_path / "b")
    other, _ = trained(make_spec(examples_seen=128, seed=1), tmp_path / "c")
    assert all(torch.equal(v, weights(again)[k]) for k, v in weights(one).items())
    assert not all(torch.equal(v, weights(other)[k]) for k, v in weights(one).items())


def train_on_rank(spec, path):
    return trained(spec, path)[1]


@pytest.mark.parametrize(
    ("ranks", "changes"),
    [
        (1, {"micro_batch": 16}),
        (2, {}),
        (2, {"loss": "softmax"}),
        (2, {"loss": "softmax", "exchange": "gather", "micro_batch": 8}),
        (4, {"exchange": "ring-bidirectional", "micro_batch": 8}),
        (2, {"negatives": "hard", "negatives_share": 0.25, "micro_batch": 16}),
        (2, {"negatives": "random", "negatives_share": 0.25}),
    ],
)
def test_ten_steps_on_any_ranks_and_micro_batches_end_with_the_same_weights(make_spec, tmp_path, ranks, changes):
    # With Adam's usual epsilon a gradient that is zero but for rounding (of a key's bias) takes full steps.
    spec = make_spec(examples_seen=640, epsilon=1e-3, **changes)
    one, _ = trained(spec.model_copy(update={"micro_batch": 64, "exchange": "ring"}), tmp_path / "one")
    on_ranks(ranks, train_on_rank, spec, tmp_path / "many")
    many = RunDirectory(tmp_path / "many")
    assert len(one.read_log()) == 10
    for mine, theirs in zip(one.read_log(), many.read_log(), strict=True):
        for key in ("loss", "logit_scale", "positive_logit", "negative_logit", "gradient_norm"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4), key
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(many)[name], rtol=1e-5, atol=1e-5)


def test_a_fixed_bias_stays_where_it_starts(make_spec, tmp_path):
    _, result = trained(make_spec(learn_logit_bias=False, init_logit_bias=-4.0), tmp_path / "fixed")
    assert result["final_logit_bias"] == -4.0
    _, result = trained(make_spec(init_logit_bias=-4.0), tmp_path / "learned")
    assert result["final_logit_bias"] != -4.0


def test_a_log_line_says_what_the_design_asks(make_spec, tmp_path):
    directory, result = trained(make_spec(), tmp_path / "a")
    assert set(directory.read_log()[0]) == set(LOG_COLUMNS)
    assert result["steps"] == len(directory.read_log()) == 8
    assert result["final_logit_scale"] != 10
    assert result["peak_memory_bytes"] > 1e8


@pytest.mark.parametrize("change", [{}, {"negatives": "hard", "negatives_share": 0.1}])
def test_the_result_has_the_mean_logits_of_the_last_step(make_spec, tmp_path, change):
    directory, result = trained(make_spec(**change), tmp_path / "a")
    last = directory.read_log()[-1]
    logits = (result["final_positive_logit"], result["final_negative_logit"])
    assert logits == (last["positive_logit"], last["negative_logit"])


def test_training_learns_something(make_spec, tmp_path):
    directory, _ = trained(make_spec(examples_seen=8192, learning_rate=3e-3, loss="softmax"), tmp_path / "a")
    losses = [line["loss"] for line in directory.read_log()]
    assert losses[-1] < math.log(64) - 0.2 < losses[0]


def test_checkpoints_are_written_while_it_runs_and_gone_at_the_end(make_spec, tmp_path):
    seen = []

    def look() -> bool:
        seen.append(len(list((tmp_path / "a" / "checkpoints").glob("step-*.pt"))))
        return False

    directory, result = trained(make_spec(), tmp_path / "a", Options(checkpoint_seconds=0), look)
    assert seen[0] == 0
    assert seen[-1] in (1, 2)
    assert not list(directory.checkpoints.glob("step-*"))
    assert result["checkpoint_share"] > 0


def test_a_run_that_is_shorter_than_the_spacing_makes_no_checkpoint(make_spec, tmp_path):
    _, result = trained(make_spec(), tmp_path / "a", Options(checkpoint_seconds=300))
    assert result["checkpoint_share"] == 0


def test_checkpoints_that_take_long_come_less_often(make_spec, tmp_path, monkeypatch, clock):
    copies = []

    def slow_copy(state):
        copies.append(clock.sleep(5))
        return to_host(state)

    monkeypatch.setattr("repro.train.trainer.to_host", slow_copy)
    trained(make_spec(), tmp_path / "a", Options(checkpoint_seconds=0))
    assert len(copies) == 1


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_the_next_step_and_not_at_the_next_checkpoint(
    make_spec, tmp_path, monkeypatch, clock
):
    def fail(self, step, state):
        raise OSError("the disk is gone")

    def slow_copy(state):
        clock.sleep(5)  # so that the run's time has room for one checkpoint only
        return to_host(state)

    monkeypatch.setattr(Checkpoints, "save", fail)
    monkeypatch.setattr("repro.train.trainer.to_host", slow_copy)
    with pytest.raises(OSError, match="the disk is gone"):
        trained(make_spec(examples_seen=2048), tmp_path / "a", Options(checkpoint_seconds=0))
    assert len(RunDirectory(tmp_path / "a").read_log()) < 10


def test_a_trained_run_is_not_trained_again(make_spec, tmp_path):
    directory, result = trained(make_spec(), tmp_path / "a")
    written = directory.final.stat().st_mtime_ns
    assert trained(make_spec(), tmp_path / "a")[1] == result
    assert directory.final.stat().st_mtime_ns == written


def test_final_weights_that_were_damaged_are_trained_again(make_spec, tmp_path):
    directory, _ = trained(make_spec(), tmp_path / "a")
    undamaged = directory.final.read_bytes()
    directory.final.write_bytes(undamaged[:-100])
    trained(make_spec(), tmp_path / "a")
    assert directory.final.read_bytes() == undamaged
    assert [line["step"] for line in directory.read_log()] == list(range(1, 9))


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(make_spec, tmp_path):
    with pytest.raises(Diverged, match=r"logit_scale holds NaN or infinite values at step 1"):
        trained(make_spec(init_logit_scale=2000.0, init_logit_bias=0.0), tmp_path / "a")


def test_a_loss_that_stays_too_high_ends_the_run_and_leaves_a_checkpoint_from_before(make_spec, tmp_path, monkeypatch):
    # A loss of the laptop model rises by nothing simple: the bound falls under it instead, after step 40.
    path = tmp_path / "a"
    bound = property(lambda self: 0.0 if len(RunDirectory(path).read_log()) >= 40 else math.inf)
    monkeypatch.setattr(LossBound, "bound", bound)
    with pytest.raises(Diverged, match=r"step 60, 3,776 examples, and was above 0 for 20 steps in a row"):
        trained(make_spec(examples_seen=6400), path, Options(checkpoint_seconds=0))
    directory = RunDirectory(path)
    kept = [torch.load(file, weights_only=True)["step"] for file in directory.checkpoints.glob("step-*.pt")]
    assert kept and max(kept) <= 40
    assert len(directory.read_log()) == 59


def test_too_many_bad_samples_end_the_run_with_the_counts(make_spec, tmp_path, world, bad_shard):
    spec = make_spec(data=f"{world.train_pattern}::{bad_shard(40)}", max_bad_share=0.001, examples_seen=1024)
    with pytest.raises(BadData, match=r"bad, more than the allowed 0.1% .*bad.tar: image cannot be decoded"):
        trained(spec, tmp_path / "a")
    found = json.loads((tmp_path / "a" / "bad-samples.json").read_text())
    assert found["bad.tar"]["image cannot be decoded (UnidentifiedImageError)"] > 1


@pytest.mark.parametrize("workers", [0, 1])
def test_data_without_a_usable_sample_leave_their_counts_too(make_spec, tmp_path, bad_shard, workers):
    with pytest.raises(BadData, match="in a row"):
        trained(make_spec(data=str(bad_shard(40))), tmp_path / "a", Options(workers=workers))
    assert "bad.tar" in json.loads((tmp_path / "a" / "bad-samples.json").read_text())


def test_a_batch_that_ranks_or_micro_batches_cannot_divide_is_refused(make_spec):
    with pytest.raises(InputError, match="batch_size 64 cannot be divided among 3 ranks"):
        make_spec().check_ranks(3)
    with pytest.raises(InputError, match="micro_batch 16 does not divide the local batch 24"):
        make_spec(batch_size=48, micro_batch=16).check_ranks(2)


def test_bf16_trains(make_spec, tmp_path):
    _, result = trained(make_spec(precision="bf16", examples_seen=128), tmp_path / "a")
    assert math.isfinite(result["final_loss"])
