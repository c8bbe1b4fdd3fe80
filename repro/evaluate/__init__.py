"""Evaluation by clip-benchmark's own functions, with the stock command's defaults, on a run's or anybody's weights.

The stock command on the same folder gives the same numbers:
clip_benchmark eval --model local-dir:RUN/checkpoints --pretrained final.pt --dataset wds/NAME --dataset_root FOLDER
(and --task zeroshot_retrieval --recall_k 1 5 10 where the data set is for retrieval).

Each image of a data set is embedded once for all that is asked of it, and each list of prompts becomes a classifier
once. Few-shot probes (NAME:10-shot) are classification.py's, too.
"""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from repro.config.errors import EvaluationFailed, InputError
from repro.config.files import CorruptRun, read_object, write_json
from repro.config.spec import RunSpec
from repro.data.eval_sets import (
    check_eval,
    dataset_name,
    language_means,
    result_name,
    split_shots,
)
from repro.evaluate.classification import Classifications, EvaluationData, ImagesOnce
from repro.models import build
from repro.models.laptop_tower import LAPTOP_TOWER, make_laptop_tower
from repro.models.model_config import CONFIG_NAME
from repro.models.pretrained import resolve
from repro.runs.directory import RunDirectory
from repro.world.source import each_eval

RECALL_AT = [1, 5, 10]

logger = logging.getLogger(__name__)


def evaluate(
    checkpoints: Path, evals: Sequence[str], output: Path, device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics of the local-dir `checkpoints`; see evaluate_towers."""
    names = {"model": f"local-dir:{checkpoints.resolve()}", "pretrained": "final.pt"}
    return evaluate_towers(
        lambda: build.load(checkpoints, device, weights=True), names, evals, output, device, redo=redo
    )


def evaluate_towers(
    load: Callable[[], build.Towers],
    names: dict[str, str],
    evals: Sequence[str],
    output: Path,
    device: torch.device,
    redo: bool = False,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Metrics named <dataset>/<metric>; what `output` holds already is not run again, unless to `redo`.

    load: makes the towers, where there is something to do. names: 'model' and 'pretrained', as the results call them.
    Retrieval in several languages also gives its means over them, as <dataset>_mean/<metric>.
    Each data set leaves clip-benchmark's own JSON in `output`. Raises EvaluationFailed, after all have had their turn.
    Asked to stop, it leaves after the data set that it is at.
    """
    metrics: dict[str, float] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="repro-classifiers-") as scratch:
        evaluator = None
        for name in _by_images(evals):
            file = output / f"{result_name(name)}.json"
            found = None if redo else _kept_metrics(file)
            if found is None:
                if asked_to_stop():
                    return metrics
                evaluator = evaluator or Evaluator(load(), device, Path(scratch))
                try:
                    check_eval(name)
                    with warnings.catch_warnings():
                        warnings.filterwarnings("ignore", message=".*shardshuffle.*")  # clip-benchmark leaves it unset
                        result = evaluator.evaluate(name)
                except InputError as error:
                    failures.append(str(error))
                    continue
                except Exception as error:  # whatever clip-benchmark, webdataset or an image decoder meets
                    for cause in _causes(error):  # a stop may come while an image is decoded, and be taken for damage
                        if hasattr(cause, "status"):
                            raise cause from None
                    logger.exception("--eval %s", name)
                    failures.append(f"--eval {name}: {_in_words(error)}")
                    continue
                write_json(file, {"dataset": result.pop("dataset"), **names, **result})
                found = result["metrics"]
            metrics |= {f"{dataset_name(name)}/{key}": value for key, value in found.items()}
    if failures:
        raise EvaluationFailed(f"evaluation failed, training is kept: {'; '.join(failures)}", metrics)
    return metrics | language_means(metrics)


def _by_images(evals: Sequence[str]) -> list[str]:
    """The same evaluations, those over the same images in a row."""
    bases = [split_shots(name)[0] for name in evals]
    return sorted(evals, key=lambda name: bases.index(split_shots(name)[0]))


