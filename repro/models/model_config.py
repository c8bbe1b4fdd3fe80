"""Model configs by name or file: open_clip's, ours (repro/models/configs/*.json), or the person's own JSON.

Reading ours and open_clip's takes no torch, so that the command line answers at once.
"""

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from repro.config.errors import InputError, nearest
from repro.config.files import PACKAGE

OPEN_CLIPS_WIDTH = 512
"""Context length of a text tower whose config names none."""
LOWER_CASED = "lower-cased"
"""In a config of ours, `captions`: what happens to a text before it is tokenized, in training and retrieval."""
CONFIG_NAME = "open_clip_config.json"
"""In an open_clip local-dir: its model config."""


def read_config(name: str) -> tuple[dict[str, Any], Path]:
    """{'model_cfg', 'preprocess_cfg'} by name or JSON file, and the folder that its file names are relative to.

    Raises InputError with the nearest known name.
    """
    own = {file.stem: file for file in (PACKAGE / "models" / "configs").glob("*.json")}
    file = Path(name) if name.endswith(".json") else own.get(name)
    if file is not None:
        try:
            config = json.loads(file.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"model {name}: cannot be read: {error}") from None
        config = config if isinstance(config, dict) and "model_cfg" in config else {"model_cfg": config}
        _check_config(config["model_cfg"], f"model {name}")
        return config, file.parent
    config = _from_open_clips_folder(name)
    if config is None:
        import open_clip

        config = open_clip.get_model_config(name)  # hf-hub: and local-dir: names
    if config is None:
        raise InputError(f"unknown model '{name}'{nearest(name, [*own, *open_clip.list_models()])}")
    # No pretrained weights means no preprocessing of theirs: the paper's (images resized only, to [-1, 1]).
    mean_and_std = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    return {"model_cfg": config, "preprocess_cfg": mean_and_std}, Path()


def is_at_hand(name: str) -> bool:
    """Whether read_config gives it without importing open_clip or asking a hub: ours, open_clip's, or a file."""
    file = Path(name) if name.endswith(".json") else PACKAGE / "models" / "configs" / f"{name}.json"
    return file.is_file() or _from_open_clips_folder(name) is not None


def _check_config(model_cfg: Any, where: str) -> None:
    """Raises InputError for what is no open_clip model config."""
    if not isinstance(model_cfg, dict):
        kind = type(model_cfg).__name__
        raise InputError(f"{where}: expected an open_clip model config of keys and values, found {kind}")
    for key, kind in (("embed_dim", int), ("vision_cfg", dict), ("text_cfg", dict)):
        if key not in model_cfg:
            raise InputError(f"{where}: expected an open_clip model config; '{key}' is missing")
        if not isinstance(model_cfg[key], kind):
            expected = "a number" if kind is int else "keys and values"
            raise InputError(f"{where}: {key} {model_cfg[key]!r}: expected {expected}")


def _from_open_clips_folder(name: str) -> dict[str, Any] | None:
    """The result of open_clip.get_model_config for a plain name, without the seconds of importing open_clip."""
    package = importlib.util.find_spec("open_clip")
    files = {file.stem: file for file in (Path(package.origin).parent / "model_configs").glob("*.json")}
    return json.loads(files[name].read_text()) if name in files else None


def check_bottleneck(name: str, columns: int) -> None:
    """Raises InputError for a model whose token embedding is not open_clip's own (models/build.py), or is no
    wider than the bottleneck."""
    text_cfg = read_config(name)[0]["model_cfg"]["text_cfg"]
    width = text_cfg.get("width", OPEN_CLIPS_WIDTH)
    if columns >= width:
        raise InputError(
            f"token_bottleneck {columns}: the token embedding of model {name} is {width} wide; expected fewer columns, "
            f"such as {max(1, width // 8)}, an eighth, as the paper's 96 of 768"
        )
    if hub_name := text_cfg.get("hf_model_name"):
        raise InputError(
            f"token_bottleneck {columns}: the text tower of model {name} is {hub_name} of the hub, whose token "
            "embedding is its own; expected a model without hf_model_name, or token_bottleneck null"
        )


def check_initial_weights(name: str) -> None:
    """Raises InputError for a text tower of the hub's, whose tensors the authors' towers have nothing like."""
    if hub_name := read_config(name)[0]["model_cfg"]["text_cfg"].get("hf_model_name"):
        raise InputError(
            f"init authors: the text tower of model {name} is {hub_name} of the hub; expected a text transformer of "
            "open_clip's, or init open_clip"
        )


def fingerprint(name: str) -> str:
    """Sixteen hexadecimal digits of the config and of the vocabulary file it names. Raises InputError."""
    config, folder = read_config(name)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    if vocabulary := vocabulary_file(config, folder):
        digest.update(vocabulary.read_bytes())
    return digest.hexdigest()[:16]


def context_length(name: str) -> int:
    """Tokens of a caption. Raises InputError."""
    return read_config(name)[0]["model_cfg"]["text_cfg"].get("context_length", 77)


def tokenizer_fingerprint(name: str) -> str:
    """Sixteen hexadecimal digits of what decides a caption's tokens: tokenizer, vocabulary, context length."""
    config, folder = read_config(name)
    text_cfg = config["model_cfg"]["text_cfg"]
    kwargs = {key: value for key, value in text_cfg.get("tokenizer_kwargs", {}).items() if key != "bpe_path"}
    names = [text_cfg.get(key) for key in ("hf_tokenizer_name", "hf_model_name", "tokenizer_mode")]
    parts = [context_length(name), names, kwargs] + ([config["captions"]] if "captions" in config else [])
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    if vocabulary := vocabulary_file(config, folder):
        digest.update(vocabulary.read_bytes())
    return digest.hexdigest()[:16]


def check_tokenizer(name: str) -> None:
    """Raises InputError where the hub's tokenizer or text tower of a model is not here, and cannot be downloaded."""
    from repro.data.network import check_on_hub

    text_cfg = read_config(name)[0]["model_cfg"]["text_cfg"]
    for key, files, what in (
        ("hf_tokenizer_name", ("tokenizer_config.json", "tokenizer.json"), "tokenizer"),
        ("hf_model_name", ("config.json",), "text tower"),
    ):
        if (repository := text_cfg.get(key)) and not Path(repository).is_dir():
            check_on_hub(f"model: {what} '{repository}'", repository, files)


def vocabulary_file(config: dict[str, Any], folder: Path) -> Path | None:
    """The BPE merges file that the tokenizer names, relative to the config."""
    bpe_path = config["model_cfg"]["text_cfg"].get("tokenizer_kwargs", {}).get("bpe_path")
    if bpe_path is None:
        return None
    if (beside := folder / Path(bpe_path).name).is_file():  # a run's config names the place where the run was made
        return beside
    if not (folder / bpe_path).is_file():
        raise InputError(f"model: the vocabulary file {folder / bpe_path} is missing")
    return folder / bpe_path
