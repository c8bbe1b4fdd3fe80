"""The spec is the run: same spec, same id; whatever changes a result changes the id, whatever does not, does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.config.errors import InputError
from repro.config.spec import RunSpec, labels

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
        (
            {"negatives": "hard", "negatives_share": 0.0005},
            r"keeps 0.51 negatives a positive at batch_size 1,024, less than one; expected 0.000978 or more",
        ),
        ({"negatives": "hard", "batch_size": 1}, "a batch of one pair has no negatives"),
        ({"corruption": "imgae"}, "corruption 'imgae' is unknown; the nearest is 'image'"),
        (
            {"corruption": "image", "corruption_probability": 1.5},
            "corruption_probability 1.5: .*less than or equal to 1",
        ),
        ({"corruption": "image", "corruption_probability": -0.1}, "corruption_probability -0.1: .*greater than .*0"),
        (
            {"corruption_probability": 0.2},
            "corruption_probability 0.2 with corruption none; expected one of image, text",
        ),
        (
            {"corruption": "text"},
            "corruption text with corruption_probability 0: corrupts nothing; expected more than 0",
        ),
        (
            {"corruption": "batch", "corruption_probability": 0.001},
            r"0.001 of batch_size 1,024 is less than the two pairs that can be shuffled; expected 0.00196 or more",
        ),
        (
            SIGLIT | {"corruption": "image", "corruption_probability": 0.1},
            "siglit's images are embeddings made beforehand; expected text or batch",
        ),
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
        (SIGLIT | {"languages": ["en"]}, "languages: setup siglit reads the captions that were embedded"),
    ],
)
def test_bad_values_name_the_file_the_key_and_what_works(change, message):
    with pytest.raises(InputError, match=message) as error:
        spec(**change)
    assert str(error.value).startswith("spec.json: ")


@pytest.mark.parametrize("batch_size", [2, 3, 64, 127, 1000, 16_384])
def test_the_least_share_that_an_error_names_works(batch_size):
    sizes = {"batch_size": batch_size, "micro_batch": batch_size}
    for change in (
        {"negatives": "hard", "negatives_share": 1e-9},
        {"corruption": "batch", "corruption_probability": 1e-9},
    ):
        with pytest.raises(InputError, match="or more") as error:
            spec(**sizes, **change)
        least = float(str(error.value).split("expected ")[1].split()[0])
        share = list(change)[1]
        spec(**sizes, **change | {share: least})


def test_the_papers_smallest_ratio_of_negatives_is_allowed():
    spec(batch_size="16k", micro_batch="16k", negatives="hard", negatives_share=0.0001)  # 1:1.6


def test_a_field_that_has_its_default_leaves_the_id_as_it_is():
    """So that a field that is added later changes no older run's id."""
    written_out = spec(corruption="none", corruption_probability=0.0, languages=(), evaluate_at=(), beta2=0.95)
    assert written_out.run_id == spec().run_id
    assert spec(beta2=0.999).run_id != spec().run_id


def test_a_models_name_counts_as_long_as_its_content_is_not_known():
    assert spec(model="other").run_id != spec().run_id
    assert spec(model="other", model_fingerprint="x").run_id == spec(model_fingerprint="x").run_id


def test_labels_say_what_tells_runs_of_a_sweep_apart():
    assert labels([spec(), spec(loss="softmax"), spec(seed=1)]) == ["sigmoid 1k s0", "softmax 1k s0", "sigmoid 1k s1"]
    assert labels([spec(beta2=0.95), spec(beta2=0.999)]) == ["sigmoid 1k s0 0.95", "sigmoid 1k s0 0.999"]


def test_labels_leave_out_what_differs_with_loss_batch_size_or_seed_only():
    specs = [spec(init_logit_bias=-6.9), spec(batch_size=64, init_logit_bias=-4.1), spec(loss="softmax")]
    assert labels(specs) == ["sigmoid 1k s0", "sigmoid 64 s0", "softmax 1k s0"]


def test_labels_of_one_sweep_name_the_same_fields_in_the_same_order():
    specs = [
        spec(),
        spec(negatives="hard", negatives_share=0.25),
        spec(negatives="hard", negatives_share=0.25, examples_seen=131_072),
    ]
    assert labels(specs) == [
        "sigmoid 1k s0 all 1 65.5k",
        "sigmoid 1k s0 hard 0.25 65.5k",
        "sigmoid 1k s0 hard 0.25 131.1k",
    ]


def test_labels_name_the_last_part_of_a_place():
    assert (
        labels([spec(**SIGLIT | {"pretrained": f"/a/b/{name}.pt"}) for name in ("one", "two")])[0]
        == "sigmoid 1k s0 one.pt"
    )


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="'loss' is missing"):
        RunSpec.parse({k: v for k, v in VALUES.items() if k != "loss"}, "spec.json")
