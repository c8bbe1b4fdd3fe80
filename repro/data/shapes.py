"""The embedded world "shapes": drawn scenes with true captions, so that everything runs without a download.

It is written once, as shards for training and two clip-benchmark data sets, and read by the code that reads
the user's own data. Example i of a seed is the same however many examples are made and however many processes
draw them: each block of examples has its own random stream. What scenes hold, and how hard they are to tell
apart, is in shapes_scenes.py.
"""

import json
import random
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import numpy as np

from repro.data import shapes_scenes as world
from repro.data.evalsets import SHAPES
from repro.data.shapes_captions import Lot, caption
from repro.data.shapes_drawing import draw
from repro.errors import InputError

WORLD_VERSION = 1
"""Raised whenever the same seed gives other bytes."""

BLOCK, SHARD = 1024, 8192  # examples; a shard is a whole number of blocks
CLASSIFICATION_IMAGES, RETRIEVAL_IMAGES = 21 * len(world.CLASSES), 1000
EVAL_SHARDS, EVAL_BATCH = 4, 64
"""Workers and batch of clip-benchmark's command, by default."""
OBJECTS, RETRIEVAL = SHAPES
TEMPLATES = ("a {c}", "a picture of a {c}", "a photo of a {c}", "there is a {c}")
_TRAIN_SPLIT, _OBJECTS_SPLIT, _RETRIEVAL_SPLIT = range(3)

Sample = dict[str, bytes]
"""Extension → content, in the order of the tar."""


@dataclass(frozen=True)
class ShapesWorld:
    """Where a finished world lies."""

    folder: Path
    train_pattern: str  # '<folder>/train/{00000..00007}.tar'
    evals: tuple[str, ...]  # folders of the clip-benchmark data sets
    fingerprint: str


def fingerprint(examples: int, seed: int = 0, image_size: int = 32) -> str:
    """What the world holds, in words: 'shapes-v1-65536-s0-32px'. Nothing is drawn."""
    return f"shapes-v{WORLD_VERSION}-{examples}-s{seed}-{image_size}px"


def make(
    folder: Path,
    examples: int,
    seed: int = 0,
    image_size: int = 32,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> ShapesWorld:
    """Write the world of these values into `folder`, or find it there.

    The folder appears whole or not at all. Of two processes that make the same world at once, both get that
    of the first to finish. `progress` is called with the images done, and of how many.
    Raises InputError (a ValueError) for impossible values, and where `folder` holds anything else.
    """
    least = {
        "examples": (examples, 1),
        "seed": (seed, 0),
        "image_size": (image_size, 16),
        "processes": (processes, 1),
    }
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise InputError(f"shapes: {name} {value} is too small; expected {minimum} or more")
    folder = Path(folder).absolute()
    if _holds(folder, examples, seed, image_size):
        return _world(folder, examples, seed, image_size)
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    try:
        (partial / "train").mkdir(parents=True)
        _write_all(partial, examples, seed, image_size, processes, progress)
        sizes = {str(file.relative_to(partial)): file.stat().st_size for file in sorted(partial.rglob("*.*"))}
        content = {"fingerprint": fingerprint(examples, seed, image_size), "version": WORLD_VERSION}
        content |= {"examples": examples, "seed": seed, "image_size": image_size, "bytes": sizes}
        (partial / "world.json").write_text(json.dumps(content, indent=1) + "\n")
        try:
            partial.rename(folder)
        except OSError:  # someone else has put something there since we looked
            if not _holds(folder, examples, seed, image_size):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _world(folder, examples, seed, image_size)


def training_block(block: int, seed: int = 0, image_size: int = 32, rows: int = BLOCK) -> Iterator[Sample]:
    """The first `rows` examples of a block: png, txt (the caption), json (all that is true of the image)."""
    rng = np.random.default_rng([seed, _TRAIN_SPLIT, block])
    scenes = world.lay_out(rng, world.sample_groups(rng, BLOCK, world.SCENES, held_out=False))
    described, lot = world.describe(scenes)[:rows], _lot(rng)
    captions = [caption(scene, world.TRAINING_NAMING, lot) for scene in described]
    yield from _samples(draw(scenes, rng, image_size, rows), described, txt=captions)


def classification_samples(seed: int = 0, image_size: int = 32) -> Iterator[Sample]:
    """Images of one object to name, some with a smaller distractor; cls is the number of its class."""
    rng = np.random.default_rng([seed, _OBJECTS_SPLIT])
    labels, groups = world.classification_groups(rng, CLASSIFICATION_IMAGES)
    scenes = world.lay_out(rng, groups)
    yield from _samples(draw(scenes, rng, image_size), world.describe(scenes), cls=labels.tolist())


def retrieval_samples(seed: int = 0, image_size: int = 32) -> Iterator[Sample]:
    """Scenes whose captions leave little out, no caption twice."""
    rng = np.random.default_rng([seed, _RETRIEVAL_SPLIT])
    candidates = 2 * RETRIEVAL_IMAGES
    scenes = world.lay_out(rng, world.sample_groups(rng, candidates, world.RETRIEVAL_SCENES, held_out=True))
    described, lot = world.describe(scenes), _lot(rng)
    chosen: dict[str, int] = {}
    for number, scene in enumerate(described):
        chosen.setdefault(caption(scene, world.RETRIEVAL_NAMING, lot), number)
    captions = list(chosen)[:RETRIEVAL_IMAGES]
    numbers = [chosen[text] for text in captions]
    images = draw(scenes, rng, image_size)[numbers]
    yield from _samples(images, [described[number] for number in numbers], txt=captions)


def _lot(rng: np.random.Generator) -> Lot:
    """For choosing words; Python's own generator, because numpy's is slow at giving single numbers."""
    return random.Random(int(rng.random() * 2**53)).random  # noqa: S311


def _world(folder: Path, examples: int, seed: int, image_size: int) -> ShapesWorld:
    last = (examples - 1) // SHARD
    return ShapesWorld(
        folder=folder,
        train_pattern=f"{folder}/train/{{00000..{last:05d}}}.tar",
        evals=(f"{folder}/{OBJECTS}", f"{folder}/{RETRIEVAL}"),
        fingerprint=fingerprint(examples, seed, image_size),
    )


def _holds(folder: Path, examples: int, seed: int, image_size: int) -> bool:
    """Whether `folder` is this world, whole; missing or empty is no. Raises InputError where it is other."""
    wanted = fingerprint(examples, seed, image_size)
    expected = f"expected the world {wanted} or nothing; name another folder, or remove this one"
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "world.json").read_text())
        name, sizes = found["fingerprint"], dict(found["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: no shapes world (world.json is missing or unreadable); {expected}") from None
    if name != wanted:
        raise InputError(f"{folder}: holds the world {name}; {expected}")
    for file, size in sizes.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"{path}: missing, or not of its {size:,} bytes: the world is damaged; {expected}")
    return True


