"""Setup finetune: training starts from a pretrained image tower, which learns slowly, or not at all."""

import pytest
import torch

from repro.config.errors import InputError, Interrupted
from repro.models import build
from tests.ranks import on_ranks
from tests.train.runs import StopAfter, assert_same_bits, trained, weights


@pytest.fixture
def finetune(make_spec, tower):
    """A small finetune spec, with any field changed."""
    return lambda **values: make_spec(
        **{"setup": "finetune", "pretrained": str(tower), "image_learning_rate_multiplier": 0.1} | values
    )


def moved(directory, start: dict[str, torch.Tensor], prefix: str) -> float:
    """The largest step away from where the weights of a tower started."""
    found = weights(directory)
    return max((found[name] - start[name]).abs().max().item() for name in start if name.startswith(prefix))


def test_the_image_tower_starts_from_its_weights_and_the_text_tower_as_in_any_run(finetune, make_spec, tower, tmp_path):
    still = {"learning_rate": 1e-12, "weight_decay": 0}
    start = torch.load(tower / "final.pt", weights_only=True)
    directory, _ = trained(finetune(**still), tmp_path / "a")
    scratch, _ = trained(make_spec(**still), tmp_path / "b")
    assert moved(directory, start, "visual.") < 1e-6
    assert moved(scratch, start, "visual.") > 1e-2
    assert moved(directory, weights(scratch), "transformer.") < 1e-6


def test_the_image_tower_learns_at_its_share_of_the_rate(finetune, tower, tmp_path):
    """One step of AdamW moves the weights that have a gradient by the learning rate, times the multiplier."""
    start = torch.load(tower / "final.pt", weights_only=True)
    one_step = {"learning_rate": 1e-3, "weight_decay": 0, "examples_seen": 64, "warmup_examples": 0}
    directory, _ = trained(finetune(**one_step), tmp_path / "a")
    assert moved(directory, start, "visual.") == pytest.approx(1e-4, rel=0.05)


def test_a_locked_tower_keeps_its_bits_and_the_other_one_learns(finetune, tower, tmp_path):
    start = torch.load(tower / "final.pt", weights_only=True)
    spec = finetune(image_learning_rate_multiplier=0.0, micro_batch=32)
    directory, _ = trained(spec, tmp_path / "a")
    assert moved(directory, start, "visual.") == 0
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "b", stop=StopAfter(4))
    (file,) = (tmp_path / "b" / "checkpoints").glob("step-*.pt")
    held = torch.load(file, weights_only=True)["optimizer"]["state"]
    parameters = dict(build.load(directory.checkpoints).model.named_parameters())
    assert len(held) == sum(not name.startswith("visual.") for name in parameters)
    resumed, _ = trained(spec, tmp_path / "b")
    assert_same_bits(directory, resumed)


def loss_on_a_rank(spec, path) -> float:
    return trained(spec, path)[1]["final_loss"]


def test_ranks_start_from_the_same_weights(finetune, tmp_path):
    alone = trained(finetune(), tmp_path / "a")[1]["final_loss"]
    one, other = on_ranks(2, loss_on_a_rank, finetune(), tmp_path / "b")
    assert one == other == pytest.approx(alone, rel=1e-4)


def test_a_tower_of_another_shape_is_refused(finetune, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        finetune(pretrained="/no/such/final.pt")
    with pytest.raises(InputError, match="expected the same image tower"):
        trained(finetune(model="siglip-s16-128"), tmp_path / "a")


def test_softmax_starts_from_weights_that_carry_a_bias_and_leaves_a_model_without(finetune, checkpoints, tmp_path):
    assert "logit_bias" in torch.load(checkpoints / "final.pt", weights_only=True)
    spec = finetune(loss="softmax", pretrained=str(checkpoints), init_logit_bias=None)
    directory, _ = trained(spec, tmp_path / "a")
    assert "logit_bias" not in weights(directory)
    build.load(directory.checkpoints, weights=True)  # open_clip's own loader takes it, strictly
