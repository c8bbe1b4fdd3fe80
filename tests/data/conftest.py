"""Real shards, written by tarfile as img2dataset's are, small enough to make anew in every test."""

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

Files = dict[str, bytes]
"""One sample: extension → content, in the order of the tar."""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("REPRO_CACHE", str(folder))
    return folder


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """picture(7, "WEBP") → the bytes of a small image of the grey level 7."""

    def encode(level: int, kind: str = "PNG", size: tuple[int, int] = (4, 4)) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", size, (level % 256,) * 3).save(stream, kind)
        return stream.getvalue()

    return encode


@pytest.fixture
def numbered(picture) -> Callable[[Iterable[int]], list[Files]]:
    """numbered(range(3)) → samples whose captions are '0', '1', '2', and whose images have these grey levels."""
    return lambda numbers: [{"png": picture(number), "txt": str(number).encode()} for number in numbers]


@pytest.fixture
def write_shard(tmp_path: Path) -> Callable[..., Path]:
    """write_shard("00000.tar", samples) → the shard, in the test's folder; keys count from 0."""

    def write(name: str, samples: Iterable[Files], format: int = tarfile.USTAR_FORMAT, key: str = "{:09d}") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=format) as tar:
            for number, files in enumerate(samples):
                for extension, content in files.items():
                    member = tarfile.TarInfo(f"{key.format(number)}.{extension}")
                    member.size = len(content)
                    member.mtime = 1.5 if format == tarfile.PAX_FORMAT else 1  # a fraction asks for a pax header
                    tar.addfile(member, io.BytesIO(content))
        return path

    return write
