"""Broken input of every kind, and what the drills share: small good data to break, and the command as people type it.

Kinds that end a run are launched together, so that one start of processes serves them all.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from repro.cli import main
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch import Cell
from repro.launch.complete import complete

Files = dict[str, bytes]
"""One sample: extension → content, in the order of the tar."""

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture
def repro(monkeypatch) -> Callable[..., Result]:
    """repro("status", "--runs", folder): the command in this process; lines are not folded."""
    monkeypatch.setenv("COLUMNS", "1000")
    return typed


def typed(*arguments: object) -> Result:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert "Traceback" not in done.output
    return done


def small_cell(runs: Path, **values: object) -> Cell:
    """A run of two steps; any field of its spec changed."""
    small = {"data": "shapes:2048", "evals": (), "examples_seen": 128, "batch_size": 64, "loss": "sigmoid"}
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({}, small | values)))
    return Cell.of(spec, runs, "drill")


def picture(level: int, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, (level % 256,) * 3 if mode == "RGB" else level % 2).save(stream, "PNG")
    return stream.getvalue()


def pairs(count: int) -> list[Files]:
    return [{"png": picture(number), "txt": f"level {number}".encode()} for number in range(count)]


def write_tar(file: Path, samples: Iterable[Files]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for number, files in enumerate(samples):
            for extension, content in files.items():
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file


def eval_folder(folder: Path, samples: list[Files] | None = None) -> Path:
    """A clip-benchmark data set of two classes and one tar."""
    default = [{"png": picture(number), "cls": str(number % 2).encode()} for number in range(8)]
    write_tar(folder / "test" / "0.tar", default if samples is None else samples)
    (folder / "test" / "nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("dark\nlight\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} square\n")
    return folder


def overwrite(file: Path, content: bytes, at: int) -> None:
    """In place, as a failing disk does: the size stays."""
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(content)
