"""Zero-shot evaluation by clip-benchmark's own functions, with the stock command's defaults, on a run's weights.

The stock command on the same folder gives the same numbers:
clip_benchmark eval --model local-dir:RUN/checkpoints --pretrained final.pt --dataset wds/NAME --dataset_root FOLDER
(and --task zeroshot_retrieval --recall_k 1 5 10 where the data set is for retrieval).
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from repro import model as models
from repro.data.evalsets import (
    check_eval,
    dataset_name,
    language_means,
    named_datasets_folder,
    split_language,
    webdataset_task,
)
from repro.data.source import each_eval
from repro.errors import EvaluationFailed, InputError
from repro.images_once import ImagesOnce
from repro.rundir import CorruptRun, read_object, write_json

BATCH_SIZE = 64
RECALL_AT = [1, 5, 10]

logger = logging.getLogger(__name__)


def evaluate(
    checkpoints: Path, evals: list[str], output: Path, device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics named <dataset>/<metric> of the local-dir `checkpoints`; what `output` holds already is not run again.

    Retrieval in several languages also gives its means over them, as <dataset>_mean/<metric>.
    Each data set leaves clip-benchmark's own JSON in `output`. Raises EvaluationFailed, after all have had their turn.
    """
    metrics: dict[str, float] = {}
    failures: list[str] = []
    towers = None
    for name in evals:
        file = output / f"{dataset_name(name)}.json"
        found = None if redo else _kept_metrics(file)
        if found is None:
            if towers is None:
                towers = models.load(checkpoints, device, weights=True)
                images_once = ImagesOnce(towers.model.eval())
            try:
                check_eval(name)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*shardshuffle.*")  # clip-benchmark leaves it unset
                    result = _evaluate_one(towers, images_once, name, checkpoints, device)
            except InputError as error:
                failures.append(str(error))
                continue
            except Exception as error:  # whatever clip-benchmark, webdataset or an image decoder meets
                if hasattr(error, "status"):
                    raise
                logger.exception("--eval %s", name)
                failures.append(f"--eval {name}: {_in_words(error)}")
                continue
            write_json(file, result)
            found = result["metrics"]
        metrics |= {f"{dataset_name(name)}/{key}": value for key, value in found.items()}
    if not failures:
        metrics |= language_means(metrics)
    if failures:
        raise EvaluationFailed(f"evaluation failed, training is kept: {'; '.join(failures)}", metrics)
    return metrics


def _in_words(error: BaseException) -> str:
    """One line: webdataset's errors say which sample it is about, and leave the rest to their cause."""
    sample = f" (sample {error.key})" if getattr(error, "key", None) else ""
    words = f"{type(error).__name__}{sample}: {' '.join(str(error).split())}".removesuffix(": ")
    return words if error.__cause__ is None else f"{words}: {_in_words(error.__cause__)}"


def _kept_metrics(file: Path) -> dict[str, float] | None:
    """Of an earlier evaluation; None where there was none, or its file is damaged, with a warning."""
    if not file.exists():
        return None
    try:
        metrics = read_object(file).get("metrics")
    except CorruptRun as error:
        logger.warning("%s; evaluating anew", error)
        return None
    if not isinstance(metrics, dict):
        logger.warning("%s: expected metrics; evaluating anew", file)
        return None
    return metrics


def evaluate_checkpoint(
    checkpoint: Path, evals: Sequence[str], model: str | None = None, output: Path | None = None
) -> dict[str, float]:
    """Metrics of an open_clip local-dir, or of a weights file of `model`. Raises InputError.

    output: where clip-benchmark's JSON goes; nowhere by default.
    """
    if not evals:
        raise InputError(f"{checkpoint}: name what to evaluate on with --eval")
    if not checkpoint.exists():
        raise InputError(f"{checkpoint}: neither a run nor a checkpoint; expected a run's id, a folder or a file")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint if checkpoint.is_dir() else Path(scratch) / "local-dir"
        if checkpoint.is_file():
            _make_local_dir(checkpoint.resolve(), model, folder)
        if not (folder / models.CONFIG_NAME).is_file():
            raise InputError(f"{folder}: expected {models.CONFIG_NAME} in the folder of a checkpoint")
        return evaluate(folder, each_eval(evals), output or Path(scratch) / "evals", device, redo=True)


def _make_local_dir(weights: Path, model: str | None, folder: Path) -> None:
    """A local-dir for a weights file: its own folder's config, or the named model's."""
    if model is None and (weights.parent / models.CONFIG_NAME).is_file():
        shutil.copytree(weights.parent, folder, ignore=shutil.ignore_patterns("*.pt", "*.bin"))
    elif model is not None:
        state = torch.load(weights, map_location="meta", weights_only=True)
        has_bias = any(key.endswith("logit_bias") for key in state.get("state_dict", state))
        models.export(model, folder, init_logit_bias=0.0 if has_bias else None)
    else:
        raise InputError(f"{weights}: no {models.CONFIG_NAME} beside it; name its model with --model")
    (folder / models.WEIGHTS_NAME).symlink_to(weights)


def _evaluate_one(
    towers: models.Towers, images_once: ImagesOnce, name: str, checkpoints: Path, device: torch.device
) -> dict[str, Any]:
    """One data set → the dictionary that the stock command writes."""
    from clip_benchmark.datasets.builder import build_dataset, get_dataset_collate_fn, get_dataset_default_task
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
    from torch.utils.data import DataLoader

    is_webdataset = Path(name).is_dir() or "://" in name
    base, language = (name, "en") if is_webdataset else split_language(name)
    dataset_id = f"wds/{dataset_name(name)}" if is_webdataset else base
    task = webdataset_task(name) if is_webdataset else get_dataset_default_task(base)
    dataset = build_dataset(
        dataset_id,
        root=name if is_webdataset else str(named_datasets_folder() / base),
        transform=towers.transform,
        split="test",
        task=task,
        language=language,
    )
    if task == "zeroshot_retrieval":
        dataset = images_once.of(dataset)
    if is_webdataset:
        loader = DataLoader(dataset.batched(BATCH_SIZE), batch_size=None)
    else:
        loader = DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=get_dataset_collate_fn(base))
    if task == "zeroshot_retrieval":
        metrics = zeroshot_retrieval.evaluate(
            images_once, loader, towers.tokenize, device.type, amp=True, recall_k_list=RECALL_AT
        )
    else:
        metrics = zeroshot_classification.evaluate(
            towers.model, loader, towers.tokenize, dataset.classes, dataset.templates, device.type, amp=True
        )
    return {
        "dataset": dataset_id,
        "model": f"local-dir:{checkpoints.resolve()}",
        "pretrained": "final.pt",
        "task": task,
        "metrics": {key: float(value) for key, value in metrics.items()},
        "language": language,
    }