def _write_all(
    folder: Path,
    examples: int,
    seed: int,
    image_size: int,
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    jobs = [(_write_objects, folder, seed, image_size), (_write_retrieval, folder, seed, image_size)]
    jobs += [(_write_shard, folder, seed, image_size, n, examples) for n in range((examples - 1) // SHARD + 1)]
    done, total = 0, examples + CLASSIFICATION_IMAGES + RETRIEVAL_IMAGES
    for images in _run(jobs, min(processes, len(jobs))):
        done += images
        if progress is not None:
            progress(done, total)


def _run(jobs: list[tuple], processes: int) -> Iterator[int]:
    if processes == 1:
        yield from (job(*arguments) for job, *arguments in jobs)
        return
    # spawn, because the caller's threads (torch has many) do not survive a fork.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(*job) for job in jobs]
        try:
            yield from (finished.result() for finished in as_completed(running))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_shard(folder: Path, seed: int, image_size: int, shard: int, examples: int) -> int:
    first, last = shard * SHARD, min((shard + 1) * SHARD, examples)
    samples = (
        sample
        for start in range(first, last, BLOCK)
        for sample in training_block(start // BLOCK, seed, image_size, min(BLOCK, last - start))
    )
    return _write_tar(folder / "train" / f"{shard:05d}.tar", samples, first)


def _write_objects(folder: Path, seed: int, image_size: int) -> int:
    names = [f"{colour} {shape}" for colour, shape in world.CLASSES]
    texts = {"classnames.txt": names, "zeroshot_classification_templates.txt": TEMPLATES}
    return _write_eval(folder / OBJECTS, classification_samples(seed, image_size), texts)


def _write_retrieval(folder: Path, seed: int, image_size: int) -> int:
    samples = retrieval_samples(seed, image_size)
    return _write_eval(folder / RETRIEVAL, samples, {"dataset_type.txt": ["retrieval"]})


def _write_eval(folder: Path, samples: Iterable[Sample], texts: dict[str, Iterable[str]]) -> int:
    """A data set in clip-benchmark's layout of local webdatasets.

    One shard for each of its command's workers, cut at whole batches, so that the batches are the same with and
    without workers, and with them the last digit of every metric.
    """
    (folder / "test").mkdir(parents=True)
    for name, lines in {"test/nshards.txt": [str(EVAL_SHARDS)], **texts}.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    everything = list(samples)
    size = -(-len(everything) // (EVAL_SHARDS * EVAL_BATCH)) * EVAL_BATCH
    for shard in range(EVAL_SHARDS):
        _write_tar(folder / "test" / f"{shard}.tar", everything[shard * size : (shard + 1) * size], shard * size)
    return len(everything)


def _samples(images: np.ndarray, described: list[dict], **columns: list) -> Iterator[Sample]:
    for image, scene, *row in zip(_pngs(images), described, *columns.values(), strict=True):
        values = {name: str(value).encode() for name, value in zip(columns, row, strict=True)}
        yield {"png": image, **values, "json": json.dumps(scene, separators=(",", ":")).encode()}


def _pngs(images: np.ndarray) -> Iterator[bytes]:
    """uint8 [n, H, W, 3] → PNG files, stored without compression.

    The noise leaves little to compress: deflating saves an eighth of a shard and takes as long as drawing.
    """
    n, height, width, _ = images.shape
    lines = np.zeros((n, height, 1 + 3 * width), np.uint8)  # each line begins with its filter: 0, none
    lines[:, :, 1:] = images.reshape(n, height, 3 * width)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])  # 8 bits, RGB
    start, end = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    for image in lines:
        yield start + _chunk(b"IDAT", zlib.compress(image.tobytes(), 0)) + end


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


_TAR_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of no user, at time 0: same content, same bytes


def _write_tar(path: Path, samples: Iterable[Sample], first: int) -> int:
    """Samples, with keys that count from `first`. Returns how many."""
    count = 0
    with path.open("wb") as tar:
        for count, sample in enumerate(samples, 1):
            for extension, content in sample.items():
                tar.write(_tar_member(f"{first + count - 1:09d}.{extension}", content))
        tar.write(bytes(1024))
    return count


def _tar_member(name: str, content: bytes) -> bytes:
    """Header, content and padding. By hand, because `TarFile.addfile` takes as long as drawing the image."""
    header = bytearray(_TAR_HEADER)
    header[: len(name)] = name.encode()
    header[124:136] = b"%011o\0" % len(content)
    header[148:156] = b"        "  # the checksum counts itself as spaces
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)
