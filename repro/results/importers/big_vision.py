"""big_vision's metrics: one JSON a line (big_vision_metrics.txt), beside it config.json where the workdir is whole.

Metrics keep the evaluators' prefixes: z/0shot/imagenet2012_accuracy, z/retr/coco_img2txt_recall@1, a/imagenet_10shot.
The loss is not logged: a model with a bias (config.model.bias_init) is trained by the sigmoid trainer, and of others it
has to be said. What is none of our columns is kept as big_vision_<name>.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.config.files import read_object
from repro.results.importers.cells import (
    Row,
    as_number,
    dataset_name,
    extra_column,
    metric_name,
    parsed,
    read_lines,
    slug,
)

PATTERN = "big_vision*_metrics.txt"
COLUMNS = {
    **{"lr": "learning_rate", "wd": "weight_decay", "seed": "seed", "grad_clip_norm": "grad_clip"},
    **{"model_name": "model", "input.batch_size": "batch_size", "optax_name": "optimizer", "optax.b2": "beta2"},
    "model.bias_init": "init_logit_bias",
}
"""Their config's key → our column."""
OPTIMIZERS = {"scale_by_adam": "adamw", "big_vision.scale_by_adafactor": "adafactor", "scale_by_lion": "lion"}
METRICS = (
    (r"(?:.*/)?0shot/(.+?)(?:_test|_val)?_acc(?:uracy)?", lambda m: f"{dataset_name(m[1])}/acc1"),
    (  # from an image to its text: the text is what is retrieved
        r"(?:.*/)?(?:(\w+?)[_/])?(img2txt|txt2img)_recall@(\d+)",
        lambda m: f"{dataset_name(m[1] or 'val')}/{'text' if m[2] == 'img2txt' else 'image'}_retrieval_recall@{m[3]}",
    ),
    (r"(?:[az]/)?(?:fewshot/)?(\w+?)_(\d+)shot(?:-seed-\d+)?", lambda m: f"{dataset_name(m[1])}/{m[2]}shot_acc1"),
    (r"(\w+)/(?:acc|prec@1)", lambda m: f"{m[1]}/acc1"),
)
READ = ("step", "training_loss", "img/sec/core")


def read(file: Path) -> tuple[list[Row], list[str]]:
    """The one run of a metrics file, and what a reader should know of it. Raises InputError."""
    lines = read_lines(file)
    if not any("step" in line for line in lines):
        raise InputError(f'{file}: no line has a step; expected big_vision\'s metrics, such as {{"step": 100, …}}')
    accuracies = [(line.get("step"), found) for line in lines if (found := _accuracies(line))]
    if not accuracies:
        raise InputError(f"{file}: no accuracy; expected keys such as z/0shot/imagenet2012_accuracy")
    step = accuracies[-1][0]
    values, notes = _settings(file, lines)
    losses = [line["training_loss"] for line in lines if "training_loss" in line]
    speeds = [number for line in lines if (number := as_number(line.get("img/sec/core"))) is not None]
    values["final_loss"] = as_number(losses[-1]) if losses else None
    values["big_vision_examples_per_second_per_core"] = statistics.median(speeds) if speeds else None
    for key, value in ((key, value) for line in lines for key, value in line.items() if key not in READ):
        if as_number(value) is not None and metric_name(key, METRICS) is None and not key.startswith("z/secs"):
            values[extra_column(key, "big_vision")] = value
    for _, found in (each for each in accuracies if each[0] == step):  # a step may have a line for each evaluator
        values |= found
    values |= _end(lines, step, values)
    folder = file.resolve().parent.name
    run = folder if file.name == "big_vision_metrics.txt" else f"{folder}-{file.stem.removesuffix('_metrics')}"
    values["source_file"] = f"{folder}/{file.name}"  # every run's file has the same name
    return [Row(values, str(file), (slug(run),))], notes


def _accuracies(line: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a line by our names; few-shot probes as the mean over their seeds."""
    found: dict[str, list[float]] = {}
    for key, value in line.items():
        name, number = metric_name(key, METRICS), as_number(value)
        if name and number is not None:
            found.setdefault(name, []).append(number)
    return {name: statistics.fmean(numbers) for name, numbers in found.items()}


def _settings(file: Path, lines: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """From config.json; without it the batch size follows from the examples seen at a step. And what to know of it."""
    sizes = {line["examples_seen"] / line["step"] for line in lines if line.get("examples_seen") and line.get("step")}
    size = sizes.pop() if len(sizes) == 1 else 0.5  # several: the run was resumed without its count
    values: dict[str, Any] = {"batch_size": int(size) if size == int(size) else None}
    config_file = file.with_name("config.json")
    if not config_file.is_file():
        return values, [f"{file}: no config.json beside it: model, learning rate and loss are not known"]
    config = read_object(config_file)
    parts = {key: part for key in ("input", "optax", "model") if isinstance(part := config.get(key), Mapping)}
    flat = config | {f"{key}.{name}": value for key, part in parts.items() for name, value in part.items()}
    flat = {"input.batch_size": flat.get("batch_size"), "optax.b2": flat.get("optax.beta2_cap")} | flat
    found = {ours: parsed(ours, flat.get(theirs), f"{config_file}: {theirs}") for theirs, ours in COLUMNS.items()}
    values |= {ours: value for ours, value in found.items() if value is not None}
    values["optimizer"] = OPTIMIZERS.get(values.get("optimizer"), values.get("optimizer"))
    towers = [flat.get(f"model.{tower}") for tower in ("image", "text")]
    image, text = (each.get("variant", each.get("config")) if isinstance(each, Mapping) else None for each in towers)
    if image or text:
        values["model"] = " + ".join(str(tower) for tower in (image, text) if tower)
    schedule = config.get("schedule") if isinstance(config.get("schedule"), list) else []
    pairs = [pair for pair in schedule if isinstance(pair, list) and len(pair) == 2]
    if any("img" in str(pattern) and rate is None for pattern, rate in pairs):
        values["setup"] = "siglit"
    elif image:
        values["setup"] = "finetune" if config.get("model_init") else "siglip"
    if (bias := values.get("init_logit_bias")) is None:
        return values, []
    return values | {"loss": "sigmoid"}, [f"{file}: loss sigmoid, since the model has a bias (bias_init {bias:g})"]


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
