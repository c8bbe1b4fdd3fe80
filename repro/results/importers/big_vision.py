"""big_vision's metrics: one JSON a line (big_vision_metrics.txt), beside it config.json where the workdir is whole.

Metrics keep the evaluators' prefixes: z/0shot/imagenet2012_accuracy, z/retr/coco_img2txt_recall@1, a/imagenet_10shot.
The loss is not logged: a model with a bias (config.model.bias_init) is trained by the sigmoid trainer, and of others it
has to be said. What is none of our columns is kept as big_vision_<name>.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.results.importers import names
from repro.results.importers.row import Row, as_number, kept, parsed, read_lines, read_object, slug

PATTERN = "big_vision*_metrics.txt"
CONFIG = "config.json"
OWN = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "seed": "seed",
    "grad_clip_norm": "grad_clip",
    "model_name": "model",
}
OPTIMIZERS = {"scale_by_adam": "adamw", "big_vision.scale_by_adafactor": "adafactor", "scale_by_lion": "lion"}
_ZERO_SHOT = re.compile(r"(?:.*/)?0shot/(.+?)(?:_test|_val)?_acc(?:uracy)?")
_RETRIEVAL = re.compile(r"(?:.*/)?(?:(\w+?)[_/])?(img2txt|txt2img)_recall@(\d+)")
_FEW_SHOT = re.compile(r"(?:[az]/)?(?:fewshot/)?(\w+?)_(\d+)shot(?:-seed-\d+)?")
_VALIDATION = re.compile(r"(\w+)/(?:acc|prec@1)")


def read(file: Path) -> tuple[list[Row], list[str]]:
    """The one run of a metrics file, and what a reader should know of it. Raises InputError."""
    lines = read_lines(file)
    if not any("step" in line for line in lines):
        raise InputError(f'{file}: no line has a step; expected big_vision\'s metrics, such as {{"step": 100, …}}')
    accuracies = [(line.get("step"), found) for line in lines if (found := _accuracies(line))]
    if not accuracies:
        raise InputError(f"{file}: no accuracy; expected keys such as z/0shot/imagenet2012_accuracy")
    step = accuracies[-1][0]
    notes: list[str] = []
    values = _settings(file, lines, notes) | _measured(lines) | _kept(lines)
    for at, found in accuracies:  # evaluators may write lines of their own for one step
        if at == step:
            values |= found
    values |= _end(lines, step, values)
    folder = file.resolve().parent.name
    run = folder if file.name == "big_vision_metrics.txt" else f"{folder}-{file.stem.removesuffix('_metrics')}"
    values["source_file"] = f"{folder}/{file.name}"  # every run's file has the same name
    return [Row(values, str(file), (slug(run),))], notes


def _accuracies(line: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of a line by our names; few-shot probes as the mean over their seeds."""
    found: dict[str, list[float]] = {}
    for key, value in line.items():
        own = _own_metric(key)
        number = as_number(value)
        if own and number is not None:
            found.setdefault(own, []).append(number)
    return {name: statistics.fmean(numbers) for name, numbers in found.items()}


def _own_metric(key: str) -> str | None:
    if match := _ZERO_SHOT.fullmatch(key):
        return f"{names.dataset(match[1])}/acc1"
    if match := _RETRIEVAL.fullmatch(key):  # from an image to its text: the text is what is retrieved
        what = "text" if match[2] == "img2txt" else "image"
        return f"{names.dataset(match[1] or 'val')}/{what}_retrieval_recall@{match[3]}"
    if match := _FEW_SHOT.fullmatch(key):
        return f"{names.dataset(match[1])}/{match[2]}shot_acc1"
    if match := _VALIDATION.fullmatch(key):
        return f"{match[1]}/acc1"
    return None


