"""Embeddings of a data set's images, made once by a frozen tower: a folder that training reads instead of images.

One row a sample, in the data set's own order, in half precision, memory-mapped; captions beside them, and their tokens
for each text tower that was trained on them. Many processes fill the rows block by block, with no word between them:
what is finished is known by a record of each block, put in place after its rows are on disk.

embeddings.json        what made them: fingerprints of tower and data, shards, bad samples; there once all are made
making.json            the same identity, from the beginning
model.json             the tower's model config, for a text tower to be trained with it
images.npy             [N, d] float16, L2-normalised; rows of bad samples are zero
bad.npz                numbers of the bad samples, and why
captions/00012.npz     of a block: UTF-8 text, where each caption ends, bad samples
tokens-<tokenizer>.npy [N, L] int32, and tokens-<tokenizer>.json once all are made
records/<name>/00012   finished blocks
"""

import contextlib
import errno
import io
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.config.errors import BadData, InputError
from repro.config.files import CorruptRun, full_disk_named, read_object, write_text
from repro.data.corruption import Corruption
from repro.data.pairs import MOST_SUBSTITUTES, PairBatch, SampleOrder
from repro.data.shards import write_arrays

FORMAT = 1
BLOCK = 8192
"""Samples of a block: what is lost at most, of each process, when embedding is killed."""
GATHERED = 1024
"""Rows copied out of the map at a time, in the order of the file."""
STAYS_MAPPED_BYTES = 256 << 20
"""Pages of a larger file are given back once read: else they count as the run's memory."""


class RowsFile:
    """A .npy of [count, width] rows that many processes fill block by block."""

    def __init__(self, folder: Path, name: str, dtype: str, count: int, width: int):
        self.file, self.records = folder / f"{name}.npy", folder / "records" / name
        self.dtype, self.shape = np.dtype(dtype), (count, width)
        header = io.BytesIO()
        values = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(header, values)
        self.header = header.getvalue()

    def create(self) -> None:
        """The file at its full length, without its rows: any number of processes may do it at once.

        Raises DiskFull, before the work, where there is no room for the rows that are not there yet. Room is not taken:
        file systems that cannot do so at once would write all of it.
        """
        size = len(self.header) + self.dtype.itemsize * self.shape[0] * self.shape[1]
        self.records.mkdir(parents=True, exist_ok=True)
        with full_disk_named(self.file, size), self._opened() as descriptor:
            held = os.fstat(descriptor).st_blocks * 512
            if size - held > shutil.disk_usage(self.file.parent).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.pwrite(descriptor, self.header, 0)
            os.truncate(descriptor, size)

    def write(self, block: int, rows: np.ndarray) -> None:
        """Rows on disk first, then the record. By pwrite: a full disk is then an error, and no signal."""
        content = np.ascontiguousarray(rows, self.dtype).tobytes()
        place = len(self.header) + block * BLOCK * self.dtype.itemsize * self.shape[1]
        with full_disk_named(self.file, len(content)):
            with self._opened() as descriptor:
                while content:
                    written = os.pwrite(descriptor, content, place)
                    content, place = content[written:], place + written
                os.fsync(descriptor)
            write_text(self.records / f"{block:05d}", "")

    def missing(self) -> list[int]:
        """Blocks without a record."""
        found = {path.name for path in self.records.glob("[0-9]*")} if self.records.is_dir() else set()
        return [block for block in range(blocks(self.shape[0])) if f"{block:05d}" not in found]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def blocks(count: int) -> int:
    return -(-count // BLOCK)


def numbers_of(block: int, count: int) -> range:
    return range(block * BLOCK, min((block + 1) * BLOCK, count))


def write_captions(folder: Path, block: int, captions: Sequence[str], bad: dict[int, str]) -> None:
    """captions: of all samples of a block, '' for the bad ones. bad: number in the data set → reason."""
    text = [caption.encode() for caption in captions]
    arrays = {
        "text": np.frombuffer(b"".join(text), np.uint8),
        "ends": np.cumsum([len(each) for each in text], dtype=np.int64),
        "bad": np.array(list(bad), np.int64),
        "reasons": np.array(list(bad.values()), dtype=np.str_),
    }
    with full_disk_named(folder):
        write_arrays(folder / "captions" / f"{block:05d}.npz", **arrays)


def read_captions(folder: Path, block: int) -> tuple[list[str], dict[int, str]]:
    with np.load(folder / "captions" / f"{block:05d}.npz", allow_pickle=False) as arrays:
        text, ends = arrays["text"].tobytes(), arrays["ends"].tolist()
        bad = dict(zip(arrays["bad"].tolist(), arrays["reasons"].tolist(), strict=True))
    starts = [0, *ends[:-1]]
    return [text[start:end].decode() for start, end in zip(starts, ends, strict=True)], bad


class Embeddings:
    """A finished folder, opened for reading. Raises InputError where it is not one."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        try:
            self.content: dict[str, Any] = read_object(self.folder / "embeddings.json")
        except CorruptRun as error:
            unfinished = (self.folder / "making.json").exists()
            advice = "; it is not finished: type its `repro data embed` again" if unfinished else ""
            raise InputError(f"embeddings {folder}: {error}{advice}; expected a folder of `repro data embed`") from None
        if self.content.get("format") != FORMAT:
            raise InputError(
                f"embeddings {folder}: format {self.content.get('format')}; this version of repro reads {FORMAT}"
            )
        self.count, self.dim = self.content["count"], self.content["dim"]
        self.images = RowsMap(self.folder / "images.npy", np.float16, (self.count, self.dim))

    def check(self, data: str, data_fingerprint: str, tower: dict[str, Any]) -> None:
        """Raises InputError where they are of other data, or were made by another tower."""
        expected = {"data": (data, data_fingerprint), "tower": (tower["model"], tower["tower_fingerprint"])}
        made_of = {
            "data": (self.content["data"], self.content["data_fingerprint"]),
            "tower": (self.content["model"], self.content["tower_fingerprint"]),
        }
        for what, (name, fingerprint) in expected.items():
            found_name, found = made_of[what]
            if found != fingerprint:
                differing = [key for key in ("pretrained", "precision") if self.content[key] != tower[key]]
                more = "".join(f", {key} {self.content[key]} instead of {tower[key]}" for key in differing)
                raise InputError(
                    f"embeddings {self.folder}: made with other {what}: {found_name} ({what} fingerprint {found}), "
                    f"expected {name} ({fingerprint}){more if what == 'tower' else ''}; name another folder, or leave "
                    "embeddings empty for the cache's"
                )

    @cached_property
    def shards(self) -> tuple[list[str], list[int]]:
        """Names and sizes, in the data set's order."""
        names, sizes = zip(*self.content["shards"], strict=True)
        return list(names), list(sizes)

    @property
    def unusable(self) -> Counter:
        """Samples that the scan of the shards could not pair: (shard, reason) → count."""
        return Counter({(shard, reason): count for shard, reason, count in self.content["unusable"]})

    @cached_property
    def bad(self) -> tuple[np.ndarray, list[str]]:
        """Numbers of the bad samples, ascending, and why each is bad."""
        with np.load(self.folder / "bad.npz", allow_pickle=False) as arrays:
            return arrays["numbers"], arrays["reasons"].tolist()

    def tokens(self, tokenizer: str, context_length: int) -> "RowsMap":
        """Raises InputError where there are none of this tokenizer (a fingerprint)."""
        if not (self.folder / f"tokens-{tokenizer}.json").exists():
            raise InputError(f"embeddings {self.folder}: no tokens of the tokenizer {tokenizer}")
        return RowsMap(self.folder / f"tokens-{tokenizer}.npy", np.int32, (self.count, context_length))


class RowsMap:
    """A .npy in the address space, rows of which are copied out in the order that is asked for."""

    def __init__(self, file: Path, dtype: type, shape: tuple[int, int]):
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"embeddings {file}: cannot be read: {error}") from None
        if array.dtype != dtype or array.shape != shape:
            raise InputError(
                f"embeddings {file}: holds {array.dtype} {list(array.shape)}, expected "
                f"{np.dtype(dtype)} {list(shape)}; remove the folder and embed again"
            )
        self.array, self.map = np.asarray(array), array._mmap

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """[n, width]: the rows alone are copied, and of a large file no other page stays in memory."""
        stays = self.array.nbytes <= STAYS_MAPPED_BYTES
        if stays:
            return self.array[numbers]
        out = np.empty((len(numbers), self.array.shape[1]), self.array.dtype)
        order = np.argsort(numbers, kind="stable")
        for first in range(0, len(order), GATHERED):
            some = order[first : first + GATHERED]
            out[some] = self.array[numbers[some]]
            self.map.madvise(mmap.MADV_DONTNEED)
        return out


