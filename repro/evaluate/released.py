"""Weights that somebody else trained, or we before: evaluated and not trained (setup released, table 3).

They are an open_clip model with one of its tags (`ViT-B-16-SigLIP`, `webli`), loaded as the stock clip_benchmark
command loads it, or a checkpoint of ours, which becomes the run's own checkpoints folder by a link.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from repro.config.spec import RunSpec
from repro.evaluate import evaluate, evaluate_towers, make_local_dir
from repro.models import build
from repro.models.laptop_tower import LAPTOP_TOWER, make_laptop_tower
from repro.models.model_config import CONFIG_NAME
from repro.models.pretrained import resolve
from repro.runs.directory import RunDirectory


def evaluate_released(
    spec: RunSpec, directory: RunDirectory, evals: Sequence[str], device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics named <dataset>/<metric>. Raises InputError where there are no such weights, EvaluationFailed."""
    place = resolve(spec.pretrained, spec.model)
    if place == LAPTOP_TOWER:
        place = str(make_laptop_tower())
    if not place.startswith("/"):
        tag = place.rpartition("/")[2]
        names = {"model": spec.model, "pretrained": tag}
        return evaluate_towers(
            lambda: build.load_released(spec.model, tag, device), names, evals, directory.evals, device, redo=redo
        )
    weights = Path(place)
    make_local_dir(weights, None if (weights.parent / CONFIG_NAME).is_file() else spec.model, directory.checkpoints)
    directory.final.unlink(missing_ok=True)
    directory.final.symlink_to(weights)
    return evaluate(directory.checkpoints, evals, directory.evals, device, redo=redo)
