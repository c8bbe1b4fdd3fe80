"""Decoded and tokenized samples of a small data set, kept in the cache: decoded once a sweep, not once a run.

One file of fixed-size records, filled as samples are first read, by any number of processes at once: a record is
written in one piece with its checksum, and one that does not check is decoded anew. Read by pread rather than
mapped, so that what is kept does not count as a run's memory.
"""

import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from repro.resources import cache_folder

MOST_BYTES = 4 << 30
"""Larger data sets are decoded each time."""
CHECKSUM_BYTES = 4


class KeptSamples:
    """image: [H, W, 3] uint8 and tokens: [L] int64, by the sample's number in the data set."""

    def __init__(self, file: Path, image_shape: tuple[int, int, int], context_length: int):
        self.image_shape, self.image_bytes = image_shape, int(np.prod(image_shape))
        self.record_bytes = CHECKSUM_BYTES + self.image_bytes + 8 * context_length
        file.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The sample, or None where it is not kept yet."""
        record = os.pread(self.descriptor, self.record_bytes, number * self.record_bytes)
        checksum, content = record[:CHECKSUM_BYTES], record[CHECKSUM_BYTES:]
        if len(record) < self.record_bytes or checksum != _checksum(content):
            return None
        image = np.frombuffer(content, np.uint8, self.image_bytes).reshape(self.image_shape)
        return image, np.frombuffer(content, np.int64, offset=self.image_bytes)

    def write(self, number: int, image: np.ndarray, tokens: np.ndarray) -> None:
        content = image.tobytes() + tokens.astype(np.int64).tobytes()
        os.pwrite(self.descriptor, _checksum(content) + content, number * self.record_bytes)


def _checksum(content: bytes) -> bytes:
    """Never that of a hole in the file: all zeros do not check."""
    return (zlib.crc32(content) ^ 0xFFFFFFFF or 1).to_bytes(CHECKSUM_BYTES, "little")


def open_kept(
    files: list[Path], samples: int, towers: str, image_size: tuple[int, int], context_length: int
) -> KeptSamples | None:
    """What is kept of these shards for this preprocessing (`towers`, a fingerprint); None for large data sets."""
    image_shape = (*image_size, 3)
    if samples * (int(np.prod(image_shape)) + 8 * context_length) > MOST_BYTES:
        return None
    digest = hashlib.sha256(towers.encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return KeptSamples(cache_folder() / "decoded" / digest.hexdigest()[:32], image_shape, context_length)
