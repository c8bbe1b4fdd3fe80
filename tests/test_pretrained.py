"""Weights of a pretrained image tower: from a run of ours, known by content, refused by the tensor that is wrong."""

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch

from repro.config.errors import InputError
from repro.models import build, laptop_tower
from repro.models.model_config import CONFIG_NAME
from repro.models.pretrained import fingerprint, image_tower_weights, load_image_tower, resolve


def test_the_image_tower_of_a_run_goes_into_a_model(tower, tmp_path):
    build.export("laptop", tmp_path)
    torch.manual_seed(0)
    towers = build.load(tmp_path).model
    text_before = {name: value.clone() for name, value in towers.state_dict().items() if "visual." not in name}
    load_image_tower(towers, "laptop", str(tower))
    weights = torch.load(tower / "final.pt", weights_only=True)
    for name, value in towers.state_dict().items():
        assert torch.equal(value, weights[name] if name.startswith("visual.") else text_before[name]), name


def test_weights_are_the_same_by_run_by_folder_and_by_file_and_are_known_by_their_content(tower, tmp_path):
    file = tower / "final.pt"
    names = {fingerprint(str(place), "laptop") for place in (tower.parent, tower, file)}
    assert len(names) == 1
    state = torch.load(file, weights_only=True)
    state["visual.proj"] += 1
    torch.save(state, tmp_path / "other.pt")
    assert fingerprint(str(tmp_path / "other.pt"), "laptop") not in names


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tower, tmp_path):
    config = json.loads((tower / CONFIG_NAME).read_text())
    config["model_cfg"]["embed_dim"] = 48
    (tmp_path / "narrow.json").write_text(json.dumps(config))
    build.export(str(tmp_path / "narrow.json"), tmp_path / "narrow")
    towers = build.load(tmp_path / "narrow").model
    with pytest.raises(InputError, match=r"tensor proj is \[64, 64\] in the weights, expected \[64, 48\]"):
        load_image_tower(towers, str(tmp_path / "narrow.json"), str(tower))


def test_a_tower_whose_config_differs_where_no_shape_shows_it_is_refused(tower, tmp_path):
    config = json.loads((tower / CONFIG_NAME).read_text())
    config["model_cfg"]["vision_cfg"]["head_width"] = 16
    (tmp_path / "heads.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="head_width is 32 in the config of these weights, and 16 in vision_cfg"):
        image_tower_weights(str(tmp_path / "heads.json"), str(tower))


def test_a_missing_tensor_is_named_and_a_new_projection_may_be_allowed(tower, tmp_path):
    state = torch.load(tower / "final.pt", weights_only=True)
    del state["visual.proj"]
    torch.save(state, tmp_path / "headless.pt")
    towers = build.load(tower).model
    with pytest.raises(InputError, match=r"tensor proj \[64, 64\] is not among the weights"):
        load_image_tower(towers, "laptop", str(tmp_path / "headless.pt"))
    load_image_tower(towers, "laptop", str(tmp_path / "headless.pt"), may_lack=("proj",))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none/final.pt", "none/final.pt: no such file or folder; there is no folder none either"),
        ("evil.pt", "not a file of weights; nothing in it was run"),
        ("text.pt", r"holds no image tower: expected tensors named visual\."),
        ("empty", "no weights in this folder; expected one of empty/final.pt"),
        ("finel.pt", "no such file or folder; the nearest is 'evil.pt'"),
        ("laptop-towr", "neither a file nor a folder, nor a tag of open_clip's; the nearest is 'laptop-tower'"),
        ("ViT-B-32/openay", "open_clip has no such weights of ViT-B-32; the nearest is 'openai'"),
        ("timm", "the image tower of model laptop is not timm's"),
        ("ViT-B-32/openai", "image_size is 224 in the config of these weights, and 32 in vision_cfg of model laptop"),
    ],
)
def test_what_is_no_place_of_weights_is_answered_with_what_would_work(tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"positional_embedding": torch.zeros(2)}, tmp_path / "text.pt")
    with pytest.raises(InputError, match=message):
        image_tower_weights("laptop", place)
    assert not (tmp_path / "evil-was-here").exists()


def test_timms_weights_without_a_network_say_what_they_need():
    with pytest.raises(InputError, match=r"pretrained timm \(vit_base_patch16_siglip_224\): .*expected a network"):
        image_tower_weights("siglip-b16", "timm")


def test_names_have_fingerprints_without_a_network():
    names = [fingerprint(tag, "ViT-B-32") for tag in ("openai", "laion2b_e16", "ViT-B-32/openai")]
    assert names[0] == names[2] != names[1]
    assert resolve("openai", "ViT-B-32") == "ViT-B-32/openai"
    assert fingerprint("timm", "siglip-b16") != fingerprint("laptop-tower", "laptop")


MAKE = "from repro.models.laptop_tower import *; print(make_laptop_tower())"


def test_the_laptop_tower_is_trained_once_even_by_two_at_once_and_inside_a_rank(tmp_path, world, monkeypatch):
    """A small one: its own world, 512 examples."""
    monkeypatch.setattr(laptop_tower, "DATA", "shapes:512:seed=1")
    monkeypatch.setattr(laptop_tower, "EXAMPLES", 256)
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    small = f"import repro.models.laptop_tower as t; t.DATA, t.EXAMPLES = 'shapes:512:seed=1', 256; {MAKE}"
    rank = os.environ | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    both = [subprocess.Popen([sys.executable, "-c", small], stdout=subprocess.PIPE, env=rank) for _ in range(2)]
    said = {process.communicate()[0].decode().strip() for process in both}
    assert said == {str(laptop_tower.laptop_tower_file())}
    assert {path.name for path in (tmp_path / "cache" / "towers").iterdir()} == {laptop_tower.laptop_tower_name()}
    state = image_tower_weights("laptop", "laptop-tower")
    assert state.keys() == image_tower_weights("laptop", str(laptop_tower.laptop_tower_file())).keys()
    assert fingerprint("laptop-tower", "laptop") == laptop_tower.laptop_tower_name()
