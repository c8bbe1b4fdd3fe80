"""Broken shards: what a run makes of them, and what is refused before one starts."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from repro import results
from repro.launch import JobSettings, launch
from tests.drill.conftest import not_as_root, overwrite, pairs, picture, small_cell, typed, write_tar

SAMPLE = 4 * 512
"""What a pair takes in these tars: header and image, header and caption."""
EACH = 32


class Kind(NamedTuple):
    """What is done to the last of four shards of 32 pairs, before or after the run is made; what comes of it."""

    damage: Callable[[Path], object]
    status: str
    reason: str
    bad_samples: int = 0
    later: bool = False


def with_samples(**files: bytes) -> Callable[[Path], object]:
    return lambda shard: write_tar(shard, [files] * EACH)


def one_bad_sample(shard: Path) -> None:
    write_tar(shard, [{"png": b"no image", "txt": b"a caption"}, *pairs(EACH)[1:]])


def all_bad(shard: Path) -> None:
    for each in shard.parent.glob("*.tar"):
        write_tar(each, [{"png": b"no image", "txt": b"a caption"}] * EACH)


def garbage_in_place(shard: Path) -> None:
    """The index in the cache stays that of the good shard: neither its size nor its time changes."""
    before = shard.stat()
    overwrite(shard, b"\x93" * (SAMPLE * 20), at=SAMPLE * 10)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))


BOMB = picture(0, size=(20_000, 20_000), mode="1")

KINDS = {
    "not a tar": Kind(lambda s: s.write_text("<html>" * 999), "bad-data", "3.tar: broken tar (not a tar file) (32)"),
    "empty file": Kind(lambda s: s.write_bytes(b""), "bad-data", "3.tar: broken tar (an empty file) (32)"),
    "compressed": Kind(
        lambda s: s.write_bytes(gzip.compress(s.read_bytes())),
        "bad-data",
        "compressed (gzip); unpack it to a plain tar, in which samples are read by their place) (32)",
    ),
    "cut off in a member": Kind(
        lambda s: os.truncate(s, 3 * SAMPLE + 520), "bad-data", "3.tar: broken tar (ReadError: unexpected end of data)"
    ),
    "zeros in the middle": Kind(
        lambda s: overwrite(s, bytes(SAMPLE), at=9 * SAMPLE), "bad-data", "with data after the end) (23)"
    ),
    "garbage header": Kind(
        lambda s: overwrite(s, b"\x93" * 512, at=9 * SAMPLE), "bad-data", "not a tar header at byte 18432) (23)"
    ),
    "data after the end": Kind(lambda s: s.write_bytes(s.read_bytes() + b"more" * 999), "finished", "", bad_samples=1),
    "images only": Kind(with_samples(png=picture(1)), "bad-data", "3.tar: image or caption missing (32)"),
    "captions only": Kind(with_samples(txt=b"a caption"), "bad-data", "3.tar: image or caption missing (32)"),
    "empty captions": Kind(with_samples(png=picture(1), txt=b" \n"), "bad-data", "3.tar: empty caption ("),
    "captions in no encoding": Kind(
        with_samples(png=picture(1), txt=b"\xff\xfe\x93"), "bad-data", "3.tar: caption cannot be read ("
    ),
    "JSON that is broken": Kind(
        with_samples(png=picture(1), json=b'{"caption": "a'), "bad-data", "3.tar: caption cannot be read ("
    ),
    "JSON that is a list": Kind(
        with_samples(png=picture(1), json=b'["a caption"]'), "bad-data", "3.tar: caption cannot be read ("
    ),
    "JSON without a caption": Kind(
        with_samples(png=picture(1), json=b'{"text": "a"}'), "bad-data", "3.tar: empty caption ("
    ),
    "images that cannot be decoded": Kind(
        with_samples(png=b"no image", txt=b"a"), "bad-data", "image cannot be decoded (UnidentifiedImageError) ("
    ),
    "images cut off": Kind(
        with_samples(png=picture(1, (64, 64))[:-30], txt=b"a"), "bad-data", "3.tar: image cannot be decoded ("
    ),
    "images of absurd size": Kind(
        with_samples(png=BOMB, txt=b"a"), "bad-data", "image cannot be decoded (DecompressionBombError) ("
    ),
    "nothing but bad samples": Kind(all_bad, "bad-data", "100 bad samples in a row, most in "),
    "one bad sample of many": Kind(one_bad_sample, "finished", "", bad_samples=1),
    "deleted before the run": Kind(Path.unlink, "failed", "1 of 4 shards are missing, first ", later=True),
    "changed before the run": Kind(
        lambda s: write_tar(s, pairs(EACH // 2)), "failed", "a shard was changed, added or removed", later=True
    ),
    "damaged in place before the run": Kind(garbage_in_place, "bad-data", "3.tar: ", later=True),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory, cache) -> dict[str, dict]:
    """Every kind in a run of its own, all launched together: their rows of the results table."""
    folder = tmp_path_factory.mktemp("shards")
    cells = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        for shard in range(4):
            write_tar(folder / f"{number}" / f"{shard}.tar", pairs(EACH))
        if not kind.later:
            kind.damage(folder / f"{number}" / "3.tar")
        cells[name] = small_cell(folder / "runs", data=f"{folder}/{number}/{{0..3}}.tar", learning_rate=1e-3 + number)
    for number, kind in enumerate(KINDS.values()):
        if kind.later:
            kind.damage(folder / f"{number}" / "3.tar")
    launch(list(cells.values()), JobSettings(), executor="inline")
    return {name: results.row(cell.directory) for name, cell in cells.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_run_on_broken_shards_ends_with_status_and_reason(rows, name):
    kind, row = KINDS[name], rows[name]
    assert (row["status"], kind.reason in row["reason"]) == (kind.status, True), row["reason"]
    if kind.status == "finished":
        assert row["bad_samples"] == kind.bad_samples
    if kind.status == "bad-data" and "in a row" not in kind.reason:
        assert "more than the allowed 1.0% (max_bad_share)" in row["reason"]


def test_on_two_ranks_a_shard_deleted_before_the_run_is_the_reason_too(tmp_path, cache):
    for shard in range(4):
        write_tar(tmp_path / f"{shard}.tar", pairs(EACH))
    cell = small_cell(tmp_path / "runs", data=f"{tmp_path}/{{0..3}}.tar")
    (tmp_path / "2.tar").unlink()
    launch([cell], JobSettings(ranks=2))
    result = cell.directory.read_result()
    assert (result["status"], "1 of 4 shards are missing, first " in result["reason"]) == ("failed", True), result


def test_an_image_over_the_limit_is_never_decoded():
    assert len(BOMB) < 100_000  # 400 million pixels


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_tar(tmp_path / "cc" / f"{number}.tar", pairs(2))
    write_tar(tmp_path / "images" / "0.tar", [{"png": picture(1)}])
    write_tar(tmp_path / "captions" / "0.tar", [{"txt": b"a caption"}])
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "0.tar").write_bytes(gzip.compress((tmp_path / "cc" / "0.tar").read_bytes()))
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("cc/*.tgz", "--data cc/*.tgz: no such file; cc holds 3 tar files, 0.tar to 2.tar"),
        ("dd/{0..2}.tar", "--data dd/{0..2}.tar: no such file; the nearest folder that exists is ."),
        ("cc/{0..5}.tar", "3 of 6 shards are missing, first cc/3.tar"),
        ("cc/{0..2.tar", "a brace has no partner; expected such as {00000..01242}"),
        ("cc", "is a folder; name the shards in it: 'cc/*.tar'"),
        ("cc/0.tar::", "names no shards"),
        ("images/0.tar", "no image-caption pair in 1 shard(s), first {folder}/images/0.tar; expected samples with jpg"),
        ("captions/0.tar", "no image-caption pair in 1 shard(s)"),
        ("packed/0.tar", "packed/0.tar: compressed (gzip); unpack it"),
    ],
)
def test_shards_that_no_run_could_use_are_refused_before_one_starts(folder, repro, pattern, message):
    done = repro("sweep", "batch-size", "--data", pattern)
    assert (done.exit_code, message.replace("{folder}", str(folder)) in done.output) == (2, True), done.output
    assert not list(folder.glob("runs/*/*/spec.json"))


@not_as_root
def test_shards_that_may_not_be_read_are_refused(folder, repro):
    (folder / "cc" / "0.tar").chmod(0)
    done = repro("sweep", "batch-size", "--data", "cc/{0..2}.tar")
    assert (done.exit_code, "cc/0.tar: cannot be read (Permission denied)" in done.output) == (2, True)


def test_what_the_scan_cannot_use_is_said_at_the_start_and_counted_at_the_end(folder, repro):
    os.truncate(folder / "cc" / "2.tar", SAMPLE)
    small = ["--batch-size", 64, "--examples", 64, "--loss", "sigmoid", "--set", "max_bad_share=0.5"]
    done = repro("sweep", "batch-size", *small, "--data", "cc/{0..2}.tar", "--executor", "inline")
    assert done.exit_code == 0, done.output
    assert "cannot be used: 2.tar: broken tar (breaks off at byte 2048) (1 samples)" in done.output
    assert results.load(folder / "runs", "batch-size")["bad_samples"].tolist() == [1]


def test_the_check_of_shards_says_so_too(folder, repro):
    os.truncate(folder / "cc" / "2.tar", SAMPLE)
    done = typed("data", "check", "cc/{0..2}.tar", "--out", folder / "sheet.png")
    assert done.exit_code == 1
    assert "A run would refuse these data: 1 of 6 samples lack an image or a caption" in done.output
