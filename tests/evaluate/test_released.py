"""Weights that are evaluated and not trained: public ones by open_clip's names, checkpoints of ours by their place."""

import json
import re
from collections import Counter

import open_clip
import pytest
import torch
from PIL import Image

from repro import results
from repro.config.cluster import Layout
from repro.config.errors import InputError
from repro.config.sweep import Overrides, expand, load_sweep
from repro.estimate import least_bytes
from repro.evaluate import evaluate_checkpoint
from repro.launch.complete import complete
from repro.models import build
from repro.models.sizes import ModelSize
from repro.runs.directory import RunDirectory
from repro.runs.execute import evaluate_again, run
from repro.train.checkpoint import Checkpoints
from repro.train.loop import Options
from tests.drill.conftest import eval_folder
from tests.evaluate.test_evaluate import stock_command
from tests.test_preprocessing import t5_like_tokenizer


@pytest.fixture
def checkpoint(tmp_path):
    """final.pt of a run of ours, in its checkpoints folder."""
    folder = tmp_path / "checkpoints"
    build.export("laptop", folder, init_logit_bias=-10)
    torch.manual_seed(0)
    Checkpoints(folder).save_final(build.load(folder).model.state_dict(), {})
    return folder / "final.pt"


@pytest.fixture
def small(tmp_path) -> str:
    return str(eval_folder(tmp_path / "wds_small"))


def released(**values):
    (spec,) = complete(expand(load_sweep("released"), "laptop", Overrides({}, values)))
    return spec


def maker(model: str, tag: str) -> str:
    names = {"SigLIP": "SigLIP", "EVA": "EVA-CLIP", "CLIPA": "CLIPA-v2"}
    return next((name for part, name in names.items() if part in model), "CLIP" if tag == "openai" else "OpenCLIP")


def patches(model: str) -> int:
    vision = open_clip.get_model_config(model)["vision_cfg"]
    patch = vision.get("patch_size") or int(re.search(r"patch(\d+)", vision["timm_model_name"])[1])
    return (vision["image_size"] // patch) ** 2


def test_every_public_checkpoint_is_one_of_open_clips_and_together_they_are_the_published_table():
    cases = {scale: load_sweep("released").scales[scale].cases for scale in ("gpu", "paper")}
    assert all(case in cases["paper"] for case in cases["gpu"])
    for case in cases["paper"]:
        assert (case["model"], case["pretrained"]) in open_clip.list_pretrained()
    table = results.published().query("source == 'table-3'").drop_duplicates(["model", "image_tower", "patches"])
    published = Counter(zip(table["model"], table["patches"].astype(int), table["loss"], strict=True))
    ours = [(maker(c["model"], c["pretrained"]), patches(c["model"]), c["loss"]) for c in cases["paper"]]
    assert Counter(ours) == published


def test_a_checkpoint_of_ours_is_a_row_with_its_metrics_and_no_training(checkpoint, small, tmp_path):
    spec = released(pretrained=str(checkpoint.parent), evals=(small,))
    assert (spec.examples_seen, spec.steps, len(spec.pretrained_fingerprint)) == (0, 0, 16)
    directory = RunDirectory(tmp_path / "runs" / "released" / spec.run_id)
    result = run(spec, directory, Options())
    assert result["status"] == "finished"
    assert str(result["metrics"]) == str(evaluate_checkpoint(checkpoint, [small]))
    row = results.row(directory)
    assert (row["status"], row["batch_size"], row["examples_seen"]) == ("finished", 128, 0)
    assert str(run(spec, directory, Options())["metrics"]) == str(result["metrics"])
    assert str(evaluate_again(directory)["metrics"]) == str(result["metrics"])


def test_public_weights_are_loaded_by_name_as_the_stock_command_loads_them(small, tmp_path, monkeypatch):
    asked = []
    real = open_clip.create_model_and_transforms

    def without_its_weights(name, pretrained, **options):
        asked.append((name, pretrained))
        return real(name, pretrained=None, **options)

    monkeypatch.setattr(open_clip, "create_model_and_transforms", without_its_weights)
    spec = released(model="RN50", pretrained="openai", evals=(small,))
    directory = RunDirectory(tmp_path / "runs" / "released" / spec.run_id)
    assert run(spec, directory, Options())["status"] == "finished"
    assert asked == [("RN50", "openai")]
    written = json.loads((directory.evals / "wds_small.json").read_text())
    assert (written["model"], written["pretrained"]) == ("RN50", "openai")
    assert not directory.final.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": "ViT-B-16-SigLIP", "pretrained": "webly"},
            "no such weights of ViT-B-16-SigLIP; the nearest is 'webli'",
        ),
        ({"pretrained": "no/such/final.pt"}, "no such file or folder"),
        ({"model": "siglip-b16-augreg", "pretrained": "timm"}, "an image tower alone"),
        ({"pretrained": "RN50/openai"}, "the weights of another model; expected model RN50"),
        ({"pretrained": ""}, "pretrained is empty"),
        ({"examples_seen": 1000}, "setup released trains nothing"),
    ],
)
def test_weights_that_cannot_be_evaluated_are_refused_before_anything_starts(values, message):
    with pytest.raises(InputError, match=message):
        released(**values)


