"""Classification data sets: zero-shot and few-shot on the same embedded images; classifiers made once.

clip-benchmark's zero-shot classification is given the image embeddings in the place of images, batch by batch as its
command would make them, so the numbers are its own to the last digit.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from repro.config.errors import InputError
from repro.evaluate import few_shot
from repro.evaluate.data_set import BATCH_SIZE, EvaluationData
from repro.models import build

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images [m, 3, H, W] or their embeddings [m, d], and their classes [m]."""


@dataclass(frozen=True)
class Embedded:
    """A test split whose images were embedded. Iterates as the loader did that it stands for."""

    data: EvaluationData
    batches: list[Batch]
    dataset: Any
    """Names of the classes, and prompts."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Classifications:
    """Evaluate one model's weights; keeps the embeddings of the last data set, and every classifier in `folder`."""

    def __init__(self, towers: build.Towers, device: torch.device, folder: Path):
        self.towers, self.device, self.folder = towers, device, folder
        self.last: Embedded | None = None
        self.takes_embeddings = SimpleNamespace(
            encode_text=towers.model.encode_text, encode_image=lambda images: images
        )

    def zero_shot(self, data: EvaluationData) -> dict[str, float]:
        from clip_benchmark.metrics import zeroshot_classification

        test = self._test_split(data)
        prompts = json.dumps([test.dataset.classes, test.dataset.templates])
        classifier = self.folder / f"{hashlib.sha256(prompts.encode()).hexdigest()}.pt"
        place = {"load_clfs": [classifier]} if classifier.exists() else {"save_clf": classifier}
        return zeroshot_classification.evaluate(
            self.takes_embeddings,
            test,
            self.towers.tokenize,
            test.dataset.classes,
            test.dataset.templates,
            self.device.type,
            amp=True,
            **place,
        )

    def few_shot(self, data: EvaluationData, shots: int) -> dict[str, float]:
        """Raises InputError where the training split has too few images of a class."""
        test = self._test_split(data)
        features, labels = (torch.cat(each) for each in zip(*test.batches, strict=True))
        if labels.ndim > 1:
            raise InputError(f"--eval {data.name}:{shots}-shot: its images have several labels; a probe needs one each")
        classes = len(test.dataset.classes)
        train = data.build(self.towers.transform, split="train")
        chosen = few_shot.first_of_each_class(train, shots, classes, data.name)
        train_features, train_labels = (torch.cat(each) for each in zip(*self._embed(_batched(chosen)), strict=True))
        found = few_shot.accuracy(train_features, train_labels, features, labels, classes)
        return {f"{shots}shot_acc1": found}

    def _test_split(self, data: EvaluationData) -> Embedded:
        if self.last is None or self.last.data != data:
            dataset = data.build(self.towers.transform)
            names = SimpleNamespace(classes=dataset.classes, templates=dataset.templates)
            self.last = Embedded(data, list(self._embed(data.loader(dataset))), names)
        return self.last

    @torch.no_grad()
    def _embed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for images, labels in batches:
            with torch.autocast(self.device.type):
                features = self.towers.model.encode_image(images.to(self.device))
            yield features.cpu(), labels


def _batched(samples: Iterable[tuple[torch.Tensor, int]]) -> Iterator[Batch]:
    samples = iter(samples)
    while part := list(itertools.islice(samples, BATCH_SIZE)):
        images, labels = zip(*part, strict=True)
        yield torch.stack(images), torch.tensor(labels)
