"""Shards (tar files as img2dataset writes them) → where each image-caption pair lies, and what they hold.

Each shard is scanned once; its index (byte ranges, 49 bytes a pair) is kept in the cache, so that any sample can be
read by position without reading what is before it. That is what makes the sample order a function of the position
(docs/architecture.md, law 3). Shards behind http(s): and pipe: are copied into the cache first, whole.
"""

import contextlib
import glob
import hashlib
import os
import re
import subprocess
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from repro.config.errors import InputError
from repro.config.files import cache_folder, write_atomically
from repro.data.network import MayPass, may_pass, retried

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
TEXT, JSON = 0, 1
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
HEADS_READ = 256
"""The fingerprint reads the first bytes of at most this many shards, evenly spaced."""
NO_SUCH_COMMAND = (126, 127)
SCAN_VERSION = 2
"""Raised when a scan finds something else in the same file: indexes kept in the cache are then rebuilt."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardIndex:
    """Byte ranges of the pairs of one shard, in the order of the file.

    image, caption, json: [n, 2] offset and size in bytes, (0, 0) where a sample has no json. kind: [n] TEXT or JSON,
    where the caption is from.
    unpaired: samples with an image or a caption only. broken: why reading stopped early, or ''.
    """

    image: np.ndarray
    caption: np.ndarray
    json: np.ndarray
    kind: np.ndarray
    unpaired: int
    broken: str

    def __len__(self) -> int:
        return len(self.kind)


def list_shards(pattern: str) -> list[str]:
    """Files and URLs that a pattern names: braces {00000..00031}, *, and several patterns joined by '::'.

    Raises InputError for a pattern that matches nothing, or names files that are missing.
    """
    import braceexpand

    shards: list[str] = []
    for part in pattern.split("::"):
        if not part:
            raise InputError(f"--data '{pattern}': names no shards; expected such as 'cc12m/{{00000..01242}}.tar'")
        try:
            named = list(braceexpand.braceexpand(part))
        except braceexpand.UnbalancedBracesError:
            raise InputError(f"--data {part}: a brace has no partner; expected such as {{00000..01242}}") from None
        if is_remote(part):
            shards += named
            continue
        if "://" in part:
            raise InputError(
                f"--data {part}: {part.partition('://')[0]}:// is not read; expected files, http:// or https://, or a "
                f"command that writes a shard, such as 'pipe:aws s3 cp {part} -'"
            )
        if Path(part).expanduser().is_dir():
            raise InputError(f"--data {part}: is a folder; name the shards in it: '{part.rstrip('/')}/*.tar'")
        named = [os.path.expanduser(name) for name in named]
        found = [sorted(glob.glob(name)) if any(c in name for c in "*?[") else [name] for name in named]
        missing = [name for name, files in zip(named, found, strict=True) if not files or not Path(files[0]).is_file()]
        if len(missing) == len(named):
            raise InputError(f"--data {part}: no such file{_where_tars_are(Path(named[0]))}")
        if missing:
            raise InputError(f"--data {part}: {len(missing)} of {len(named)} shards are missing, first {missing[0]}")
        shards += [file for files in found for file in files]
    return shards


def is_remote(name: str) -> bool:
    return name.startswith(("pipe:", "http://", "https://"))


def fingerprint(shards: list[str]) -> str:
    """Sixteen hexadecimal digits of the shards' names, sizes and first bytes; remote ones by URL.

    Raises InputError for a shard that cannot be read.
    """
    digest = hashlib.sha256()
    step = -(-len(shards) // HEADS_READ)
    for number, shard in enumerate(shards):
        if is_remote(shard):
            digest.update(f"{shard}\n".encode())
            continue
        path = Path(shard)
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        if number % step == 0:
            try:
                with path.open("rb") as file:
                    digest.update(file.read(4096))
            except OSError as error:
                raise InputError(f"--data {shard}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()[:16]


def open_shards(shards: list[str], progress: Progress | None = None) -> tuple[list[Path], list[ShardIndex]]:
    """Local files and their indexes; fetches and scans what the cache does not hold yet.

    Raises InputError where no shard has a single image-caption pair.
    """

    def one(shard: str) -> tuple[Path, ShardIndex]:
        file = _fetch(shard) if is_remote(shard) else Path(shard)
        return file, open_index(file)

    opened = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for result in pool.map(one, shards):
            opened.append(result)
            if progress is not None:
                progress(len(opened), len(shards))
    files, indexes = [file for file, _ in opened], [index for _, index in opened]
    if not sum(map(len, indexes)):
        broken = next((f"; {file}: {index.broken}" for file, index in opened if index.broken), "")
        raise InputError(
            f"--data: no image-caption pair in {len(shards)} shard(s), first {shards[0]}; expected samples with "
            f"{'/'.join(IMAGE_EXTENSIONS)} and txt (or json with a caption){broken}"
        )
    return files, indexes


def count_unusable(names: list[str], indexes: list[ShardIndex]) -> Counter:
    """(shard, reason) → samples that the scan could not pair. What a broken shard lost is taken from the median one."""
    usual = sorted(map(len, indexes))[len(indexes) // 2]
    unusable: Counter = Counter()
    for name, index in zip(names, indexes, strict=True):
        if index.unpaired:
            unusable[name, "image or caption missing"] += index.unpaired
        if index.broken:
            unusable[name, f"broken tar ({index.broken})"] += max(1, usual - len(index))
    return unusable


def scan(file: Path) -> ShardIndex:
    """Read a tar's headers. A shard that breaks off keeps what came before the break."""
    pairs: list[tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]] = []
    unpaired, broken = 0, ""
    key, members = "", {}

    def finish_sample() -> None:
        nonlocal unpaired
        image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
        text = members.get("txt") or members.get("json")
        if image is not None and text is not None:
            pairs.append((image, text, members.get("json", (0, 0)), TEXT if "txt" in members else JSON))
        elif image is not None or text is not None:
            unpaired += 1

    try:
        with tarfile.open(file, "r:", tarinfo=_Member) as tar:
            for member in tar:
                tar.members = []  # keeps memory flat over a shard of a million members
                folder, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if folder + slash + stem != key:
                    finish_sample()
                    key, members = folder + slash + stem, {}
                members[extension.lower()] = (member.offset_data, member.size)
            broken = _rest(file, tar.offset)
    except tarfile.TarError as error:
        broken = f"{type(error).__name__}: {error}" if key else _what_it_is(file)
    except (OSError, EOFError) as error:
        broken = f"{type(error).__name__}: {error}"
    finish_sample()
    return ShardIndex(
        *(np.array([pair[place] for pair in pairs], np.int64).reshape(-1, 2) for place in range(3)),
        np.array([kind for *_, kind in pairs], np.uint8),
        unpaired,
        broken,
    )


