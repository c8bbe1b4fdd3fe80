"""Towers, tokenizers and preprocessing: open_clip's, by its names or from a small JSON config of ours or yours.

A run's checkpoints folder is an open_clip `local-dir`: config, tokenizer files, weights. Training, our evaluation
and the stock tools all load from there, so they cannot disagree.
"""

import dataclasses
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from repro.config.errors import InputError, Interrupted
from repro.config.files import read_object, write_atomically, write_json
from repro.data.network import retried, weights_from_hub
from repro.models.model_config import CONFIG_NAME, LOWER_CASED, read_config, vocabulary_file

WEIGHTS_NAME = "open_clip_pytorch_model.bin"
"""The name under which open_clip finds the weights of a local-dir; a link to final.pt."""

ALIASED = "-aliased"
LEAST_TOWER = {"image_size": 16, "patch_size": 16, "width": 64, "layers": 1}
"""open_clip makes no model without an image tower: this one is made and let go where none is wanted."""


@dataclass(frozen=True)
class Towers:
    """A model with what goes before it.

    transform (open_clip's own, but for the interpolation) is resize, PIL image to PIL image, then normalize,
    [n, 3, H, W] uint8 to fp32. canonical_prompts: whether prompts of classes lose their punctuation, and captions keep
    it, as in the authors' training and evaluation.
    """

    model: torch.nn.Module
    tokenize: Callable[[list[str]], torch.Tensor]
    transform: Callable[[Image.Image], torch.Tensor]
    resize: Callable[[Image.Image], Image.Image]
    normalize: Callable[[torch.Tensor], torch.Tensor]
    image_size: tuple[int, int]
    context_length: int
    vocabulary_size: int
    canonical_prompts: bool = False


def export(
    name: str,
    folder: Path,
    init_logit_scale: float = math.log(10),
    init_logit_bias: float | None = None,
    interpolation: str | None = None,
) -> None:
    """Make `folder` an open_clip local-dir for a model: its config with t' and b, and its tokenizer.

    interpolation: in place of the model's own. bilinear-aliased stands in the config as bilinear, for stock tools, and
    as `antialias` false, for us.
    """
    config, source = read_config(name)
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg, text_cfg = config["model_cfg"], config["model_cfg"]["text_cfg"]
    model_cfg["init_logit_scale"] = init_logit_scale
    model_cfg["init_logit_bias"] = init_logit_bias
    if interpolation is not None:
        config["preprocess_cfg"] |= {"interpolation": interpolation.removesuffix(ALIASED)}
        config["antialias"] = not interpolation.endswith(ALIASED)
    if vocabulary := vocabulary_file(config, source):
        copy = folder.resolve() / vocabulary.name
        write_atomically(copy, lambda temporary: shutil.copyfile(vocabulary, temporary) and None)
        text_cfg["tokenizer_kwargs"]["bpe_path"] = str(copy)
    if text_cfg.get("hf_tokenizer_name"):
        _save_hub_tokenizer(text_cfg, folder)
    write_json(folder / CONFIG_NAME, config)


def load(folder: Path, device: torch.device | str = "cpu", weights: bool = False, image_tower: bool = True) -> Towers:
    """Towers from a local-dir: with its weights, or as initialised from torch's random state.

    image_tower: whether to have one; a model without has None in its place, and does not hold its weights in memory.
    """
    import open_clip

    name = f"local-dir:{folder}"
    in_its_place = {} if image_tower else {"vision_cfg": LEAST_TOWER}

    def create() -> tuple[torch.nn.Module, Any, Any]:
        if not weights:
            logging.disable(logging.WARNING)  # open_clip warns that it found none
        try:
            return open_clip.create_model_and_transforms(name, load_weights=weights, device=device, **in_its_place)
        finally:
            logging.disable(logging.NOTSET)

    # Retried, as a text tower that goes by its hub name (hf_model_name) has its config there.
    try:
        model, _, transform = retried(f"the model of {folder}", create)
    except (MemoryError, torch.OutOfMemoryError, InputError, Interrupted):
        raise
    except Exception as error:  # whatever a layer says of a width, a number of heads, a name
        what = "with the weights beside it" if weights else "from it"
        message = " ".join(str(error).split())
        raise InputError(
            f"{folder / CONFIG_NAME}: open_clip cannot build a model {what}: {type(error).__name__}: {message}"
        ) from error
    config = read_object(folder / CONFIG_NAME)
    if not config.get("antialias", True):
        transform = _aliased(transform, str(folder))
    towers = _towers(model, transform, tokenizer_of(folder), str(folder), device)
    if not image_tower:
        model.visual = None
    return dataclasses.replace(towers, canonical_prompts=config.get("captions") == LOWER_CASED)


