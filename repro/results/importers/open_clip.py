"""A log folder of open_clip: params.txt (what was asked), checkpoints/results.jsonl (a line an evaluation), out.log.

The batch size is batch_size of each GPU × world_size × accum_freq; the loss follows from siglip. Of several
evaluations the last that has a zero-shot accuracy counts. Parameters that are none of our columns are kept as
open_clip_<name>, but for those that say where something lies.
"""

import ast
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.results.importers.cells import (
    Row,
    as_number,
    dataset_name,
    extra_column,
    is_metric,
    metric_name,
    parsed,
    read_lines,
    read_text,
    slug,
)

PARAMS, RESULTS, LOG = "params.txt", "checkpoints/results.jsonl", "out.log"
COLUMNS = {
    **{name: name for name in ("model", "precision", "seed", "beta1", "beta2", "pretrained")},
    **{"lr": "learning_rate", "wd": "weight_decay", "eps": "epsilon", "opt": "optimizer"},
    **{"lr_scheduler": "schedule", "world_size": "ranks", "grad_clip_norm": "grad_clip"},
}
"""Their parameter → our column."""
LEFT_OUT = {
    *COLUMNS,
    "siglip",
    "warmup",
    "logs",
    "name",
    "log_path",
    "checkpoint_path",
    "tensorboard_path",
    "cache_dir",
}
LEFT_OUT |= {"resume", "train_data", "val_data", "imagenet_val", "imagenet_v2", "remote_sync", "dist_url"}
LEFT_OUT |= {"wandb_notes", "wandb_project_name", "copy_codebase"}
"""Parameters that are read, and those that say where something lies."""
ZERO_SHOT = r"(imagenet|imagenetv2)-zeroshot-val-top([15])"
METRICS = (
    (ZERO_SHOT, lambda m: f"{dataset_name(m[1])}/acc{m[2]}"),
    (r"image_to_text_R@(\d+)", lambda m: f"val/text_retrieval_recall@{m[1]}"),  # the text is what is retrieved
    (r"text_to_image_R@(\d+)", lambda m: f"val/image_retrieval_recall@{m[1]}"),
)
LOGGED: dict[str, tuple[str, Callable[[list], Any]]] = {
    "examples_per_second": (r"Batch \(t\): [\d.e+]+, ([\d.e+]+)/s", lambda all: statistics.median(map(float, all))),
    "final_logit_scale": (r"Logit Scale: ([\d.e+-]+)", lambda all: as_number(all[-1])),
    "final_loss": (r"(?<!_)\b(?:Contrastive_loss|Loss): ([\d.e+-]+) \(", lambda all: as_number(all[-1])),
    "finished_at": (r"(\d{4}-\d\d-\d\d),(\d\d:\d\d:\d\d) \|", lambda all: "T".join(all[-1])),
}
"""Measurements in out.log, and which of the numbers counts."""
TRAINED = r"Train Epoch: \d+ \[\s*\d+/(\d+) \("
EVALUATED = r"Eval Epoch: (\d+) .*(?:zeroshot|_R@)"


def is_folder(folder: Path) -> bool:
    return (folder / PARAMS).is_file() or (folder / RESULTS).is_file()