def test_only_the_weights_count_as_memory():
    size = ModelSize(*[10**9] * len(ModelSize.__dataclass_fields__))
    assert least_bytes(released(), Layout(1, 1), size, on_gpu=True) == 4 * 10**9


FAMILIES = {
    "SigLIP": ("squash", "bicubic", 64, {"clean": "canonicalize"}),
    "CLIP": ("shortest", "bicubic", 77, None),
    "OpenCLIP": ("shortest", "bicubic", 77, None),
    "EVA-CLIP": ("shortest", "bicubic", 77, None),
    "CLIPA-v2": ("squash", "bilinear", 32, {"strip_sep_token": True}),
}
"""As the table of docs/fidelity.md: resizing, interpolation, tokens, and how text is cleaned."""


def test_released_weights_are_prepared_for_as_the_table_in_the_docs_says():
    for case in load_sweep("released").scales["paper"].cases:
        config = open_clip.get_pretrained_cfg(case["model"], case["pretrained"])
        text = open_clip.get_model_config(case["model"])["text_cfg"]
        found = config["resize_mode"], config["interpolation"], text.get("context_length", 77)
        assert (*found, text.get("tokenizer_kwargs")) == FAMILIES[maker(case["model"], case["pretrained"])], case


def siglip_in_small(folder, tokenizer) -> str:
    """open_clip's config of SigLIP B/16 as a file, with smaller towers: attention pooling, no mask, 64 tokens, b."""
    config = open_clip.get_model_config("ViT-B-16-SigLIP")
    vision = config["vision_cfg"] | {"timm_model_name": "vit_tiny_patch16_224"}
    text = config["text_cfg"] | {"width": 192, "heads": 3, "layers": 1, "vocab_size": 64}
    text |= {"hf_tokenizer_name": str(tokenizer)}
    config |= {"embed_dim": 192, "vision_cfg": vision, "text_cfg": text}
    prepared = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    file = folder / "siglip-small.json"
    file.write_text(json.dumps({"model_cfg": config, "preprocess_cfg": prepared}))
    return str(file)


def test_weights_with_siglips_config_have_the_stock_commands_numbers(tmp_path, small):
    words = ["a", "photo", "of", "the", "small", "large", "red", "green", "blue", "square", "circle"]
    folder, tokenizer = tmp_path / "checkpoints", t5_like_tokenizer(tmp_path / "tokenizer", words)
    build.export(siglip_in_small(tmp_path, tokenizer), folder, init_logit_bias=-10)
    torch.manual_seed(0)
    Checkpoints(folder).save_final(build.load(folder).model.state_dict(), {})
    theirs = stock_command(folder, small, tmp_path / "theirs.json", "--num_workers", "1")
    expected = {f"wds_small/{key}": value for key, value in theirs.items()}
    assert evaluate_checkpoint(folder, [small]) == pytest.approx(expected, abs=0, nan_ok=True)  # acc5
    towers = build.load(folder)
    _, _, stock = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    image = Image.effect_noise((300, 200), 80)
    assert torch.equal(stock(image), towers.transform(image)) and stock(image).shape == (3, 224, 224)
    assert towers.tokenize(["A  red, SQUARE."]).shape == (1, 64)
    assert torch.equal(towers.tokenize(["A  red, SQUARE."]), towers.tokenize(["a red square"]))
