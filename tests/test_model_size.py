"""A model's size is measured without its weights; ours come measured, others are kept in the cache."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from repro.config.errors import InputError
from repro.config.files import PACKAGE
from repro.models import build, sizes
from repro.models.model_config import fingerprint, read_config

OURS = sorted(file.stem for file in (PACKAGE / "models" / "configs").glob("*.json"))


@pytest.mark.parametrize("name", OURS)
def test_our_models_come_measured(name):
    """Where this fails a model has changed: repro.models.sizes.keep_ours() measures them again."""
    known = json.loads(sizes.OURS.read_text())
    assert known[fingerprint(name)] == asdict(sizes.measure(name))


def test_our_models_sizes_are_had_without_torch():
    code = "from repro.models.sizes import model_size; model_size('siglip-b16'); import sys; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laptop")
    build.export("laptop", folder)
    return build.load(folder)


def test_parameters_are_those_of_the_real_model(towers):
    assert sizes.model_size("laptop").parameters == sum(p.numel() for p in towers.model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_forward_pass_keeps_is_no_more_than_what_the_real_model_keeps(towers, precision):
    size, model = sizes.model_size("laptop"), towers.model
    share = 0.5 if precision == "bf16" else 1
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        images = sizes.kept_bytes(model, model.encode_image, torch.rand(8, 3, 32, 32))
        texts = sizes.kept_bytes(model, model.encode_text, torch.ones(8, 16, dtype=torch.long))
    assert 0.6 * images < 8 * share * size.image_kept_bytes <= images
    assert 0.6 * texts < 8 * share * size.text_kept_bytes <= texts


def test_flops_are_two_for_each_weight_and_token_and_attentions_own():
    size, width, layers, patches = sizes.model_size("siglip-s16-128"), 384, 12, 64
    weights = layers * 12 * width**2 + 3 * 16**2 * width
    attention = layers * 2 * 2 * (patches + 1) ** 2 * width
    assert size.image_flops == pytest.approx(2 * weights * patches + attention, rel=0.02)


def test_another_model_is_measured_once(cache, tmp_path, monkeypatch):
    config, _ = read_config("laptop")
    del config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(config))
    first = sizes.model_size(str(mine))
    assert first.parameters > sizes.model_size("laptop").parameters
    monkeypatch.setattr(sizes, "measure", lambda name: pytest.fail("measured again"))
    assert sizes.model_size(str(mine)) == first
    (cache / "models" / f"{fingerprint(str(mine))}.json").write_text('{"parameters": 1')
    monkeypatch.setattr(sizes, "measure", lambda name: first)
    assert sizes.model_size(str(mine)) == first


def test_an_unknown_model_gets_the_nearest_name():
    with pytest.raises(InputError, match="unknown model 'labtop'; the nearest is 'laptop'"):
        sizes.model_size("labtop")