class Evaluator:
    """Towers to evaluate, and what one evaluation leaves for the next: embedded images, classifiers."""

    def __init__(self, towers: build.Towers, device: torch.device, scratch: Path):
        towers.model.eval()
        self.towers, self.device = towers, device
        self.images_once = ImagesOnce(towers.model)
        self.classifications = Classifications(towers, device, scratch)

    def evaluate(self, name: str) -> dict[str, Any]:
        """One data set → the dictionary that the stock command writes, without whose weights they are."""
        base, shots = split_shots(name)
        data = EvaluationData.of(base)
        if shots:
            task, metrics = "linear_probe", self.classifications.few_shot(data, shots)
        elif data.task == "zeroshot_retrieval":
            task, metrics = data.task, self._retrieval(data)
        else:
            task, metrics = data.task, self.classifications.zero_shot(data)
        metrics = {key: float(value) for key, value in metrics.items()}
        return {"dataset": data.dataset_id, "task": task, "metrics": metrics, "language": data.language}

    def _retrieval(self, data: EvaluationData) -> dict[str, float]:
        from clip_benchmark.metrics import zeroshot_retrieval

        loader = data.loader(self.images_once.of(data.build(self.towers.transform)))
        return zeroshot_retrieval.evaluate(
            self.images_once, loader, self.towers.tokenize, self.device.type, amp=True, recall_k_list=RECALL_AT
        )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself, what it was raised from, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _in_words(error: BaseException) -> str:
    """One line: webdataset's errors say which sample it is about, and leave the rest to their cause."""
    sample = f" (sample {error.key})" if getattr(error, "key", None) else ""
    words = f"{type(error).__name__}{sample}: {' '.join(str(error).split())}".removesuffix(": ")
    return words if error.__cause__ is None else f"{words}: {_in_words(error.__cause__)}"


def _kept_metrics(file: Path) -> dict[str, float] | None:
    """Read an earlier evaluation; None where there was none, or its file is damaged, with a warning."""
    if not file.exists():
        return None
    try:
        metrics = read_object(file).get("metrics")
    except CorruptRun as error:
        logger.warning("%s; evaluating again", error)
        return None
    if not isinstance(metrics, dict):
        logger.warning("%s: expected metrics; evaluating again", file)
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
        folder = as_local_dir(checkpoint, model, Path(scratch) / "local-dir")
        return evaluate(folder, each_eval(evals), output or Path(scratch) / "evals", device, redo=True)


def as_local_dir(checkpoint: Path, model: str | None, folder: Path) -> Path:
    """A checkpoint's folder, or `folder`, made a local-dir for a weights file. Raises InputError."""
    if checkpoint.is_file():
        make_local_dir(checkpoint.resolve(), model, folder)
        return folder
    if not (checkpoint / CONFIG_NAME).is_file():
        raise InputError(f"{checkpoint}: expected {CONFIG_NAME} in the folder of a checkpoint")
    return checkpoint


def make_local_dir(weights: Path, model: str | None, folder: Path) -> None:
    """A local-dir for a weights file: its own folder's config, or the named model's. Raises InputError."""
    if model is None and (weights.parent / CONFIG_NAME).is_file():
        shutil.copytree(weights.parent, folder, ignore=shutil.ignore_patterns("*.pt*", "*.bin"), dirs_exist_ok=True)
    elif model is not None:
        state = torch.load(weights, map_location="meta", weights_only=True)
        has_bias = any(key.endswith("logit_bias") for key in state.get("state_dict", state))
        build.export(model, folder, init_logit_bias=0.0 if has_bias else None)
    else:
        raise InputError(f"{weights}: no {CONFIG_NAME} beside it; name its model with --model")
    link = folder / build.WEIGHTS_NAME
    link.unlink(missing_ok=True)
    link.symlink_to(weights)


def evaluate_released(
    spec: RunSpec, directory: RunDirectory, evals: Sequence[str], device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics of weights that somebody else trained, or we before: evaluated and not trained (setup released, table 3).

    They are an open_clip model with one of its tags (`ViT-B-16-SigLIP`, `webli`), loaded as the stock clip_benchmark
    command loads it, or a checkpoint of ours, which becomes the run's own checkpoints folder by a link. Raises
    InputError where there are no such weights, EvaluationFailed.
    """
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