class AliasedResize:
    """PIL image → PIL image of `size`, as tf.image.resize does by default: bilinear, without antialiasing.

    Half-pixel centres; the result is cut to whole numbers, not rounded (big_vision's pp/ops_image.py).
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, self.size, mode="bilinear", align_corners=False, antialias=False)
        return Image.fromarray(resized[0].clamp_(0, 255).byte().permute(1, 2, 0).contiguous().numpy())


def _aliased(transform: Any, where: str) -> Any:
    """The same preprocessing with its resizing replaced. Raises InputError where it is not one resizing to a square."""
    from torchvision.transforms import CenterCrop, Compose, Resize

    first, *others = transform.transforms
    size = getattr(first, "size", None)
    if not isinstance(first, Resize) or not isinstance(size, list | tuple) or isinstance(others[0], CenterCrop):
        raise InputError(
            f"{where}: interpolation bilinear-aliased resizes to the model's size, whatever the aspect ratio; expected "
            "resize_mode squash in the model's preprocess_cfg"
        )
    return Compose([AliasedResize(tuple(size)), *others])


def load_released(name: str, tag: str, device: torch.device | str = "cpu") -> Towers:
    """An open_clip model with weights that open_clip has by a tag, and with their preprocessing. Raises InputError."""
    import open_clip

    def create() -> tuple[torch.nn.Module, Any, Any]:
        model, _, transform = open_clip.create_model_and_transforms(name, pretrained=tag, device=device)
        return model, transform, open_clip.get_tokenizer(name)

    return _towers(*weights_from_hub(f"{name}/{tag}", create), f"{name}/{tag}", device)


def _towers(model: torch.nn.Module, transform: Any, tokenize: Any, where: str, device: torch.device | str) -> Towers:
    """Raises InputError for preprocessing that is not taken apart here."""
    from torchvision.transforms import Normalize

    torch.backends.cudnn.allow_tf32 = False  # else a GPU convolves float32 with 10 bits of each factor
    last = transform.transforms[-1]
    if not isinstance(last, Normalize):
        raise InputError(f"{where}: expected preprocessing that ends with Normalize, found {last}")
    mean, std = (torch.tensor(values).view(3, 1, 1).to(device) for values in (last.mean, last.std))
    pil_steps = [step for step in transform.transforms if "ToTensor" not in type(step).__name__ and step is not last]

    def resize(image: Image.Image) -> Image.Image:
        for step in pil_steps:
            image = step(image)
        return image

    def normalize(images: torch.Tensor) -> torch.Tensor:
        return images.to(device, non_blocking=True).float().div_(255).sub_(mean).div_(std)

    height_and_width = model.visual.image_size
    if isinstance(height_and_width, int):
        height_and_width = (height_and_width, height_and_width)
    vocabulary_size = getattr(model, "vocab_size", None) or getattr(model.text, "vocab_size", 0)
    return Towers(
        model, tokenize, transform, resize, normalize, height_and_width, tokenize.context_length, vocabulary_size
    )


def tokenizer_of(folder: Path) -> Callable[[list[str]], torch.Tensor]:
    """The tokenizer of a local-dir. Where its config says `captions` lower-cased, that is all that happens to a text
    before: stock tools, which do not know the word, canonicalise it.
    """
    import open_clip

    how = {"clean": "lower"} if read_object(folder / CONFIG_NAME).get("captions") == LOWER_CASED else {}
    return open_clip.get_tokenizer(f"local-dir:{folder}", **how)


def _save_hub_tokenizer(text_cfg: dict[str, Any], folder: Path) -> None:
    """Put a Hugging Face tokenizer's files into the folder, where open_clip's local-dir looks for them."""
    if (folder / "tokenizer_config.json").exists():
        return
    from open_clip.tokenizer import HFTokenizer

    name = text_cfg["hf_tokenizer_name"]
    try:
        tokenizer = retried(f"model: tokenizer '{name}' of the hub", lambda: HFTokenizer(name).tokenizer)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise InputError(f"model: tokenizer '{name}' could not be downloaded from the hub: {error}") from None


class BottleneckedEmbedding(torch.nn.Module):
    """The bottlenecked token embedding of a large vocabulary: a table of K columns, then K × width (section 4.3).

    In place of an nn.Embedding(N, width) it holds N·K + K·width numbers. Training learns both factors, and checkpoints
    to resume from hold both; final weights hold their product, the plain table that open_clip and clip-benchmark know.

    Drawn from torch's random state. The table starts with the standard deviation σ of the one that it replaces
    (open_clip's: 0.02) and the K × width matrix with 1/√K, so that of their product is σ, too: √K · σ · 1/√K.
    """

    def __init__(self, replaced: torch.nn.Embedding, columns: int):
        super().__init__()
        rows, width = replaced.weight.shape
        device = replaced.weight.device
        self.table = torch.nn.Embedding(rows, columns, device=device)
        self.projection = torch.nn.Linear(columns, width, bias=False, device=device)
        torch.nn.init.normal_(self.table.weight, std=replaced.weight.std().item())
        torch.nn.init.normal_(self.projection.weight, std=columns**-0.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[m, L] → [m, L, width]"""
        return self.projection(self.table(tokens))

    @torch.no_grad()
    def product(self) -> torch.Tensor:
        """The one table that gives the same embeddings, [N, width]."""
        return self.table.weight @ self.projection.weight.T


def bottleneck_tokens(model: torch.nn.Module, columns: int, where: str = "model") -> None:
    """Replace the token embedding of an open_clip model by one of so many columns. Raises InputError."""
    text = getattr(model, "text", model)  # CustomTextCLIP's text tower; CLIP has its parts itself
    embedding = getattr(text, "token_embedding", None)
    if not isinstance(embedding, torch.nn.Embedding):
        raise InputError(f"{where}: token_bottleneck {columns}: its text tower has no token embedding of open_clip's")
    text.token_embedding = BottleneckedEmbedding(embedding, columns)


def stock_weights(model: torch.nn.Module) -> dict[str, Any]:
    """The model's weights as stock open_clip has them: a bottleneck's factors are multiplied."""
    weights = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, BottleneckedEmbedding):
            del weights[f"{name}.table.weight"], weights[f"{name}.projection.weight"]
            weights[f"{name}.weight"] = module.product()
    return weights
