"""A clock that moves as a test says, and a shard whose images cannot be decoded."""

import io
import tarfile
import time
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


class FakeClock:
    """Moves by a microsecond with each reading, and by what `sleep` is told: no machine is too busy for it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """In the place of time.perf_counter and time.monotonic."""
    fake = FakeClock()
    monkeypatch.setattr(time, "perf_counter", fake)
    monkeypatch.setattr(time, "monotonic", fake)
    return fake
