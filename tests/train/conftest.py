"""A shard whose images cannot be decoded."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def bad_shard(tmp_path: Path) -> Callable[[int], Path]:
    """bad_shard(40) → bad.tar with 40 samples that cannot be used."""

    def write(samples: int) -> Path:
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            for number in range(samples):
                for extension, content in (("png", b"no image"), ("txt", b"a caption")):
                    info = tarfile.TarInfo(f"{number:04}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return tmp_path / "bad.tar"

    return write
