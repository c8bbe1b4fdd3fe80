"""The spec is the run: same spec, same id; whatever changes a result changes the id, whatever does not, does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.spec import RunSpec

VALUES = {
    "setup": "siglip",
    "scale": "laptop",
    "data": "shapes",
    "model": "laptop",
    "loss": "sigmoid",
    "batch_size": "1k",
    "micro_batch": 256,
    "examples_seen": 65_536,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
}
SIGLIT = {"setup": "siglit", "pretrained": "timm", "image_learning_rate_multiplier": 0}


def spec(**changes):
    return RunSpec.parse(VALUES | changes, "spec.json")


def test_the_id_is_readable_and_ends_with_a_hash():
    assert spec().run_id == f"siglip-sigmoid-bs1024-65.5k-s0-{spec().spec_hash}"


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"learning_rate": 2e-3}, {"precision": "bf16"}, {"micro_batch": 512}, {"data_fingerprint": "x"}],
)
def test_what_changes_a_result_changes_the_id(change):
    assert spec(**change).run_id != spec().run_id


def test_where_data_and_evaluations_lie_does_not_change_the_id():
    assert spec(data="/elsewhere/{0..3}.tar", evals=("/x/wds_y",)).run_id == spec().run_id


@given(batch=st.integers(1, 4096), seed=st.integers(0, 99))
def test_a_spec_read_back_from_json_is_the_same_run(batch, seed):
    one = spec(batch_size=batch, micro_batch=4096, seed=seed)
    assert RunSpec.parse(RunSpec.model_validate_json(one.model_dump_json()).model_dump(), "again") == one


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        spec().seed = 3


def test_steps_are_examples_seen_divided_by_batch_size():
    assert spec().steps == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lerning_rate": 1}, "unknown key 'lerning_rate'; the nearest is 'learning_rate'"),
        ({"loss": "sigmod"}, "loss 'sigmod' is unknown; the nearest is 'sigmoid'"),
        ({"scale": "labtop"}, "the nearest is 'laptop'"),
        ({"batch_size": "lots"}, "batch_size.*32k"),
        ({"batch_size": 131_072, "micro_batch": 131_072}, "examples_seen 65,536 is less than batch_size 131,072"),
        ({"micro_batch": 300}, "micro_batch 300 does not divide batch_size 1,024; the nearest that does is 256"),
        ({"warmup_examples": "1M"}, "warmup_examples 1,000,000 is more than examples_seen"),
        ({"loss": "softmax", "init_logit_bias": -10}, "softmax loss has no bias"),
        ({"exchange": "rings"}, "exchange 'rings' is unknown; the nearest is 'ring'"),
        ({"negatives": "hart"}, "the nearest is 'hard'"),
        ({"loss": "softmax", "negatives": "hard"}, "the softmax loss takes all"),
        ({"negatives_share": 0.5}, "negatives_share 0.5 with negatives all; expected random, hard or easy"),
        ({"negatives": "hard", "negatives_share": 0}, "negatives_share"),
        ({"learn_logit_bias": False}, "there is no bias to hold still"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"max_bad_share": 2}, "max_bad_share"),
        ({"format": 7}, "format"),
        ({"setup": "siglit"}, "pretrained is empty: setup siglit starts from the weights of an image tower"),
        ({"setup": "finetune"}, "pretrained is empty"),
        ({"pretrained": "timm"}, "setup siglip trains both towers from scratch; expected it empty, or setup finetune"),
        ({"embeddings": "dir"}, "embeddings dir: setup siglip reads images; expected setup siglit"),
        ({"setup": "siglit", "pretrained": "timm"}, "image_learning_rate_multiplier 1: setup siglit locks the image"),
        (SIGLIT | {"corruption": "text"}, "corruption text: setup siglit reads embeddings; expected none"),
        (SIGLIT | {"languages": ["en"]}, "languages: setup siglit reads the captions that were embedded"),
    ],
)
def test_bad_values_name_the_file_the_key_and_what_works(change, message):
    with pytest.raises(InputError, match=message) as error:
        spec(**change)
    assert str(error.value).startswith("spec.json: ")


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="'loss' is missing"):
        RunSpec.parse({k: v for k, v in VALUES.items() if k != "loss"}, "spec.json")
