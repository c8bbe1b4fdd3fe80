"""How large a model is, in what decides time and memory: parameters, FLOPs, what a forward pass keeps.

Measured on a model that is made of shapes only, which takes the seconds of importing torch and open_clip. So ours
come measured (sizes.json), and others are measured once and kept in the cache, both by the config's
fingerprint.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config.errors import InputError
from repro.config.files import PACKAGE, CorruptRun, cache_folder, read_json, write_json
from repro.models.model_config import fingerprint, is_at_hand, read_config

if TYPE_CHECKING:
    import torch

OURS = PACKAGE / "models" / "sizes.json"


@dataclass(frozen=True)
class ModelSize:
    """The size of one model. FLOPs and bytes are of one example, that is of one image or one text."""

    parameters: int
    image_parameters: int
    """The image tower's alone; t' and b count with the text tower."""
    token_rows: int
    """N of the token embedding [N, width]; 0 for a text tower that has none of open_clip's."""
    token_width: int
    context_length: int
    embed_dim: int
    image_flops: int
    """FLOPs of a forward pass: two for each multiplication of a matrix product, attention's among them."""
    text_flops: int
    image_operations: int
    """Calls of torch's operators in a forward pass: on small tensors each costs more than what it computes."""
    text_operations: int
    image_kept_bytes: int
    """Bytes that a forward pass in fp32 keeps for the backward pass, except weights."""
    text_kept_bytes: int
    input_bytes: int
    """An image in uint8 and a text's tokens, as they wait for their micro-batch."""


def model_size(name: str) -> ModelSize:
    """By name or JSON file. Raises InputError for a model that is not there, or cannot be built."""
    key = fingerprint(name)
    if (known := _known(key)) is not None:
        return known
    try:
        size = measure(name)
    except Exception as error:  # whatever a layer says of a width, a number of heads, a name
        raise InputError(f"model {name}: cannot be built: {type(error).__name__}: {error}") from error
    with contextlib.suppress(OSError):  # a cache that cannot be written costs the seconds again
        write_json(_kept_file(key), asdict(size))
    return size


def known_size(name: str) -> ModelSize | None:
    """Return the size, or None for a model that is not measured yet or not here: imports nothing heavy."""
    return _known(fingerprint(name)) if is_at_hand(name) else None


def _known(key: str) -> ModelSize | None:
    ours = read_json(OURS)
    if key in ours:
        return ModelSize(**ours[key])
    try:
        return ModelSize(**read_json(_kept_file(key)))
    except (CorruptRun, TypeError):  # not measured yet, or by another version
        return None


def _kept_file(key: str) -> Path:
    return cache_folder() / "models" / f"{key}.json"


def measure(name: str) -> ModelSize:
    """Run a model on tensors that have shapes and no content. Imports torch and open_clip."""
    import open_clip
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = dict(read_config(name)[0]["model_cfg"])
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"].get("context_length", 77)
    image = (3, *(size if isinstance(size, list | tuple) else (size, size)))
    model_class = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        model = model_class(**config)
        image_flops = _flops(model.encode_image, torch.zeros(1, *image))
        text_flops = _flops(model.encode_text, torch.zeros(1, length, dtype=torch.long))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device="cpu")  # on "meta" attention keeps a matrix that no real device keeps
        one_and_two_images = [torch.zeros(n, *image) for n in (1, 2)]
        one_and_two_texts = [torch.zeros(n, length, dtype=torch.long) for n in (1, 2)]
        image_kept = [kept_bytes(model, model.encode_image, images) for images in one_and_two_images]
        text_kept = [kept_bytes(model, model.encode_text, texts) for texts in one_and_two_texts]
        image_operations = _operations(model.encode_image, one_and_two_images[0])
        text_operations = _operations(model.encode_text, one_and_two_texts[0])
    tokens = getattr(getattr(model, "text", model), "token_embedding", None)
    rows, width = tokens.weight.shape if isinstance(tokens, torch.nn.Embedding) else (0, 0)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        image_parameters=sum(parameter.numel() for parameter in model.visual.parameters()),
        token_rows=rows,
        token_width=width,
        context_length=length,
        embed_dim=config["embed_dim"],
        image_flops=image_flops,
        text_flops=text_flops,
        image_operations=image_operations,
        text_operations=text_operations,
        image_kept_bytes=image_kept[1] - image_kept[0],
        text_kept_bytes=text_kept[1] - text_kept[0],
        input_bytes=math.prod(image) + 8 * length,
    )


def keep_ours() -> None:
    """Write sizes.json, for when a model of ours, or one that a sweep of ours names, changes or is new."""
    from repro.config.sweep import Overrides, expand, list_sweeps

    names = {file.stem for file in (PACKAGE / "models" / "configs").glob("*.json")}
    for sweep in list_sweeps():
        for scale in sweep.scales:
            if sweep.bench(scale) is None:
                names |= {spec.model for spec in expand(sweep, scale, Overrides({}, {"data": "any"}))}
    write_json(OURS, {fingerprint(name): asdict(measure(name)) for name in sorted(names)})


def _flops(embed: Callable[..., Any], inputs: "torch.Tensor") -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        embed(inputs)
    return counter.get_total_flops()


def _operations(embed: Callable[..., Any], inputs: "torch.Tensor") -> int:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.calls += 1
            return function(*args, **(kwargs or {}))

    with Count() as counter:
        embed(inputs)
    return counter.calls


def kept_bytes(model: "torch.nn.Module", embed: Callable[..., Any], inputs: "torch.Tensor") -> int:
    """Bytes of all that waits for the backward pass, except weights; views of one storage keep it once."""
    from torch.autograd.graph import saved_tensors_hooks

    weights = {each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        embed(inputs)
    return sum(storage.nbytes() for storage in kept.values())
