"""A log folder of open_clip: params.txt (what was asked), checkpoints/results.jsonl (a line an evaluation), out.log.

The batch size is batch_size of each GPU × world_size × accum_freq; the loss follows from siglip. Of several
evaluations the last that has a zero-shot accuracy counts. Parameters that are none of our columns are kept as
open_clip_<name>, but for those that say where something lies.
"""

import ast
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.results.importers import names
from repro.results.importers.row import Row, as_number, kept, parsed, read_lines, read_text, slug

PARAMS, RESULTS, LOG = "params.txt", "checkpoints/results.jsonl", "out.log"
OWN = {
    **{name: name for name in ("model", "precision", "seed", "beta1", "beta2")},
    **{"lr": "learning_rate", "wd": "weight_decay", "eps": "epsilon", "opt": "optimizer"},
    **{"lr_scheduler": "schedule", "world_size": "ranks", "grad_clip_norm": "grad_clip", "pretrained": "pretrained"},
}
"""Their parameter → our column."""
PLACES = (
    *(
        "logs",
        "name",
        "log_path",
        "checkpoint_path",
        "tensorboard_path",
        "cache_dir",
        "resume",
        "train_data",
        "val_data",
    ),
    *("imagenet_val", "imagenet_v2", "remote_sync", "dist_url", "wandb_notes", "wandb_project_name", "copy_codebase"),
)
SCHEDULES = {"const": "constant"}
_ZERO_SHOT = re.compile(r"(imagenet|imagenetv2)-zeroshot-val-top([15])")
_RETRIEVAL = re.compile(r"(image_to_text|text_to_image)_R@(\d+)")
_SPEED = re.compile(r"Batch \(t\): [\d.e+]+, ([\d.e+]+)/s")
_TRAINED = re.compile(r"Train Epoch: (\d+) \[\s*(\d+)/(\d+) \(")
_SCALE = re.compile(r"Logit Scale: ([\d.e+-]+)")
_LOSS = re.compile(r"(?<!_)\b(?:Contrastive_loss|Loss): ([\d.e+-]+) \(")
_EVALUATED = re.compile(r"Eval Epoch: (\d+) .*(?:zeroshot|_R@)")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d),(\d\d:\d\d:\d\d) \|")


def is_folder(folder: Path) -> bool:
    return (folder / PARAMS).is_file() or (folder / RESULTS).is_file()


def read(folder: Path) -> tuple[list[Row], list[str]]:
    """The one run of a log folder, and what a reader should know of it. Raises InputError."""
    file = folder / RESULTS
    if not file.is_file():
        raise InputError(
            f"{folder}: no {RESULTS}: no evaluation was logged; expected one by --imagenet-val or --val-data"
        )
    params = read_params(folder / PARAMS) if (folder / PARAMS).is_file() else {}
    log = read_text(folder / LOG) if (folder / LOG).is_file() else ""
    line, epoch, notes = _last_evaluation(read_lines(file), log, folder)
    values = _from_params(params, folder) | _from_log(log)
    values |= _length(params, values, epoch, log, folder)
    values |= _metrics(line)
    if not any(names.is_metric(column) for column in values):
        raise InputError(f"{file}: no accuracy; expected imagenet-zeroshot-val-top1 or image_to_text_R@1")
    if not params:
        notes.append(f"{folder}: no {PARAMS}: what was asked of this run is not known")
    values["source_file"] = folder.resolve().name
    return [Row(values, str(folder), (slug(folder.resolve().name),))], notes


def read_params(file: Path) -> dict[str, Any]:
    """'key: value' lines; values as Python writes them, where they are that."""
    params: dict[str, Any] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        key, colon, text = line.partition(": ")
        if not colon and not line.endswith(":"):
            raise InputError(f"{file}, line {number}: expected 'key: value', found '{line[:60]}'")
        try:
            params[key.rstrip(":")] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            params[key.rstrip(":")] = text
    return params


