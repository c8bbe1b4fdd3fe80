"""Where the weights of a pretrained image tower come from, what identifies them, and how they get into a model.

A place is one of
- a folder or file of ours or of open_clip's form: a run, its checkpoints, final.pt, any .pt, .bin or .safetensors;
- `timm`: the weights that timm has for the model config's timm_model_name;
- an open_clip tag, of the model itself (`openai`) or of one with the same image tower (`ViT-g-14/laion2b_s12b_b42k`);
- `laptop-tower`: a small tower that is trained here first, once, and kept in the cache (see laptop_tower.py).

Nothing in a file is run: weights are read with weights_only, or by open_clip's and timm's own loaders.
"""

import functools
import hashlib
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config.errors import InputError, nearest
from repro.config.files import CorruptRun, read_object
from repro.config.spec import RunSpec
from repro.data.network import check_on_hub, weights_from_hub
from repro.data.shards import Progress
from repro.models.laptop_tower import LAPTOP_TOWER, laptop_tower_file, laptop_tower_name, make_laptop_tower
from repro.models.model_config import CONFIG_NAME, read_config

if TYPE_CHECKING:
    import torch

TIMM = "timm"
IN_A_FOLDER = (
    "final.pt",
    "checkpoints/final.pt",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "checkpoints/open_clip_pytorch_model.bin",
)
"""Where the weights lie in a folder that is named."""
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
VISUAL = "visual."
"""Name of the image tower in open_clip's models."""
TOWER_KEYS = ("image_size", "patch_size", "layers", "width", "head_width", "mlp_ratio", "pool_type", "timm_model_name")
"""Keys of vision_cfg on which two configs of a tower agree. Heads, for one, do not show in the shapes of weights."""


