"""Models come by name or by file, as an open_clip local-dir; mistakes are answered with the nearest."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from repro.config.errors import InputError
from repro.config.files import PACKAGE
from repro.models import build
from repro.models.model_config import fingerprint, read_config


def test_our_small_tokenizer_is_the_head_of_clips():
    """bpe-8192.txt.gz holds the first 8,192 merges of the vocabulary that open_clip ships."""
    import gzip

    from open_clip.tokenizer import default_bpe

    ours = gzip.decompress((PACKAGE / "models" / "configs" / "bpe-8192.txt.gz").read_bytes()).decode().split("\n")
    clips = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    assert ours == clips[: 1 + 8192]


def test_resize_then_normalize_is_open_clips_transform(tmp_path):
    build.export("laptop", tmp_path)
    towers = build.load(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    pixels = torch.from_numpy(np.array(towers.resize(image))).permute(2, 0, 1)
    torch.testing.assert_close(towers.normalize(pixels[None])[0], towers.transform(image), rtol=0, atol=1e-6)


def test_towers_convolve_float32_as_float32(tmp_path, monkeypatch):
    """What only a GPU shows (tests/gpu): cuDNN cuts factors to 10 bits unless it is told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    build.export("laptop", tmp_path)
    build.load(tmp_path)
    assert not torch.backends.cudnn.allow_tf32


def test_temperature_and_bias_start_where_the_spec_says(tmp_path):
    build.export("laptop", tmp_path, init_logit_scale=1.5, init_logit_bias=-7.0)
    model = build.load(tmp_path).model
    assert (model.logit_scale.item(), model.logit_bias.item()) == (1.5, -7.0)


def test_without_a_bias_the_model_has_none(tmp_path):
    build.export("laptop", tmp_path)
    assert build.load(tmp_path).model.logit_bias is None


def test_an_own_config_is_read_and_its_content_is_its_fingerprint(tmp_path):
    config, _ = read_config("laptop")
    del config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]
    config["model_cfg"]["text_cfg"]["vocab_size"] = 49408
    (tmp_path / "mine.json").write_text(json.dumps(config["model_cfg"]))
    (tmp_path / "same.json").write_text(json.dumps(config["model_cfg"]))
    assert fingerprint(str(tmp_path / "mine.json")) == fingerprint(str(tmp_path / "same.json"))
    assert fingerprint(str(tmp_path / "mine.json")) != fingerprint("laptop")
    build.export(str(tmp_path / "mine.json"), tmp_path / "folder")
    assert build.load(tmp_path / "folder").tokenize(["a cat"]).shape == (1, 16)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_open_clips_configs_are_its_own(name):
    assert read_config(name)[0]["model_cfg"] == open_clip.get_model_config(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("labtop", "unknown model 'labtop'; the nearest is 'laptop'"),
        ("ViT-B-16-SigLP", "the nearest is 'ViT-B-16-SigLIP'"),
        ("no.json", "no.json: cannot be read"),
    ],
)
def test_a_model_that_is_not_there_is_answered_with_the_nearest(name, message):
    with pytest.raises(InputError, match=message):
        read_config(name)


def test_a_config_that_is_none_names_the_missing_key(tmp_path):
    (tmp_path / "x.json").write_text('{"embed_dim": 3}')
    with pytest.raises(InputError, match="'vision_cfg' is missing"):
        read_config(str(tmp_path / "x.json"))


def test_a_hub_tokenizer_that_cannot_be_had_is_an_error_with_its_name(tmp_path):
    with pytest.raises(InputError, match="tokenizer 'timm/ViT-B-16-SigLIP' could not be downloaded"):
        build.export("siglip-b16", tmp_path)