def _settings(file: Path, lines: Sequence[Mapping[str, Any]], notes: list[str]) -> dict[str, Any]:
    """From config.json; without it the batch size follows from the examples seen at a step."""
    values: dict[str, Any] = {"batch_size": _batch_size(lines)}
    config_file = file.parent / CONFIG
    if not config_file.is_file():
        notes.append(f"{file}: no {CONFIG} beside it: model, learning rate and loss are not known")
        return values
    config = read_object(config_file)
    values |= {ours: parsed(ours, config.get(theirs), f"{config_file}: {theirs}") for theirs, ours in OWN.items()}
    asked = _part(config, "input").get("batch_size", config.get("batch_size"))
    values["batch_size"] = parsed("batch_size", asked, str(config_file)) or values["batch_size"]
    optimizer, optax = config.get("optax_name"), _part(config, "optax")
    values |= {"optimizer": OPTIMIZERS.get(optimizer, optimizer)}
    values["beta2"] = parsed("beta2", optax.get("b2", optax.get("beta2_cap")), str(config_file))
    model = _part(config, "model")
    towers = [_part(model, tower).get("variant", _part(model, tower).get("config")) for tower in ("image", "text")]
    if any(towers):
        values["model"] = " + ".join(str(tower) for tower in towers if tower)
    values["init_logit_bias"] = parsed("init_logit_bias", model.get("bias_init"), str(config_file))
    if values["init_logit_bias"] is not None:
        values["loss"] = "sigmoid"
        notes.append(f"{file}: loss sigmoid, since the model has a bias (bias_init {values['init_logit_bias']:g})")
    if frozen := _freezes_the_image_tower(config.get("schedule")):
        values["setup"] = "siglit"
    if not frozen and towers[0]:
        values["setup"] = "finetune" if config.get("model_init") else "siglip"
    return values


def _batch_size(lines: Sequence[Mapping[str, Any]]) -> int | None:
    sizes = {line["examples_seen"] / line["step"] for line in lines if line.get("examples_seen") and line.get("step")}
    size = sizes.pop() if len(sizes) == 1 else None  # several: the run was resumed without its count
    return int(size) if size is not None and size == int(size) else None


def _measured(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    losses = [line["training_loss"] for line in lines if "training_loss" in line]
    speeds = [number for line in lines if (number := as_number(line.get("img/sec/core"))) is not None]
    return {
        "final_loss": as_number(losses[-1]) if losses else None,
        "big_vision_examples_per_second_per_core": statistics.median(speeds) if speeds else None,
    }


def _kept(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last number of everything else, timings aside."""
    last: dict[str, Any] = {}
    for line in lines:
        last |= {key: value for key, value in line.items() if as_number(value) is not None}
    others = (key for key in last if _own_metric(key) is None and not key.startswith("z/secs"))
    return {
        kept(key, "big_vision"): last[key] for key in others if key not in ("step", "training_loss", "img/sec/core")
    }


def _end(lines: Sequence[Mapping[str, Any]], step: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Status by the progress that was logged, of which there may be none."""
    found: dict[str, Any] = {"status": "finished", "reason": "", "steps": step}
    if values.get("batch_size") and step is not None:
        found["examples_seen"] = int(step) * values["batch_size"]
    totals = [round(line["step"] / line["progress"]) for line in lines if line.get("progress") and line.get("step")]
    if totals and step is not None and step < totals[-1]:
        found |= {"status": "interrupted", "reason": f"evaluated at step {step:,} of {totals[-1]:,}"}
    if any("training_loss" in line and as_number(line["training_loss"]) is None for line in lines):
        found |= {"status": "diverged", "reason": "the training loss is no longer a finite number"}
    return found


def _freezes_the_image_tower(schedule: Any) -> bool:
    pairs = schedule if isinstance(schedule, list) else []
    return any(
        isinstance(pair, list) and len(pair) == 2 and "img" in str(pair[0]) and pair[1] is None for pair in pairs
    )


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = values.get(key)
    return part if isinstance(part, Mapping) else {}
