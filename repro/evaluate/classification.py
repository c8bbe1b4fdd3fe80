"""clip-benchmark data sets and what is embedded once of them: images for all that is asked of them, classifiers.

clip-benchmark's zero-shot classification is given the image embeddings in the place of images, batch by batch as its
command would make them, so the numbers are its own to the last digit. The few-shot linear probe stands beside it: how
well a classifier on a few image embeddings a class does on the test split.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from repro.config.errors import InputError
from repro.data.eval_sets import dataset_name, split_language, webdataset_task
from repro.data.named_sets import root_of
from repro.models import build

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images [m, 3, H, W] or their embeddings [m, d], and their classes [m]."""
BATCH_SIZE = 64
"""The stock command's: other batches would change the last digit of a metric."""
REGULARISATION = 2.0**10
"""λ, big_vision's l2_reg."""
BIAS_FEATURE = 100.0
"""The value of the constant feature: so large that its weight is small, and λ means little to it."""
LEAST_DEVIATION = 1e-5


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
        return cls(base, base, get_dataset_default_task(base), language, str(root_of(base)))

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
        classes, templates = test.dataset.classes, test.dataset.templates
        if self.towers.canonical_prompts:
            classes, templates = canonical(classes, ","), canonical(templates, "{c}")
        prompts = json.dumps([classes, templates])
        classifier = self.folder / f"{hashlib.sha256(prompts.encode()).hexdigest()}.pt"
        place = {"load_clfs": [classifier]} if classifier.exists() else {"save_clf": classifier}
        return zeroshot_classification.evaluate(
            self.takes_embeddings,
            test,
            self.towers.tokenize,
            classes,
            templates,
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
        chosen = first_of_each_class(train, shots, classes, data.name)
        train_features, train_labels = (torch.cat(each) for each in zip(*self._embed(_batched(chosen)), strict=True))
        found = few_shot_accuracy(train_features, train_labels, features, labels, classes)
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


def canonical(texts: list[str], kept: str) -> list[str]:
    """Lower case, no punctuation but `kept`: big_vision's prompts of zero-shot classification."""
    from open_clip.tokenizer import canonicalize_text

    return [canonicalize_text(text, keep_punctuation_exact_string=kept) for text in texts]


def _batched(samples: Iterable[tuple[torch.Tensor, int]]) -> Iterator[Batch]:
    samples = iter(samples)
    while part := list(itertools.islice(samples, BATCH_SIZE)):
        images, labels = zip(*part, strict=True)
        yield torch.stack(images), torch.tensor(labels)


class ImagesOnce:
    """The towers of `model`, with the image embeddings of the data set before kept for the next."""

    def __init__(self, model: torch.nn.Module):
        self.encode_text = model.encode_text
        self._encode_image = model.encode_image
        self._paths: list[str] | None = None  # of the images that the numbers of _by_number stand for
        self._by_number: list[torch.Tensor] = []
        self._before: dict[bytes, torch.Tensor] = {}
        self._now: dict[bytes, torch.Tensor] = {}

    def of(self, dataset: Any) -> Any:
        """The data set, or the captions with numbers in place of the images, where the images are those of the last."""
        self._before, self._now = self._now, {}
        if not isinstance(getattr(dataset, "data", None), list):
            self._paths = None
            return dataset
        paths = [path for path, _ in dataset.data]
        if paths == self._paths and len(self._by_number) == len(paths):
            return [(torch.tensor(number), _captions(captions)) for number, (_, captions) in enumerate(dataset.data)]
        self._paths, self._by_number = paths, []
        return dataset

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """[m, 3, H, W], or the numbers of images [m] → [m, d]"""
        if images.dtype == torch.int64:
            return torch.stack([self._by_number[number] for number in images.tolist()])
        key = hashlib.sha256(images.cpu().contiguous().view(torch.uint8).numpy()).digest()
        features = self._before.get(key)
        if features is None:
            features = self._encode_image(images)
        self._now[key] = features
        if self._paths is not None:
            self._by_number += features
        return features


def _captions(captions: str | list[str]) -> list[str]:
    """Items as clip-benchmark's data sets give them."""
    return [captions] if isinstance(captions, str) else captions


def few_shot_accuracy(
    train: torch.Tensor, train_labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor, classes: int
) -> float:
    """Share of the test images [n, d] whose class is found by a classifier fitted to the training images [m, d].

    clip-benchmark's own linear probe runs on GPUs alone, is trained by SGD, and encodes all images anew; the paper's
    (big_vision's) is ridge regression in closed form, with no learning rate and no chance in it. So data sets and
    splits are clip-benchmark's, and the classifier is the paper's: targets of ±1, standardised embeddings, a bias that
    is hardly regularised, λ = 1,024.
    """
    train, test = train.double(), test.double()
    mean, deviation = train.mean(0), train.std(0, correction=0) + LEAST_DEVIATION
    inputs, questions = (_with_bias((features - mean) / deviation) for features in (train, test))
    targets = 2 * torch.nn.functional.one_hot(train_labels, classes).double() - 1
    squares = inputs.T @ inputs
    squares.diagonal().add_(REGULARISATION)
    weights = torch.linalg.solve(squares, inputs.T @ targets)  # [d + 1, classes]
    return ((questions @ weights).argmax(1) == test_labels).double().mean().item()


def _with_bias(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, features.new_full((len(features), 1), BIAS_FEATURE)], dim=1)


def first_of_each_class(dataset: Any, shots: int, classes: int, name: str) -> Iterator[tuple[Any, int]]:
    """(image, class) of the first so many of each class, in the data set's order.

    Reading ends as soon as all classes are full, and where the data set tells its labels, only the chosen images are
    decoded. Raises InputError where a class has too few.
    """
    labels = getattr(dataset, "targets", None)
    samples = dataset if labels is None else ((number, label) for number, label in enumerate(labels))
    counts: Counter[int] = Counter()
    for image, label in samples:
        if counts[int(label)] == shots:
            continue
        counts[int(label)] += 1
        yield (image if labels is None else dataset[image][0]), int(label)
        if counts.total() == shots * classes:
            return
    least = min(counts[label] for label in range(classes))
    advice = f"use {name}:{least}-shot" if least else "its training split lacks a class"
    raise InputError(f"--eval {name}:{shots}-shot: a class has only {least} images to train on; {advice}")
