"""Decoded and tokenized samples of a small data set, kept in the cache: decoded once a sweep, not once a run.

One file of fixed-size records, filled as samples are first read, by any number of processes at once: a record is
written in one piece with its checksum, and one that does not check is decoded again. Read by pread rather than
mapped, so that what is kept does not count as a run's memory. Where captions are in several languages a record has room
for the tokens of each, and what is asked for first is written first.
"""

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repro.config.files import cache_folder

MOST_BYTES = 4 << 30
"""Larger data sets are decoded each time."""
CHECKSUM_BYTES = 4


UNKNOWN = -1
"""In place of the first token of a language that nobody asked for yet."""


class KeptSamples:
    """image: [H, W, 3] uint8 and tokens: [L] int64 in each of so many languages, by the sample's number in the data.

    Of two processes that write a record at once, the last one's is kept; the other's language is written again when
    it is asked for again.
    """

    def __init__(self, file: Path, image_shape: tuple[int, int, int], context_length: int, languages: int = 1):
        self.image_shape, self.image_bytes = image_shape, int(np.prod(image_shape))
        self.tokens_shape = (languages, context_length)
        self.record_bytes = CHECKSUM_BYTES + self.image_bytes + 8 * languages * context_length
        file.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)

    def read(self, number: int, language: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
        """The sample, or None where it is not kept yet."""
        image, tokens = self._read(number)
        return None if tokens[language, 0] == UNKNOWN else (image, tokens[language])

    def write(self, number: int, image: np.ndarray, tokens: np.ndarray, language: int = 0) -> None:
        of_all = self._read(number)[1] if self.tokens_shape[0] > 1 else np.empty(self.tokens_shape, np.int64)
        of_all[language] = tokens
        content = image.tobytes() + of_all.tobytes()
        os.pwrite(self.descriptor, _checksum(content) + content, number * self.record_bytes)

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Image, and tokens of all languages: UNKNOWN where there are none."""
        record = os.pread(self.descriptor, self.record_bytes, number * self.record_bytes)
        checksum, content = record[:CHECKSUM_BYTES], record[CHECKSUM_BYTES:]
        if len(record) < self.record_bytes or checksum != _checksum(content):
            return np.empty(0, np.uint8), np.full(self.tokens_shape, UNKNOWN, np.int64)
        image = np.frombuffer(content, np.uint8, self.image_bytes).reshape(self.image_shape)
        return image, np.frombuffer(content, np.int64, offset=self.image_bytes).reshape(self.tokens_shape).copy()


def _checksum(content: bytes) -> bytes:
    """Never that of a hole in the file: all zeros do not check."""
    return (zlib.crc32(content) ^ 0xFFFFFFFF or 1).to_bytes(CHECKSUM_BYTES, "little")


def open_kept(
    files: list[Path],
    samples: int,
    towers: str,
    image_size: tuple[int, int],
    context_length: int,
    languages: Sequence[str] = (),
) -> KeptSamples | None:
    """Open the kept samples of these shards, preprocessed for `towers` (a fingerprint); None for large data sets."""
    image_shape, of_each = (*image_size, 3), max(1, len(languages))
    if samples * (int(np.prod(image_shape)) + 8 * of_each * context_length) > MOST_BYTES:
        return None
    digest = hashlib.sha256(" ".join([towers, *languages]).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    kept = cache_folder() / "decoded" / digest.hexdigest()[:32]
    return KeptSamples(kept, image_shape, context_length, of_each)
