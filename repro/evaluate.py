"""Zero-shot evaluation by clip-benchmark's own functions, with the stock command's defaults, on a run's weights.

The stock command on the same folder gives the same numbers:
clip_benchmark eval --model local-dir:RUN/checkpoints --pretrained final.pt --dataset wds/NAME --dataset_root FOLDER
(and --task zeroshot_retrieval --recall_k 1 5 10 where the data set is for retrieval).
"""

from pathlib import Path
from typing import Any

import torch

from repro import model as models
from repro.data.evalsets import dataset_name, named_datasets_folder, webdataset_task
from repro.rundir import read_json, write_json

BATCH_SIZE = 64
RECALL_AT = [1, 5, 10]


def evaluate(
    checkpoints: Path, evals: list[str], output: Path, device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics named <dataset>/<metric> of the local-dir `checkpoints`; what `output` holds already is not run again.

    Each data set leaves clip-benchmark's own JSON in `output`.
    """
    metrics: dict[str, float] = {}
    towers = None
    for name in evals:
        file = output / f"{dataset_name(name)}.json"
        if redo or not file.exists():
            towers = towers or models.load(checkpoints, device, weights=True)
            towers.model.eval()
            write_json(file, _evaluate_one(towers, name, checkpoints, device))
        metrics |= {f"{dataset_name(name)}/{key}": value for key, value in read_json(file)["metrics"].items()}
    return metrics


def _evaluate_one(towers: models.Towers, name: str, checkpoints: Path, device: torch.device) -> dict[str, Any]:
    """One data set → the dictionary that the stock command writes."""
    import open_clip
    from clip_benchmark.datasets.builder import build_dataset, get_dataset_collate_fn, get_dataset_default_task
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
    from torch.utils.data import DataLoader

    is_webdataset = Path(name).is_dir() or "://" in name
    preprocess = open_clip.PreprocessCfg(**open_clip.get_model_preprocess_cfg(towers.model))
    dataset_id = f"wds/{dataset_name(name)}" if is_webdataset else name
    task = webdataset_task(name) if is_webdataset else get_dataset_default_task(name)
    dataset = build_dataset(
        dataset_id,
        root=name if is_webdataset else str(named_datasets_folder() / name),
        transform=open_clip.image_transform_v2(preprocess, is_train=False),
        split="test",
        task=task,
    )
    if is_webdataset:
        loader = DataLoader(dataset.batched(BATCH_SIZE), batch_size=None)
    else:
        loader = DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=get_dataset_collate_fn(name))
    if task == "zeroshot_retrieval":
        metrics = zeroshot_retrieval.evaluate(
            towers.model, loader, towers.tokenize, device.type, amp=True, recall_k_list=RECALL_AT
        )
    else:
        metrics = zeroshot_classification.evaluate(
            towers.model, loader, towers.tokenize, dataset.classes, dataset.templates, device.type, amp=True
        )
    return {
        "dataset": dataset_id,
        "model": f"local-dir:{checkpoints}",
        "pretrained": "final.pt",
        "task": task,
        "metrics": {key: float(value) for key, value in metrics.items()},
        "language": "en",
    }
