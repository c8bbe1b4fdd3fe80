"""Setup siglit: a run over embeddings is the run over images with a locked tower, and holds no image tower."""

import copy
import shutil

import pytest
import torch

from repro.config.errors import BadData, Interrupted
from repro.models import build
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.loop import Options
from repro.train.trainer import Trainer
from tests.ranks import on_ranks
from tests.train.runs import CPU, StopAfter, assert_same_bits, trained, weights


@pytest.fixture
def siglit(make_spec, tower):
    """A small siglit spec, with any field changed."""
    return lambda **values: make_spec(
        **{"setup": "siglit", "pretrained": str(tower), "image_learning_rate_multiplier": 0} | values
    )


def test_the_final_weights_are_a_whole_model_with_the_frozen_tower_in_it(siglit, tower, tmp_path):
    directory, _ = trained(siglit(), tmp_path / "a")
    frozen, whole = torch.load(tower / "final.pt", weights_only=True), weights(directory)
    assert whole.keys() >= {name for name in frozen if name != "logit_bias"}
    for name, value in whole.items():
        if name.startswith("visual."):
            assert torch.equal(value, frozen[name]), name
    build.load(directory.checkpoints, weights=True)  # open_clip's own loader takes it, strictly


def test_the_time_of_its_one_tower_is_that_of_the_towers(siglit, tmp_path):
    _, result = trained(siglit(), tmp_path / "a")
    assert 0 < result["towers_seconds"] < result["step_seconds"]


def test_neither_the_device_nor_a_checkpoint_nor_the_optimizer_has_the_image_tower(siglit, tmp_path):
    with pytest.raises(Interrupted):
        trained(siglit(), tmp_path / "a", stop=StopAfter(3))
    (file,) = (tmp_path / "a" / "checkpoints").glob("step-*.pt")
    state = torch.load(file, weights_only=True)
    assert not [name for name in state["model"] if name.startswith("visual.")]
    learns = [name for name in state["model"] if name != "attn_mask"]
    assert len(state["optimizer"]["state"]) == len(learns)
    directory = RunDirectory(tmp_path / "a")
    trainer = Trainer(siglit(), directory, CPU, Checkpoints(directory.checkpoints, spec_hash=siglit().spec_hash))
    assert trainer.model.visual is None


def test_training_is_that_of_a_locked_tower_over_images_to_the_embeddings_rounding(siglit, make_spec, tower, tmp_path):
    """The same text tower from the same start, over images, with the image tower held still."""
    spec = siglit(examples_seen=640)
    directory = RunDirectory(tmp_path / "a")
    torch.set_num_threads(1)
    trainer = Trainer(spec, directory, CPU, Checkpoints(directory.checkpoints))
    over_images = make_spec(examples_seen=640, image_learning_rate_multiplier=0)
    other = RunDirectory(tmp_path / "b")
    reference = Trainer(over_images, other, CPU, Checkpoints(other.checkpoints))
    state = copy.deepcopy(trainer.model.state_dict())
    frozen = torch.load(tower / "final.pt", weights_only=True)
    reference.model.load_state_dict(state | {k: v for k, v in frozen.items() if k.startswith("visual.")})
    for step in range(5):
        positions = range(64 * step, 64 * (step + 1))
        trainer.take_step(trainer.pairs[positions], 0.0)
        reference.take_step(reference.pairs[positions], 0.0)
        assert trainer.last_loss == pytest.approx(reference.last_loss, rel=5e-4)  # half precision: 2⁻¹¹
        if step == 0:  # later AdamW has made much of the signs of small ones
            found, exact = (
                torch.cat([p.grad.flatten() for _, p in sorted(t.model.named_parameters()) if p.grad is not None])
                for t in (trainer, reference)
            )
            assert (found - exact).norm() < 1e-3 * exact.norm()


def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(siglit, tmp_path):
    undisturbed, _ = trained(siglit(), tmp_path / "a")
    with pytest.raises(Interrupted):
        trained(siglit(), tmp_path / "b", stop=StopAfter(3))
    resumed, _ = trained(siglit(), tmp_path / "b", Options(workers=1))
    assert_same_bits(undisturbed, resumed)
    assert [line["loss"] for line in undisturbed.read_log()] == [line["loss"] for line in resumed.read_log()]


def on_each_rank(spec, path):
    return trained(spec, path)[1]["final_loss"]


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_ranks_and_micro_batches_do_not_change_the_batches(siglit, tmp_path, loss):
    spec = siglit(loss=loss)
    _, alone = trained(spec, tmp_path / "a")
    together = on_ranks(2, on_each_rank, spec, tmp_path / "b")
    assert together == pytest.approx([alone["final_loss"]] * 2, rel=1e-4)
    _, in_parts = trained(siglit(loss=loss, micro_batch=16), tmp_path / "c")
    assert in_parts["final_loss"] == pytest.approx(alone["final_loss"], rel=1e-4)


def test_the_shards_images_are_not_read_again(siglit, tmp_path, world):
    """Once embedded, a run needs its shards' names and sizes alone."""
    shards = tmp_path / "shards"
    shutil.copytree(world.folder / "train", shards)
    spec = siglit(data=f"{shards}/00000.tar")
    trained(spec, tmp_path / "a")
    file = shards / "00000.tar"
    file.write_bytes(bytes(file.stat().st_size))
    trained(spec, tmp_path / "b")
    assert_same_bits(RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "b"))


def test_bad_samples_are_counted_as_in_training_over_images(siglit, make_spec, bad_shard, world, tmp_path):
    data = f"{world.folder}/train/00000.tar::{bad_shard(40)}"
    values = {"data": data, "max_bad_share": 0.2}
    _, over_images = trained(make_spec(**values), tmp_path / "a")
    directory, over_embeddings = trained(siglit(**values), tmp_path / "b")
    assert over_embeddings["bad_samples"] == over_images["bad_samples"] > 0
    assert (directory.path / "bad-samples.json").read_text() == (tmp_path / "a" / "bad-samples.json").read_text()
    with pytest.raises(BadData, match=r"more than the allowed 0\.1%"):
        trained(siglit(data=data, max_bad_share=0.001), tmp_path / "c")
