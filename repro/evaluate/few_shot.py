"""The few-shot linear probe: how well a linear classifier on a few image embeddings a class does on the test split.

clip-benchmark's own linear probe runs on GPUs alone, is trained by SGD, and encodes all images anew; the paper's
(big_vision's) is ridge regression in closed form, with no learning rate and no chance in it. So data sets and splits
are clip-benchmark's, and the classifier is the paper's: targets of ±1, standardised embeddings, a bias that is hardly
regularised, λ = 1,024.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from repro.config.errors import InputError

REGULARISATION = 2.0**10
"""λ, big_vision's l2_reg."""
BIAS_FEATURE = 100.0
"""The value of the constant feature: so large that its weight is small, and λ means little to it."""
LEAST_DEVIATION = 1e-5


def accuracy(
    train: torch.Tensor, train_labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor, classes: int
) -> float:
    """Share of the test images [n, d] whose class is found by a classifier fitted to the training images [m, d]."""
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
