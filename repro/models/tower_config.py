"""Model configs for towers that go by a name alone: open_clip's with a tag, timm's, with their own preprocessing."""

from pathlib import Path
from typing import Any

from repro.config.errors import InputError, nearest
from repro.config.files import write_json
from repro.models import pretrained as weights
from repro.models.model_config import read_config


def config_for(model: str, pretrained: str, folder: Path) -> str:
    """A model that `embed` can take, for a name of open_clip's or timm's: its config, with the preprocessing that its
    weights were trained with, is written into the folder. Others are returned as they are. Raises InputError.
    """
    if model.startswith("timm:"):
        config = _timm_config(model.removeprefix("timm:"))
    else:
        config, own_folder = read_config(model)
        if own_folder != Path():  # ours, or the person's own: it says itself how images are prepared
            return model
        config["preprocess_cfg"] |= _preprocessing(pretrained, model)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.json"
    write_json(file, config)
    return str(file)


def _preprocessing(pretrained: str, model: str) -> dict[str, Any]:
    """Mean and standard deviation (and more, where it says so) of a tag's weights."""
    import open_clip

    place = weights.resolve(pretrained, model)
    name, _, tag = place.partition("/")
    found = open_clip.get_pretrained_cfg(name, tag) if name and tag else {}
    return {key: found[key] for key in ("mean", "std", "interpolation", "resize_mode") if found.get(key)}


def _timm_config(name: str) -> dict[str, Any]:
    """A config with timm's tower under its own preprocessing, and the paper's text tower beside it."""
    import timm
    import torch

    if not timm.is_model(name.split(".")[0]):
        raise InputError(
            f"--model timm:{name}: timm has no such model{nearest(name, timm.list_models(pretrained=True))}"
        )
    with torch.device("meta"):
        tower = timm.create_model(name, num_classes=0)
    prepared = tower.pretrained_cfg
    vision = {
        "image_size": prepared["input_size"][-1],
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool if isinstance(pool := getattr(tower, "global_pool", ""), str) and pool else "avg",
        "timm_proj": "none",
    }
    config = read_config("siglip-b16")[0]
    config["model_cfg"] |= {"embed_dim": tower.num_features, "vision_cfg": vision}
    config["preprocess_cfg"] |= {key: list(prepared[key]) for key in ("mean", "std")}
    return config
