"""Initial weights as the authors draw them: every tensor's distribution, by its moments."""

import json
import math

import pytest
import torch

from repro.config.errors import InputError
from repro.models import build
from repro.models.initial import distributions, initialise
from repro.models.model_config import check_initial_weights, read_config

MIN_NUMBERS = 256
"""Fewer say little of a distribution."""


def towers(name: str) -> torch.nn.Module:
    """Our model by name, on no device, as open_clip makes it."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = read_config(name)[0]["model_cfg"]
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    with torch.device("meta"):
        return kind(**config, init_logit_bias=-10.0)


@pytest.mark.parametrize("name", ["siglip-b16", "siglip-b16-augreg", "siglip-s16-128", "msiglip-b16", "laptop"])
def test_every_tensor_of_our_towers_has_a_distribution(name):
    model = towers(name)
    rest = {n for n, _ in model.named_parameters()} - distributions(model).keys()
    assert rest == {"logit_scale", "logit_bias"}


def test_the_distributions_of_siglip_b16_are_the_authors():
    found = {name: str(chosen) for name, chosen in distributions(towers("siglip-b16")).items()}
    xavier, lecun = math.sqrt(1 / 768), math.sqrt(1 / 768)  # of 768 in and 768 out; of 768 and of 3 x 16 x 16 in
    wanted = {
        "visual.trunk.pos_embed": f"normal, std {1 / math.sqrt(768):.4g}",
        "visual.trunk.patch_embed.proj.weight": f"truncated, std {lecun:.4g}",
        "visual.trunk.patch_embed.proj.bias": "constant 0",
        "visual.trunk.blocks.0.attn.qkv.weight": f"uniform, std {xavier:.4g}",
        "visual.trunk.blocks.0.attn.qkv.bias": "constant 0",
        "visual.trunk.blocks.0.mlp.fc1.weight": f"uniform, std {math.sqrt(2 / (768 + 3072)):.4g}",
        "visual.trunk.blocks.0.mlp.fc1.bias": "normal, std 1e-06",
        "visual.trunk.attn_pool.latent": f"uniform, std {math.sqrt(2 / 769):.4g}",
        "visual.trunk.attn_pool.kv.weight": f"uniform, std {xavier:.4g}",
        "visual.trunk.norm.weight": "constant 1",
        "text.token_embedding.weight": f"normal, std {1 / math.sqrt(768):.4g}",
        "text.positional_embedding": f"normal, std {1 / math.sqrt(768):.4g}",
        "text.transformer.resblocks.0.attn.in_proj_weight": f"uniform, std {xavier:.4g}",
        "text.transformer.resblocks.0.mlp.c_proj.weight": f"uniform, std {math.sqrt(2 / (768 + 3072)):.4g}",
        "text.text_projection.weight": f"truncated, std {lecun:.4g}",
        "text.text_projection.bias": "constant 0",
    }
    assert {name: found[name] for name in wanted} == wanted


def small_siglip() -> torch.nn.Module:
    """A ViT of timm with attention pooling beside open_clip's text transformer, as siglip-b16, but small."""
    from open_clip.model import CustomTextCLIP

    config = read_config("siglip-b16")[0]["model_cfg"]
    vision = config["vision_cfg"] | {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map"}
    text = config["text_cfg"] | {"width": 192, "heads": 3, "layers": 2, "vocab_size": 500}
    return CustomTextCLIP(embed_dim=192, vision_cfg=vision, text_cfg=text)


def build_laptop() -> torch.nn.Module:
    from open_clip.model import CLIP

    return CLIP(**read_config("laptop")[0]["model_cfg"])


@pytest.mark.parametrize("make", [small_siglip, build_laptop], ids=["timm", "open_clip"])
def test_drawn_weights_have_the_moments_of_their_distributions(make):
    model = make()
    initialise(model, seed=0)
    for name, chosen in distributions(model).items():
        values = model.get_parameter(name).detach().double()
        count = values.numel()
        if chosen.kind == "constant":
            assert (values == chosen.mean).all(), name
        elif count >= MIN_NUMBERS:
            assert abs(values.mean()) < 5 * chosen.std / math.sqrt(count), name
            assert values.std() == pytest.approx(chosen.std, rel=5 / math.sqrt(2 * count)), name
            farthest = values.abs().max() / chosen.std
            bound = {"uniform": math.sqrt(3), "truncated": 2 / 0.8796}.get(chosen.kind, math.inf)
            assert farthest <= bound * (1 + 1e-6), name


def test_a_seed_gives_the_same_weights_and_another_others():
    first, again, other = build_laptop(), build_laptop(), build_laptop()
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        initialise(model, seed)
    assert torch.equal(first.text_projection, again.text_projection)
    assert not torch.equal(first.text_projection, other.text_projection)


def test_a_tower_that_the_authors_have_nothing_like_is_refused_by_tensor():
    model = torch.nn.Module()
    model.gamma = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(InputError, match=r"init authors: gamma \[3\].*init open_clip"):
        distributions(model)


def test_a_run_starts_from_them(tmp_path, make_spec):
    from repro.runs.directory import RunDirectory
    from repro.train.checkpoint import Checkpoints
    from repro.train.trainer import Trainer

    directory = RunDirectory(tmp_path / "run")
    trainer = Trainer(make_spec(init="authors"), directory, torch.device("cpu"), Checkpoints(directory.checkpoints))
    expected = build.load(directory.checkpoints).model
    initialise(expected, 0)
    assert torch.equal(trainer.model.visual.proj, expected.visual.proj)
    assert not trainer.model.visual.class_embedding.any()
    groups = {
        name: group["decay"]
        for group in json.loads(directory.optimizer_file.read_text())
        for name in group["parameters"]
    }
    assert groups["visual.proj"] > 0 and groups["token_embedding.weight"] == 0


def test_the_optimizer_groups_of_siglip_b16_by_tensor():
    from repro.config.sweep import Overrides, expand, load_sweep
    from repro.train.optim import describe_groups

    spec = expand(load_sweep("batch-size"), "paper", Overrides({}, {"data": "any"}))[0]
    assert (spec.model, spec.decay_on, spec.optimizer) == ("siglip-b16", "kernels", "adafactor")
    decayed, kept = describe_groups(towers("siglip-b16"), spec)
    assert (decayed["decay"], kept["decay"]) == (1e-4, 0)
    image = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    text = ["attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"]
    pool = ["q", "kv", "proj", "mlp.fc1", "mlp.fc2"]
    kernels = ["visual.trunk.patch_embed.proj.weight", "text.text_projection.weight"]
    kernels += [f"visual.trunk.blocks.{block}.{layer}.weight" for block in range(12) for layer in image]
    kernels += [f"visual.trunk.attn_pool.{layer}.weight" for layer in pool]
    kernels += [f"text.transformer.resblocks.{block}.{tensor}" for block in range(12) for tensor in text]
    assert sorted(decayed["parameters"]) == sorted(kernels)
    tables = {"text.token_embedding.weight", "text.positional_embedding", "visual.trunk.pos_embed"}
    assert tables | {"visual.trunk.attn_pool.latent", "logit_scale", "logit_bias"} <= set(kept["parameters"])
    every = {name for name, _ in towers("siglip-b16").named_parameters()}
    assert every == {*decayed["parameters"], *kept["parameters"]}


def test_a_text_tower_of_the_hub_is_refused_before_a_launch():
    with pytest.raises(InputError, match=r"init authors: the text tower of model .* is xlm-roberta-base of the hub"):
        check_initial_weights("xlm-roberta-base-ViT-B-32")