class _Member(tarfile.TarInfo):
    """A tar header, of which plain files are read three times as fast: name and size are all that a scan needs."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:
        plain = len(buf) == tarfile.BLOCKSIZE and buf[156:157] == tarfile.REGTYPE
        if not plain or sum(buf) - sum(buf[148:156]) + 8 * ord(" ") != tarfile.nti(buf[148:156]):
            return super().frombuf(buf, encoding, errors)  # folders, extended headers, damage
        name, folder = (tarfile.nts(part, encoding, errors) for part in (buf[:100], buf[345:500]))
        member = cls(f"{folder}/{name}" if folder else name)
        member.size = tarfile.nti(buf[124:136])
        return member


def _rest(file: Path, offset: int) -> str:
    """tarfile takes damage in the middle for the end: after a true end come zeros, and nothing else."""
    with file.open("rb") as stream:
        stream.seek(offset)
        header = stream.read(tarfile.BLOCKSIZE)
        if not header:
            return f"breaks off at byte {offset}"
        if header.strip(b"\0"):
            return f"not a tar header at byte {offset}"
        while block := stream.read(1 << 20):
            if block.strip(b"\0"):
                return f"ends at byte {offset} of {file.stat().st_size}, with data after the end"
    return ""


def _what_it_is(file: Path) -> str:
    """Describe a file that does not begin like a tar."""
    with file.open("rb") as stream:
        head = stream.read(8)
    for magic, method in COMPRESSED.items():
        if head.startswith(magic):
            return f"compressed ({method}); unpack it to a plain tar, in which samples are read by their place"
    return "not a tar file" if head else "an empty file"


def open_index(file: Path) -> ShardIndex:
    """The index from the cache, where the file is the one it was made from; else scan and keep it."""
    stat = file.stat()
    identity = f"{SCAN_VERSION} {file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache_folder() / "index" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"
    unreadable = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with contextlib.suppress(*unreadable), np.load(kept, allow_pickle=False) as arrays:
        return ShardIndex(
            *(arrays[name] for name in ("image", "caption", "json", "kind")),
            int(arrays["unpaired"]),
            str(arrays["broken"]),
        )
    index = scan(file)
    write_arrays(kept, **vars(index))
    return index


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """A .npz, whole or not there."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    write_atomically(file, write)


