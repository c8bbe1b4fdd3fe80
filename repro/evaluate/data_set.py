"""A clip-benchmark data set as the person named it: what it is for, its splits, and their batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.data.eval_sets import dataset_name, named_datasets_folder, split_language, webdataset_task

BATCH_SIZE = 64
"""The stock command's: other batches would change the last digit of a metric."""


@dataclass(frozen=True)
class EvaluationData:
    """dataset_id: as the stock command names it. name: what is left of the person's name without a language."""

    name: str
    dataset_id: str
    task: str
    language: str
    root: str

    @classmethod
    def of(cls, name: str) -> "EvaluationData":
        """A folder, a URL, or a name of clip-benchmark's, with a language or without."""
        from clip_benchmark.datasets.builder import get_dataset_default_task

        if Path(name).is_dir() or "://" in name:
            return cls(name, f"wds/{dataset_name(name)}", webdataset_task(name), "en", name)
        base, language = split_language(name)
        return cls(base, base, get_dataset_default_task(base), language, str(named_datasets_folder() / base))

    def build(self, transform: Any, split: str = "test") -> Any:
        """(image, class) or (image, captions), with the names of the classes and prompts where there are some."""
        from clip_benchmark.datasets.builder import build_dataset

        return build_dataset(
            self.dataset_id,
            root=self.root,
            transform=transform,
            split=split,
            task=self.task,
            language=self.language,
        )

    def loader(self, dataset: Any) -> Any:
        from clip_benchmark.datasets.builder import get_dataset_collate_fn
        from torch.utils.data import DataLoader

        if self.dataset_id.startswith("wds/"):
            return DataLoader(dataset.batched(BATCH_SIZE), batch_size=None)
        return DataLoader(dataset, batch_size=BATCH_SIZE, collate_fn=get_dataset_collate_fn(self.name))