def read(folder: Path) -> tuple[list[Row], list[str]]:
    """The one run of a log folder, and what a reader should know of it. Raises InputError."""
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder}: no {RESULTS}: no evaluation was logged (open_clip's --imagenet-val or --val-data)")
    params = _params(folder / PARAMS) if (folder / PARAMS).is_file() else {}
    log = read_text(folder / LOG) if (folder / LOG).is_file() else ""
    line, epoch, notes = _last_evaluation(read_lines(folder / RESULTS), re.findall(EVALUATED, log), folder)
    values = _asked(params, f"{folder / PARAMS}")
    values |= {ours: pick(found) if (found := re.findall(text, log)) else None for ours, (text, pick) in LOGGED.items()}
    values |= _length(params, values, epoch, re.findall(TRAINED, log))
    for key, value in line.items():
        if key != "epoch":
            number = as_number(value)
            values[metric_name(key, METRICS) or extra_column(key, "open_clip")] = value if number is None else number
    if not any(is_metric(column) for column in values):
        raise InputError(f"{folder / RESULTS}: no accuracy; expected imagenet-zeroshot-val-top1 or image_to_text_R@1")
    if not params:
        notes.append(f"{folder}: no {PARAMS}: what was asked of this run is not known")
    name = folder.resolve().name
    return [Row(values | {"source_file": name}, str(folder), (slug(name),))], notes


def _params(file: Path) -> dict[str, Any]:
    """'key: value' lines; values as Python writes them, where they are that."""
    params: dict[str, Any] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        key, colon, text = line.partition(":")
        if line.strip() and not colon:
            raise InputError(f"{file}, line {number}: expected 'key: value', found '{line[:60]}'")
        if not line.strip():
            continue
        try:
            params[key] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            params[key] = text.strip()
    return params


def _asked(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    values = {ours: parsed(ours, params.get(theirs), f"{where}: {theirs}") for theirs, ours in COLUMNS.items()}
    values["schedule"] = "constant" if values["schedule"] == "const" else values["schedule"]
    if "/" in str(values["pretrained"] or ""):  # a file: its name says enough
        values["pretrained"] = Path(values["pretrained"]).name
    parts = [params.get("batch_size"), params.get("world_size"), params.get("accum_freq", 1)]
    if all(isinstance(part, int) and part > 0 for part in parts):
        values["batch_size"] = parts[0] * parts[1] * parts[2]
        if isinstance(params.get("warmup"), int):
            values["warmup_examples"] = params["warmup"] * values["batch_size"]
    if params:
        other = params.get("distill_model") or str(params.get("model", "")).startswith("coca")
        values["loss"] = "sigmoid" if params.get("siglip") else None if other else "softmax"
        begun = params.get("pretrained_image") or params.get("pretrained")
        frozen = params.get("lock_image") and not params.get("lock_image_unlocked_groups")
        values["setup"] = "siglit" if frozen else "finetune" if begun else "siglip"
    for key, value in params.items():
        if key not in LEFT_OUT and value not in (None, "", [], {}):
            values[extra_column(key, "open_clip")] = value if isinstance(value, str | int | float) else str(value)
    return values


def _length(
    params: Mapping[str, Any], values: Mapping[str, Any], epoch: int | None, trained: Sequence[str]
) -> dict[str, Any]:
    """Examples seen up to the evaluation, time of a step, and whether training came to its end."""
    found: dict[str, Any] = {"status": "finished", "reason": ""}
    samples = params.get("train_num_samples") or (trained[-1] if trained else None)
    if samples and epoch is not None:
        found["examples_seen"] = int(samples) * epoch
    if values.get("batch_size") and values.get("examples_per_second"):
        found["step_seconds"] = values["batch_size"] / values["examples_per_second"]
    epochs = params.get("epochs")
    if isinstance(epochs, int) and epoch is not None and 0 < epoch < epochs and params.get("train_data"):
        found |= {"status": "interrupted", "reason": f"evaluated after epoch {epoch} of {epochs}"}
    return found


def _last_evaluation(
    lines: list[dict[str, Any]], logged: Sequence[str], folder: Path
) -> tuple[dict[str, Any], int | None, list[str]]:
    """The last line with a zero-shot accuracy, else the last; its epoch, which out.log tells where it does not."""
    with_zero_shot = [n for n, line in enumerate(lines) if any(re.fullmatch(ZERO_SHOT, key) for key in line)]
    chosen = with_zero_shot[-1] if with_zero_shot else len(lines) - 1
    epoch = lines[chosen].get("epoch", logged[chosen] if len(logged) == len(lines) else None)
    taken = f"{folder}: the last evaluations lack zero-shot accuracy; taken is line {chosen + 1} of {RESULTS}"
    return lines[chosen], None if epoch is None else int(epoch), [taken] if chosen < len(lines) - 1 else []
