"""Embeddings on disk: a row a sample in the order of the data, made by many, killed and gone on with, read by runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from repro.bench.measure import peak_growth_bytes
from repro.config.errors import BadData, DiskFull, InputError
from repro.data import embeddings as folders
from repro.data.corruption import Corruption
from repro.data.embeddings import BLOCK, EmbeddedPairs, Embeddings, RowsFile, RowsMap
from repro.data.pairs import Pairs, SampleOrder
from repro.data.shards import list_shards, open_shards
from repro.models import build
from repro.models.embed import embed, embeddings_of
from repro.models.model_config import tokenizer_fingerprint
from tests.ranks import on_ranks


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(folders, "BLOCK", 64)


@pytest.fixture
def shards(write_shard, picture) -> str:
    """Three shards of 100 pairs; in the second, ten samples cannot be used."""

    def samples(first: int, bad: range) -> list[dict[str, bytes]]:
        return [
            {"png": b"no image" if n in bad else picture(n), "txt": f"a grey of {first + n}".encode()}
            for n in range(100)
        ]

    files = [write_shard(f"{n}.tar", samples(100 * n, range(20, 30) if n == 1 else range(0))) for n in range(3)]
    return f"{files[0].parent}/{{0..2}}.tar"


def opened(pattern: str, tower: Path):
    files, indexes = open_shards(list_shards(pattern))
    towers = build.load(tower, weights=True)
    order = SampleOrder([len(index) for index in indexes], 5, 64)
    return Pairs(files, indexes, order, towers.resize, towers.tokenize), towers


def embedded(folder: Path, order: SampleOrder) -> EmbeddedPairs:
    embeddings = Embeddings(folder)
    return EmbeddedPairs(embeddings, order, embeddings.tokens(tokenizer_fingerprint("laptop"), 16))


def test_rows_are_what_the_tower_gives_in_fp32_to_half_precision_and_come_in_the_order_of_the_shards_own_run(
    shards, tower, tmp_path, small_blocks
):
    assert embed(tmp_path / "e", shards, "laptop", str(tower), batch_size=50)
    pairs, towers = opened(shards, tower)
    rows = embedded(tmp_path / "e", pairs.order)
    for positions in (range(0, 128), range(250, 378)):  # the second goes over into the next epoch
        from_images, from_rows = pairs[positions], rows[positions]
        with torch.no_grad():
            exact = F.normalize(towers.model.eval().encode_image(towers.normalize(from_images.images)), dim=-1)
        assert torch.equal(from_images.tokens, from_rows.tokens)
        assert from_images.bad == from_rows.bad
        assert (from_rows.images.float() - exact).abs().max() < 2**-11
    assert from_rows.bad == Counter({("1.tar", "image cannot be decoded (UnidentifiedImageError)"): 4})


@pytest.mark.parametrize("kind", ["text", "batch"])
def test_texts_are_corrupted_as_in_a_run_over_images(shards, tower, tmp_path, kind, make_spec):
    embed(tmp_path / "e", shards, "laptop", str(tower))
    pairs, towers = opened(shards, tower)
    spec = make_spec(corruption=kind, corruption_probability=0.5, batch_size=64)
    corruption = Corruption.of(spec, towers.tokenize, towers.vocabulary_size)
    rows, whole = embedded(tmp_path / "e", pairs.order), embedded(tmp_path / "e", pairs.order)
    rows.corruption = pairs.corruption = corruption
    for positions in (range(64, 96), range(96, 128)):
        assert torch.equal(rows[positions].tokens, pairs[positions].tokens)
        assert not torch.equal(rows[positions].tokens, whole[positions].tokens)


def test_many_positions_at_once_are_the_positions_one_by_one():
    order = SampleOrder([3, 0, 7, 5, 1], seed=3, shuffle_shards=2)
    one_by_one = [order.locate(position) for position in range(5, 45)]
    numbers = order.numbers(range(5, 45)).tolist()
    assert numbers == [int(order.first_of_shard[shard]) + sample for shard, sample in one_by_one]


def share(pattern: str, tower: Path, folder: Path) -> bool:
    folders.BLOCK = 64
    return embed(
        folder, pattern, "laptop", str(tower), rank=int(os.environ["RANK"]), ranks=int(os.environ["WORLD_SIZE"])
    )


def contents(folder: Path) -> dict[str, bytes]:
    whole = [file for file in sorted(folder.glob("*.np[yz]")) if file.name != "bad.npz"]
    return {file.name: file.read_bytes() for file in whole} | {"json": (folder / "embeddings.json").read_bytes()}


def test_two_processes_make_what_one_makes_and_the_last_finishes_the_folder(shards, tower, tmp_path, small_blocks):
    assert embed(tmp_path / "one", shards, "laptop", str(tower))
    assert any(on_ranks(2, share, shards, tower, tmp_path / "two"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


EMBED = "import sys, repro.data.embeddings as f; f.BLOCK = 8; from repro.cli import main; main()"


def test_a_killed_command_goes_on_with_the_blocks_that_are_missing(shards, tower, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "BLOCK", 8)
    assert embed(tmp_path / "one", shards, "laptop", str(tower), batch_size=4)
    options = ["data", "embed", "--model", tower, "--data", shards, "--out", tmp_path / "two", "--batch-size", "4"]
    process = subprocess.Popen([sys.executable, "-c", EMBED, *options])
    records = tmp_path / "two" / "records" / "images"
    until = time.monotonic() + 100
    while len(list(records.glob("0*"))) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {file.name: file.stat().st_mtime_ns for file in records.glob("0*")}
    assert 3 <= len(done) < 38
    with pytest.raises(InputError, match="it is not finished: type its `repro data embed` again"):
        Embeddings(tmp_path / "two")
    said = subprocess.run([sys.executable, "-c", EMBED, *options], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "300 samples, 64 numbers each" in said.stdout
    assert "10 bad ones" in said.stdout
    assert all((records / name).stat().st_mtime_ns == time for name, time in done.items())
    for name, content in contents(tmp_path / "one").items():
        if name != "json":
            assert contents(tmp_path / "two")[name] == content, name


def test_gathering_a_steps_rows_holds_about_the_rows_and_not_the_file(tmp_path):
    count, width, step = 3_000_000, 96, 1 << 20
    rows = RowsFile(tmp_path, "images", "<f2", count, width)
    rows.create()
    with rows.file.open("r+b") as file:  # all pages are there, as after embedding
        file.seek(len(rows.header))
        for block in range(30):
            file.write(np.full((count // 30, width), block, np.float16).tobytes())
    assert rows.file.stat().st_size > folders.STAYS_MAPPED_BYTES
    mapped = RowsMap(rows.file, np.float16, (count, width))
    numbers = np.random.default_rng(0).permutation(count)[:step]
    found = []
    growth = peak_growth_bytes(lambda: found.append(mapped.rows(numbers)), "cpu")
    assert np.array_equal(found[0][:, 0], numbers // (count // 30))
    needed = step * width * 2
    assert needed <= growth < 1.25 * needed + (16 << 20) < rows.file.stat().st_size


def test_a_run_that_names_no_folder_finds_the_caches_and_adds_its_own_text_towers_tokens(make_spec, tower, tmp_path):
    spec = make_spec(
        setup="siglit", pretrained=str(tower), image_learning_rate_multiplier=0, data="shapes:2048", evals=()
    )
    made = embeddings_of(spec)
    assert (made.count, made.dim) == (2048, 64)
    inode = (made.folder / "images.npy").stat().st_ino
    config = json.loads((tower / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["context_length"] = 8
    (tmp_path / "short.json").write_text(json.dumps(config))
    other = embeddings_of(spec.model_copy(update={"model": str(tmp_path / "short.json")}))
    assert (other.folder, (other.folder / "images.npy").stat().st_ino) == (made.folder, inode)
    tokens = other.tokens(tokenizer_fingerprint(str(tmp_path / "short.json")), 8).array
    longer = made.tokens(tokenizer_fingerprint("laptop"), 16).array
    fits = (longer[:, 8:] == 0).all(axis=1)
    assert fits.any()
    assert np.array_equal(tokens[fits], longer[fits, :8])


def siglit(make_spec, tower, **values):
    return make_spec(setup="siglit", pretrained=str(tower), image_learning_rate_multiplier=0, **values)


def test_a_folder_of_other_data_or_of_another_tower_is_refused_with_both_fingerprints(
    make_spec, tower, tmp_path, shards
):
    embed(tmp_path / "e", shards, "laptop", str(tower))
    with pytest.raises(
        InputError, match=r"made with other data: .*\{0\.\.2\}\.tar \(data fingerprint .*expected shapes"
    ):
        embeddings_of(siglit(make_spec, tower, embeddings=str(tmp_path / "e")))
    spec = siglit(make_spec, tower, embeddings=str(tmp_path / "e"), data=shards)
    embeddings_of(spec)
    state = torch.load(tower / "final.pt", weights_only=True)
    state["visual.proj"] += 1
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"made with other tower: laptop .*, pretrained .*instead of .*other\.pt"):
        embeddings_of(spec.model_copy(update={"pretrained": str(tmp_path / "other.pt")}))
    with pytest.raises(InputError, match="precision fp32 instead of bf16"):
        embeddings_of(spec.model_copy(update={"precision": "bf16"}))
    with pytest.raises(InputError, match=r"holds embeddings made with other tower .*name another folder, or remove"):
        embed(tmp_path / "e", shards, "laptop", str(tmp_path / "other.pt"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such file; expected a folder of `repro data embed`"),
        (
            lambda folder: (folder / "embeddings.json").write_text('{"format": 9}'),
            "format 9; this version of repro reads",
        ),
        (lambda folder: (folder / "embeddings.json").write_text("{"), "embeddings.json: not JSON"),
        (
            lambda folder: (
                (folder / "embeddings.json").write_text('{"format": 1, "count": 5, "dim": 4}'),
                np.save(folder / "images.npy", np.zeros((4, 4), np.float16)),
            ),
            r"holds float16 \[4, 4\], expected float16 \[5, 4\]",
        ),
    ],
)
def test_a_folder_that_is_none_says_what_is_wrong(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(InputError, match=message):
        Embeddings(tmp_path)


def test_a_full_disk_is_found_before_the_work_and_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 30))
    with pytest.raises(DiskFull, match=r"images\.npy: the disk is full \(1\.5 GiB to be written, 1\.0 GiB free"):
        RowsFile(tmp_path, "images", "<f2", 1 << 20, 768).create()


def test_room_for_terabytes_takes_none_and_what_is_there_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 44))
    rows = RowsFile(tmp_path, "images", "<f2", 1 << 30, 768)
    rows.create()
    rows.write(1, np.ones((BLOCK, 768), np.float16))
    rows.create()
    assert rows.file.stat().st_size > 1.6e12 and rows.file.stat().st_blocks * 512 < 64 << 20
    assert np.load(rows.file, mmap_mode="r")[BLOCK : BLOCK + 2].tolist() == [[1.0] * 768] * 2


def test_data_of_which_nothing_is_usable_end_as_bad_data(write_shard, tower, tmp_path):
    file = write_shard("bad.tar", [{"png": b"no image", "txt": b"a caption"}] * 5)
    embed(tmp_path / "e", str(file), "laptop", str(tower))
    refused = embedded(tmp_path / "e", SampleOrder([5], 0, 1))[range(3)]
    assert isinstance(refused, BadData)
    assert refused.counts == Counter({("bad.tar", "image cannot be decoded (UnidentifiedImageError)"): 100})
