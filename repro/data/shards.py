"""Shards (tar files as img2dataset writes them) → where each image-caption pair lies, and what they hold.

Each shard is scanned once; its index (byte ranges, 26 bytes a pair) is kept in the cache, so that any sample can be
read by position without reading what is before it. That is what makes the sample order a function of the position
(DESIGN, law 3). Shards behind http(s): and pipe: are copied into the cache first, whole.
"""

import contextlib
import functools
import glob
import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from repro.errors import InputError
from repro.resources import cache_folder
from repro.rundir import write_atomically

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
TEXT, JSON = 0, 1
HEADS_READ = 256
"""The fingerprint reads the first bytes of at most this many shards, evenly spaced."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardIndex:
    """Byte ranges of the pairs of one shard, in the order of the file.

    image, caption: [n, 2] offset and size in bytes. kind: [n] TEXT or JSON, where the caption is from.
    unpaired: samples with an image or a caption only. broken: why reading stopped early, or ''.
    """

    image: np.ndarray
    caption: np.ndarray
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
        if is_remote(part):
            shards += braceexpand.braceexpand(part)
            continue
        if Path(part).is_dir():
            raise InputError(f"--data {part}: is a folder; name the shards in it: '{part.rstrip('/')}/*.tar'")
        named = list(braceexpand.braceexpand(os.path.expanduser(part)))
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
    """Sixteen hexadecimal digits of the shards' names, sizes and first bytes; remote ones by URL."""
    digest = hashlib.sha256()
    step = max(1, len(shards) // HEADS_READ)
    for number, shard in enumerate(shards):
        if is_remote(shard):
            digest.update(f"{shard}\n".encode())
            continue
        path = Path(shard)
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        if number % step == 0:
            with path.open("rb") as file:
                digest.update(file.read(4096))
    return digest.hexdigest()[:16]


def open_shards(shards: list[str], progress: Progress | None = None) -> tuple[list[Path], list[ShardIndex]]:
    """Local files and their indexes; fetches and scans what the cache does not hold yet.

    Raises InputError where no shard has a single image-caption pair.
    """

    def one(shard: str) -> tuple[Path, ShardIndex]:
        file = _fetch(shard) if is_remote(shard) else Path(shard)
        return file, _cached_index(file)

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


def scan(file: Path) -> ShardIndex:
    """Read a tar's headers. A shard that breaks off keeps what came before the break."""
    pairs: list[tuple[tarfile.TarInfo, tarfile.TarInfo, int]] = []
    unpaired, broken = 0, ""
    key, members = "", {}

    def finish_sample() -> None:
        nonlocal unpaired
        image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
        text = members.get("txt") or members.get("json")
        if image is not None and text is not None:
            pairs.append((image, text, TEXT if "txt" in members else JSON))
        elif image is not None or text is not None:
            unpaired += 1

    try:
        with tarfile.open(file) as tar:
            for member in tar:
                folder, name = os.path.split(member.name)
                stem, _, extension = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if os.path.join(folder, stem) != key:
                    finish_sample()
                    key, members = os.path.join(folder, stem), {}
                members[extension.lower()] = member
                tar.members = []  # keeps memory flat over a shard of a million members
            broken = _rest(file, tar.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        broken = f"{type(error).__name__}: {error}"
    finish_sample()
    return ShardIndex(
        np.array([(i.offset_data, i.size) for i, _, _ in pairs], np.int64).reshape(-1, 2),
        np.array([(t.offset_data, t.size) for _, t, _ in pairs], np.int64).reshape(-1, 2),
        np.array([kind for _, _, kind in pairs], np.uint8),
        unpaired,
        broken,
    )


def _rest(file: Path, offset: int) -> str:
    """tarfile takes a damaged header in the middle for the end: whatever is not zero there is damage."""
    with file.open("rb") as stream:
        stream.seek(offset)
        return f"not a tar header at byte {offset}" if stream.read(512).strip(b"\0") else ""


def _cached_index(file: Path) -> ShardIndex:
    """The index from the cache, where the file is the one it was made from; else scan and keep it."""
    stat = file.stat()
    identity = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache_folder() / "index" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError), np.load(kept, allow_pickle=False) as arrays:
        return ShardIndex(
            *(arrays[name] for name in ("image", "caption", "kind")),
            int(arrays["unpaired"]),
            str(arrays["broken"]),
        )
    index = scan(file)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, **vars(index))

    write_atomically(kept, write)
    return index


def _fetch(url: str) -> Path:
    """Copy a remote shard into the cache, once."""
    file = cache_folder() / "shards" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.tar"
    if not file.exists():

        def write(temporary: Path) -> None:
            with _open_remote(url) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

        write_atomically(file, write)
    return file


def _open_remote(url: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Raises InputError where the server or the command says no."""
    if url.startswith("pipe:"):
        from webdataset.gopen import gopen

        return _checked_pipe(gopen(url, "rb"), url)
    import requests

    try:
        response = requests.get(url, stream=True, timeout=60)
        response.raise_for_status()
    except requests.RequestException as error:
        raise InputError(f"--data {url}: {error}") from None
    response.raw.read = functools.partial(response.raw.read, decode_content=True)
    return contextlib.closing(response.raw)


@contextlib.contextmanager
def _checked_pipe(stream: BinaryIO, url: str):
    try:
        yield stream
        stream.close()
    except OSError as error:
        raise InputError(f"--data {url}: the command failed: {error}") from None


def _where_tars_are(file: Path) -> str:
    """What to try instead of a file that is not there: the tars beside it, or the folder that exists."""
    folder = file.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    tars = sorted(folder.glob("*.tar"))
    if tars:
        return f"; {folder} holds {len(tars)} tar files, {tars[0].name} to {tars[-1].name}"
    return f"; the nearest folder that exists is {folder}"