class EmbeddedPairs(torch.utils.data.Dataset):
    """Ranges of positions → PairBatch with embeddings for images, in the order that the shards would be read in.

    A bad sample gives its place to the same position of the next epoch, as it does in Pairs.
    """

    chunk = 1 << 30
    """A step's share is read in one piece."""

    def __init__(
        self, embeddings: Embeddings, order: SampleOrder, tokens: RowsMap, corruption: Corruption | None = None
    ):
        self.embeddings, self.order, self.tokens, self.corruption = embeddings, order, tokens, corruption

    def __getitem__(self, positions: range) -> PairBatch | BadData:
        numbers, bad = self.order.numbers(positions), Counter()
        try:
            for place in np.flatnonzero(self._is_bad(numbers)).tolist():
                numbers[place] = self._usable(positions[place], bad)
            images = torch.from_numpy(self.embeddings.images.rows(numbers))
            tokens = self.tokens.rows(numbers) if self.corruption is None else self._corrupted(positions)
        except BadData as error:
            return error.with_traceback(None)
        return PairBatch(images, torch.from_numpy(tokens).long(), bad)

    def _corrupted(self, positions: range) -> np.ndarray:
        """[n, L] tokens that a run which corrupts its texts or their order shows at the positions."""
        from_where = [self.corruption.text_position(position) for position in positions]
        tokens = self.tokens.rows(np.array([self._usable(position, Counter()) for position in from_where]))
        return np.stack([self.corruption.tokens_at(p, row) for p, row in zip(positions, tokens, strict=True)])

    def _is_bad(self, numbers: np.ndarray) -> np.ndarray:
        all_bad = self.embeddings.bad[0]
        return np.isin(numbers, all_bad) if len(all_bad) else np.zeros(len(numbers), bool)

    def _usable(self, position: int, bad: Counter) -> int:
        for number in self._in_turn(position):
            found = int(np.searchsorted(self.embeddings.bad[0], number))
            if found == len(self.embeddings.bad[0]) or self.embeddings.bad[0][found] != number:
                return number
            bad[self._shard_of(number), self.embeddings.bad[1][found]] += 1
        (shard_name, reason), _ = bad.most_common(1)[0]
        raise BadData(f"{MOST_SUBSTITUTES} bad samples in a row, most in {shard_name}: {reason}", bad)

    def _in_turn(self, position: int) -> Iterator[int]:
        for attempt in range(MOST_SUBSTITUTES):
            substitute = position + attempt * self.order.total
            yield int(self.order.numbers(range(substitute, substitute + 1))[0])

    def _shard_of(self, number: int) -> str:
        shard = int(np.searchsorted(self.order.first_of_shard, number, side="right")) - 1
        return self.embeddings.shards[0][shard]
