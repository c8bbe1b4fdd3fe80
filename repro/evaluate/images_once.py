"""Retrieval in many languages over the same images: each image is embedded once, and decoded once where paths tell.

It stands between clip-benchmark's retrieval and a model. The numbers stay clip-benchmark's own: it is given for the
same batch the embeddings that it was given before.
"""

import hashlib
from typing import Any

import torch


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