def resolve(pretrained: str, model: str) -> str:
    """The place in full: an absolute file, 'timm', 'MODEL/TAG', or 'laptop-tower'. Nothing is made or fetched.

    Raises InputError, with what would work, for a place where there is nothing.
    """
    if not pretrained:
        raise InputError(f"pretrained is empty; expected a checkpoint, {TIMM}, {LAPTOP_TOWER} or a tag of open_clip's")
    if pretrained == LAPTOP_TOWER:
        return pretrained
    if pretrained == TIMM:
        _timm_name(model)
        return pretrained
    path = Path(pretrained).expanduser()
    if path.is_file():
        return str(path.resolve())
    if path.is_dir():
        found = next((path / name for name in IN_A_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise InputError(f"pretrained {pretrained}: no weights in this folder; expected one of {_listed(path)}")
        return str(found.absolute())
    if path.suffix in SUFFIXES or pretrained.startswith(("/", ".", "~")):
        raise InputError(f"pretrained {pretrained}: no such file or folder{_beside(path)}")
    return _tag(pretrained, model)


def is_path(pretrained: str) -> bool:
    """Whether a place is a file or a folder that is there, rather than a name."""
    return bool(pretrained) and pretrained not in (TIMM, LAPTOP_TOWER) and Path(pretrained).expanduser().exists()


def fingerprint(pretrained: str, model: str) -> str:
    """Identify the weights: by a file's content, or a name and where its maker keeps it. Raises InputError."""
    place = resolve(pretrained, model)
    if place == LAPTOP_TOWER:
        return laptop_tower_name()
    if place == TIMM:
        name = _timm_name(model)
        return _digest(f"timm {name}")
    if place.startswith("/"):
        stat = Path(place).stat()
        return _file_digest(place, stat.st_size, stat.st_mtime_ns)
    import open_clip

    name, tag = place.split("/", 1)
    where = open_clip.get_pretrained_cfg(name, tag)
    return _digest(f"open_clip {name} {tag} {where.get('hf_hub', '')} {where.get('url', '')}")


def check_unchanged(spec: RunSpec) -> None:
    """Raises InputError where the weights are no longer those that the spec was made for."""
    if not spec.pretrained or not spec.pretrained_fingerprint:
        return
    found = fingerprint(spec.pretrained, spec.model)
    if found != spec.pretrained_fingerprint:
        raise InputError(
            f"pretrained {spec.pretrained}: not the weights that the run was made with (fingerprint {found}, expected "
            f"{spec.pretrained_fingerprint}); type the sweep again, and other weights make other runs"
        )


def tower_identity(model: str, pretrained: str, precision: str) -> dict[str, str]:
    """Everything that decides an image tower's output, with its fingerprint. Raises InputError."""
    config = read_config(model)[0]
    model_cfg, weights = config["model_cfg"], fingerprint(pretrained, model)
    vision = {key: value for key, value in model_cfg["vision_cfg"].items() if key != "timm_model_pretrained"}
    parts = [vision, model_cfg["embed_dim"], model_cfg.get("quick_gelu", False), config.get("preprocess_cfg")]
    return {
        "model": model,
        "pretrained": pretrained,
        "pretrained_fingerprint": weights,
        "precision": precision,
        "tower_fingerprint": _digest(json.dumps([parts, weights, precision], sort_keys=True)),
    }


def check_obtainable(pretrained: str, model: str) -> None:
    """Raises InputError for weights that are neither on this machine nor to be reached. Nothing is made or fetched."""
    place = resolve(pretrained, model)
    if place == LAPTOP_TOWER or place.startswith("/"):
        return
    if place == TIMM:
        import timm

        where = timm.get_pretrained_cfg(_timm_name(model)).to_dict()
        repository, url = where.get("hf_hub_id"), where.get("url")
        files = ("model.safetensors", "pytorch_model.bin")
    else:
        import open_clip

        where = open_clip.get_pretrained_cfg(*place.split("/", 1))
        (repository, _, file), url = where.get("hf_hub", "").rpartition("/"), where.get("url")
        files = (file,) if file else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    if repository:
        check_on_hub(f"pretrained {pretrained}: weights '{repository}'", repository, files)
    elif url and not (Path.home() / ".cache" / "clip" / url.rpartition("/")[2]).is_file():
        weights_from_hub(f"{pretrained} ({url})", lambda: _head(url))


def _head(url: str) -> None:
    import requests

    requests.head(url, timeout=30, allow_redirects=True).raise_for_status()


def prepare(pretrained: str, processes: int = 1, progress: Progress | None = None) -> None:
    """Train the laptop tower, where that is the place and the cache has none yet."""
    if pretrained == LAPTOP_TOWER:
        make_laptop_tower(processes, progress)


def image_tower_weights(model: str, pretrained: str) -> "dict[str, torch.Tensor]":
    """The state of `model`.visual, in fp32, on the CPU; made or fetched where it must be. Raises InputError."""
    place = resolve(pretrained, model)
    if place == TIMM:
        state = _from_timm(model)
    elif place == LAPTOP_TOWER:
        make_laptop_tower()
        state = _from_file(laptop_tower_file(), model)
    elif place.startswith("/"):
        state = _from_file(Path(place), model)
    else:
        state = _from_open_clip(*place.split("/", 1), model)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def load_image_tower(towers: "torch.nn.Module", model: str, pretrained: str, may_lack: tuple[str, ...] = ()) -> None:
    """Put the weights of a place into `towers`.visual, a model of the config `model`.

    may_lack: prefixes of tensors that may keep their initial values, such as a projection that is new. Raises
    InputError where a tensor is missing, unknown, or of another shape.
    """
    weights, own = image_tower_weights(model, pretrained), towers.visual.state_dict()
    where = f"pretrained {pretrained}: the image tower of model {model}"
    for name, value in own.items():
        if name not in weights and not name.startswith(may_lack or ("\0",)):
            raise InputError(f"{where}: tensor {name} {_shape(value)} is not among the weights")
        if name in weights and weights[name].shape != value.shape:
            raise InputError(
                f"{where}: tensor {name} is {_shape(weights[name])} in the weights, expected {_shape(value)}"
            )
    if unknown := sorted(weights.keys() - own.keys()):
        raise InputError(f"{where}: has no tensor {unknown[0]} {_shape(weights[unknown[0]])}, which the weights hold")
    towers.visual.load_state_dict(weights, strict=False)


def _shape(tensor: "torch.Tensor") -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def _from_file(file: Path, model: str) -> "dict[str, torch.Tensor]":
    import torch

    _check_same_tower(_config_beside(file), model, str(file))
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an unpickler meets in a file that is no checkpoint
        if isinstance(error, MemoryError):
            raise
        kind = "" if isinstance(error, pickle.UnpicklingError) else f" ({type(error).__name__})"
        raise InputError(f"pretrained {file}: not a file of weights{kind}; nothing in it was run") from None
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    names = [name for name in state if isinstance(name, str)] if isinstance(state, dict) else []
    prefix = next((p for p in (VISUAL, f"module.{VISUAL}") if any(name.startswith(p) for name in names)), None)
    if prefix is None:
        raise InputError(f"pretrained {file}: holds no image tower: expected tensors named {VISUAL}…")
    return {name.removeprefix(prefix): state[name] for name in names if name.startswith(prefix)}


def _config_beside(file: Path) -> dict[str, Any] | None:
    try:
        return read_object(file.parent / CONFIG_NAME).get("model_cfg")
    except CorruptRun:
        return None


def _from_open_clip(name: str, tag: str, model: str) -> "dict[str, torch.Tensor]":
    import open_clip

    _check_same_tower(open_clip.get_model_config(name), model, f"{name}/{tag}")

    def create() -> "torch.nn.Module":
        return open_clip.create_model(name, pretrained=tag, precision="fp32", device="cpu", weights_only=True)

    return weights_from_hub(f"{name}/{tag}", create).visual.state_dict()


def _from_timm(model: str) -> "dict[str, torch.Tensor]":
    """Only timm's own part of the tower; a projection behind it has no weights there."""
    from open_clip.timm_model import TimmModel

    name = _timm_name(model)
    config = read_config(model)[0]["model_cfg"]
    vision = config["vision_cfg"]

    def create() -> "torch.nn.Module":
        return TimmModel(
            vision["timm_model_name"],
            embed_dim=config["embed_dim"],
            image_size=vision["image_size"],
            pool=vision.get("timm_pool", ""),
            proj=vision.get("timm_proj", "linear"),
            pretrained=True,
        )

    tower = weights_from_hub(f"{TIMM} ({name})", create)
    return {key: value for key, value in tower.state_dict().items() if key.startswith("trunk.")}


def _check_same_tower(found: dict[str, Any] | None, model: str, place: str) -> None:
    """Raises InputError where the weights' own config and the model's describe different image towers."""
    if found is None:
        return
    theirs, ours = (config.get("vision_cfg", {}) for config in (found, read_config(model)[0]["model_cfg"]))
    for key in TOWER_KEYS:
        if theirs.get(key) != ours.get(key):
            raise InputError(
                f"pretrained {place}: {key} is {theirs.get(key)} in the config of these weights, and {ours.get(key)} "
                f"in vision_cfg of model {model}; expected the same image tower"
            )


def _timm_name(model: str) -> str:
    vision = read_config(model)[0]["model_cfg"]["vision_cfg"]
    if "timm_model_name" not in vision:
        raise InputError(
            f"pretrained {TIMM}: the image tower of model {model} is not timm's (no timm_model_name in its "
            f"vision_cfg); expected a checkpoint, {LAPTOP_TOWER} or a tag of open_clip's"
        )
    return vision["timm_model_name"]


def _tag(pretrained: str, model: str) -> str:
    """'MODEL/TAG'. Raises InputError."""
    import open_clip

    name, _, tag = pretrained.rpartition("/")
    name = name or model
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag in tags:
        return f"{name}/{tag}"
    if tags:
        raise InputError(f"pretrained {pretrained}: open_clip has no such weights of {name}{nearest(tag, tags)}")
    known = [LAPTOP_TOWER, TIMM]
    raise InputError(
        f"pretrained {pretrained}: neither a file nor a folder, nor a tag of open_clip's{nearest(pretrained, known)}; "
        "open_clip's weights for another model's tower are named such as ViT-g-14/laion2b_s12b_b42k"
    )


def _listed(path: Path) -> str:
    return ", ".join(str(path / name) for name in IN_A_FOLDER[:3])


def _beside(path: Path) -> str:
    """Suggest what to try instead of a file that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder} either"
    return nearest(path.name, [each.name for each in folder.iterdir() if each.suffix in SUFFIXES or each.is_dir()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _file_digest(file: str, size: int, time: int) -> str:
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"pretrained {file}: cannot be read ({error.strerror})") from None
