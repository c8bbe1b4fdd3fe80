"""PNG and tar files of the embedded world, written by hand: the libraries take as long as drawing the images."""

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

Sample = dict[str, bytes]
"""Extension → content, in the order of the tar."""


def pngs(images: np.ndarray) -> Iterator[bytes]:
    """uint8 [n, H, W, 3] → PNG files, stored without compression.

    The noise leaves little to compress: deflating saves an eighth of a shard and takes as long as drawing.
    """
    n, height, width, _ = images.shape
    lines = np.zeros((n, height, 1 + 3 * width), np.uint8)  # each line begins with its filter: 0, none
    lines[:, :, 1:] = images.reshape(n, height, 3 * width)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])  # 8 bits, RGB
    start, end = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    for image in lines:
        yield start + _chunk(b"IDAT", zlib.compress(image.tobytes(), 0)) + end


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


_TAR_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of no user, at time 0: same content, same bytes


def write_tar(path: Path, samples: Iterable[Sample], first: int) -> int:
    """Samples, with keys that count from `first`. Returns how many."""
    count = 0
    with path.open("wb") as tar:
        for count, sample in enumerate(samples, 1):
            for extension, content in sample.items():
                tar.write(_tar_member(f"{first + count - 1:09d}.{extension}", content))
        tar.write(bytes(1024))
    return count


def _tar_member(name: str, content: bytes) -> bytes:
    """Header, content and padding. By hand, because `TarFile.addfile` takes as long as drawing the image."""
    header = bytearray(_TAR_HEADER)
    header[: len(name)] = name.encode()
    header[124:136] = b"%011o\0" % len(content)
    header[148:156] = b"        "  # the checksum counts itself as spaces
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)
