"""A full disk ends a run by its name, and loses nothing that was good: on a small file system of its own."""

import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from repro.config.errors import DiskFull, Interrupted
from repro.config.files import full_disk_named
from repro.runs.directory import RunDirectory
from repro.train.checkpoint import Checkpoints
from repro.train.loop import Options
from tests.train.runs import CPU, StopAfter, assert_same_bits, trained

MIB = 1 << 20


def mount(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", *arguments], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = mount("size=3m", "tmpfs", str(folder))
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def resize(disk) -> Callable[[int], None]:
    def to(size_bytes: int) -> None:
        assert mount(f"remount,size={size_bytes}", "tmpfs", str(disk)).returncode == 0

    return to


def state(step: int) -> dict:
    return {"step": step, "weights": torch.full((MIB // 4,), float(step))}


def test_a_checkpoint_without_room_names_itself_and_both_sizes_and_leaves_the_last_good_one(disk):
    store = Checkpoints(disk)
    store.save(1, state(1))
    store.save(2, state(2))
    before = sorted(disk.iterdir())
    with pytest.raises(DiskFull) as error:
        store.save(3, state(3))
    file = disk / "step-000000003.pt"
    assert str(error.value).startswith(f"{file}: the disk is full (1.0 MiB to be written, 1")
    assert str(error.value).endswith(" KiB free)")
    assert error.value.status == "disk-full"
    assert sorted(disk.iterdir()) == before
    assert store.load_latest(CPU)["step"] == 2


def test_final_weights_without_room_leave_the_checkpoints(disk):
    store = Checkpoints(disk)
    store.save(1, state(1))
    with pytest.raises(DiskFull, match=r"final\.pt: the disk is full \(4\.0 MiB to be written"):
        store.save_final({"w": torch.zeros(MIB)}, {})
    assert store.load_latest(CPU)["step"] == 1
    assert store.trained() is None


def test_a_run_on_a_full_disk_ends_by_name_and_goes_on_when_there_is_room(make_spec, tmp_path, disk, resize):
    spec = make_spec(examples_seen=2048)
    undisturbed, _ = trained(spec, tmp_path / "a")
    resize(64 * MIB)
    with pytest.raises(Interrupted):
        trained(spec, disk / "b", stop=StopAfter(2))
    used = sum(file.stat().st_size for file in disk.rglob("*") if file.is_file())
    resize(used + MIB)
    with pytest.raises(DiskFull, match=r"step-0000000\d\d\.pt: the disk is full"):
        trained(spec, disk / "b", Options(checkpoint_seconds=0))
    assert [file.name for file in (disk / "b" / "checkpoints").glob("*step*")] == [
        "step-000000002.pt",
        "step-000000002.pt.sha256",
    ]
    resize(64 * MIB)
    resumed, _ = trained(spec, disk / "b")
    assert_same_bits(undisturbed, resumed)
    assert [line["step"] for line in resumed.read_log()] == list(range(1, 33))


def test_a_log_line_without_room_ends_the_run_by_name(make_spec, disk, resize):
    resize(64 * MIB)
    directory = RunDirectory(disk / "b")
    seen = []

    def fill() -> bool:
        seen.append(None)
        if len(seen) == 3:
            with pytest.raises(OSError, match="No space"), (disk / "other").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        return False

    with pytest.raises(DiskFull, match=r"log\.jsonl: the disk is full"):
        trained(make_spec(examples_seen=6400), directory.path, stop=fill)
    assert len(directory.read_log()) >= 3


def test_a_quota_is_named_too(tmp_path):
    with pytest.raises(DiskFull, match="x: the disk quota is used up"), full_disk_named(tmp_path / "x"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), full_disk_named(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied")