def _from_params(params: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    where = str(folder / PARAMS)
    values = {ours: parsed(ours, params.get(theirs), f"{where}: {theirs}") for theirs, ours in OWN.items()}
    values["schedule"] = SCHEDULES.get(values["schedule"], values["schedule"])
    if "/" in str(values["pretrained"] or ""):  # a file: its name says enough
        values["pretrained"] = Path(values["pretrained"]).name
    parts = [params.get("batch_size"), params.get("world_size"), params.get("accum_freq", 1)]
    if all(isinstance(part, int) and part > 0 for part in parts):
        values["batch_size"] = parts[0] * parts[1] * parts[2]
        if isinstance(params.get("warmup"), int):
            values["warmup_examples"] = params["warmup"] * values["batch_size"]
    if params:
        values["setup"] = _setup(params)
        other = params.get("distill_model") or str(params.get("model", "")).startswith("coca")
        values["loss"] = "sigmoid" if params.get("siglip") else None if other else "softmax"
    used = {*OWN, "siglip", "warmup"}
    for key, value in params.items():
        if key not in used and key not in PLACES and value not in (None, "", [], {}):
            values[kept(key, "open_clip")] = value if isinstance(value, str | int | float) else str(value)
    return values


def _setup(params: Mapping[str, Any]) -> str:
    if params.get("lock_image") and not params.get("lock_image_unlocked_groups"):
        return "siglit"
    return "finetune" if params.get("pretrained_image") or params.get("pretrained") else "siglip"


def _from_log(log: str) -> dict[str, Any]:
    """What was measured on the way: speed as the median of all logged steps, the rest as it stood at the end."""
    speeds = [float(text) for text in _SPEED.findall(log)]
    scales, losses, stamps = _SCALE.findall(log), _LOSS.findall(log), _STAMP.findall(log)
    return {
        "examples_per_second": statistics.median(speeds) if speeds else None,
        "final_logit_scale": as_number(scales[-1]) if scales else None,
        "final_loss": as_number(losses[-1]) if losses else None,
        "finished_at": "T".join(stamps[-1]) if stamps else None,
    }


def _length(
    params: Mapping[str, Any], values: Mapping[str, Any], epoch: int | None, log: str, folder: Path
) -> dict[str, Any]:
    """Examples seen up to the evaluation, time of a step, and whether training came to its end."""
    trained = _TRAINED.findall(log)
    samples = params.get("train_num_samples") or (int(trained[-1][2]) if trained else None)
    found: dict[str, Any] = {"status": "finished", "reason": ""}
    if samples and epoch is not None:
        found["examples_seen"] = int(samples) * epoch
    if values.get("batch_size") and values.get("examples_per_second"):
        found["step_seconds"] = values["batch_size"] / values["examples_per_second"]
    epochs = params.get("epochs")
    if isinstance(epochs, int) and epoch is not None and 0 < epoch < epochs and params.get("train_data"):
        found |= {"status": "interrupted", "reason": f"evaluated after epoch {epoch} of {epochs}"}
    return found


def _last_evaluation(
    lines: list[dict[str, Any]], log: str, folder: Path
) -> tuple[dict[str, Any], int | None, list[str]]:
    """The last line with a zero-shot accuracy, else the last; its epoch, which out.log tells where it does not."""
    with_zero_shot = [number for number, line in enumerate(lines) if any(map(_ZERO_SHOT.fullmatch, line))]
    chosen = with_zero_shot[-1] if with_zero_shot else len(lines) - 1
    epoch = lines[chosen].get("epoch")
    logged = _EVALUATED.findall(log)
    if epoch is None and len(logged) == len(lines):
        epoch = int(logged[chosen])
    notes = []
    if chosen < len(lines) - 1:
        notes.append(f"{folder}: the last evaluations lack zero-shot accuracy; taken is line {chosen + 1} of {RESULTS}")
    return lines[chosen], int(epoch) if epoch is not None else None, notes


def _metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in line.items():
        number = as_number(value)
        if zero_shot := _ZERO_SHOT.fullmatch(key):
            values[f"{names.dataset(zero_shot[1])}/acc{zero_shot[2]}"] = number
        elif retrieval := _RETRIEVAL.fullmatch(key):  # from an image to its text: the text is what is retrieved
            what = "text" if retrieval[1] == "image_to_text" else "image"
            values[f"val/{what}_retrieval_recall@{retrieval[2]}"] = number
        elif key != "epoch":
            values[kept(key, "open_clip")] = value if number is None else number
    return values