def evenly(sizes: list[int], samples: int | None) -> list[tuple[int, int]]:
    """(shard, number in it) of so many samples at even distances over all shards, in order; None for all."""
    total = sum(sizes)
    positions = np.linspace(0, total - 1, min(samples or total, total)).round().astype(np.int64)
    ends = np.cumsum(sizes)
    shards = np.searchsorted(ends, positions, side="right")
    return list(zip(shards.tolist(), (positions - (ends - sizes)[shards]).tolist(), strict=True))


def read_range(file: Path, place: np.ndarray) -> bytes:
    """The bytes of one of an index's ranges."""
    with file.open("rb") as stream:
        stream.seek(int(place[0]))
        return stream.read(int(place[1]))


def _fetch(url: str) -> Path:
    """Copy a remote shard into the cache, once. Raises InputError where nothing comes, or no tar file."""
    readable = re.sub(r"[^\w.-]+", "-", url.split("?")[0].removesuffix(".tar"))[-60:]
    file = cache_folder() / "shards" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.tar"

    def write(temporary: Path) -> None:
        retried(f"--data {url}", lambda: _download(url, temporary))
        if not tarfile.is_tarfile(temporary):
            # Servers and commands answer with a page that says "not found": it must not stay in the cache.
            with temporary.open("rb") as stream:
                raise InputError(f"--data {url}: expected a tar file; what came begins with {stream.read(40)!r}")

    if not file.exists():
        write_atomically(file, write)
    return file


def _download(url: str, file: Path) -> None:
    """From the beginning, whatever an earlier try left. Raises InputError where the server or the command says no.

    A command's exit code does not say whether another try would help, so it gets one, unless there is no such command.
    """
    if url.startswith("pipe:"):
        with file.open("wb") as target:
            command = url.removeprefix("pipe:")
            status = subprocess.run(command, shell=True, stdout=target).returncode  # noqa: S602 the person's own
        if status in NO_SUCH_COMMAND:
            raise InputError(f"--data {url}: there is no such command (exit code {status})")
        if status:
            raise MayPass(f"the command failed with exit code {status}")
        return
    import requests

    try:
        with file.open("wb") as target, requests.get(url, stream=True, timeout=60) as response:
            response.raise_for_status()
            for block in response.iter_content(1 << 20):
                target.write(block)
    except requests.RequestException as error:
        if may_pass(error):
            raise
        raise InputError(f"--data {url}: {error}") from None


def _where_tars_are(file: Path) -> str:
    """Suggest what to try instead of a file that is not there: the tars beside it, or the folder that exists."""
    folder = file.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    tars = sorted(folder.glob("*.tar"))
    if tars:
        return f"; {folder} holds {len(tars)} tar files, {tars[0].name} to {tars[-1].name}"
    return f"; the nearest folder that exists is {folder}"
