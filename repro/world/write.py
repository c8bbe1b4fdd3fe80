"""The embedded world "shapes": drawn scenes with true captions, so that everything runs without a download.

It is written once, as shards for training and two clip-benchmark data sets, and read by the code that reads
the user's own data. Example i of a seed is the same however many examples are made and however many processes
draw them: each block of examples has its own random stream. What scenes hold, and how hard they are to tell
apart, is in scenes.py.

The multilingual world has the same training images and English captions. The `.json` of each also holds its captions
in all languages, and there is a retrieval set of each language, over the same images.
"""

import io
import json
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image

from repro.config.errors import InputError
from repro.data.eval_sets import MULTILINGUAL_SHAPES, SHAPES
from repro.world import scenes as world
from repro.world.captions import Random, say
from repro.world.drawing import draw
from repro.world.languages import LANGUAGES, translations

WORLD_VERSION = 1
"""Raised whenever the same seed gives other bytes."""
MULTILINGUAL_VERSION = 2
"""Likewise, of the multilingual world."""

Sample = dict[str, bytes]
"""Extension → content."""
BLOCK, SHARD = 1024, 8192  # examples; a shard is a whole number of blocks
CLASSIFICATION_IMAGES, RETRIEVAL_IMAGES = 21 * len(world.CLASSES), 1000
EVAL_SHARDS, EVAL_BATCH = 4, 64
"""Workers and batch of clip-benchmark's command, by default."""
OBJECTS, RETRIEVAL = SHAPES
TEMPLATES = ("a {c}", "a picture of a {c}", "a photo of a {c}", "there is a {c}")
_TRAIN_SPLIT, _OBJECTS_SPLIT, _RETRIEVAL_SPLIT = range(3)


@dataclass(frozen=True)
class ShapesWorld:
    """Where a finished world lies."""

    folder: Path
    train_pattern: str  # '<folder>/train/{00000..00007}.tar'
    evals: tuple[str, ...]  # folders of the clip-benchmark data sets
    fingerprint: str


def fingerprint(examples: int, seed: int = 0, image_size: int = 32, multilingual: bool = False) -> str:
    """Name the world's content: 'shapes-v1-65536-s0-32px'. Nothing is drawn."""
    kind = f"shapes-multilingual-v{MULTILINGUAL_VERSION}" if multilingual else f"shapes-v{WORLD_VERSION}"
    return f"{kind}-{examples}-s{seed}-{image_size}px"


def make(
    folder: Path,
    examples: int,
    seed: int = 0,
    image_size: int = 32,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
    multilingual: bool = False,
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
    content = _Content(examples, seed, image_size, multilingual)
    if _holds(folder, content):
        return _world(folder, content)
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.partial")
    try:
        (partial / "train").mkdir(parents=True)
        _write_all(partial, content, processes, progress)
        sizes = {str(file.relative_to(partial)): file.stat().st_size for file in sorted(partial.rglob("*.*"))}
        said = {"fingerprint": content.fingerprint, "version": WORLD_VERSION}
        said |= {"examples": examples, "seed": seed, "image_size": image_size, "bytes": sizes}
        (partial / "world.json").write_text(json.dumps(said, indent=1) + "\n")
        try:
            partial.rename(folder)
        except OSError:  # someone else has put something there since we looked
            if not _holds(folder, content):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _world(folder, content)


def training_block(
    block: int, seed: int = 0, image_size: int = 32, rows: int = BLOCK, multilingual: bool = False
) -> Iterator[Sample]:
    """The first `rows` examples of a block: png, txt (the caption), json (all that is true of the image).

    multilingual: the json also holds "captions", {language: caption}.
    """
    rng = np.random.default_rng([seed, _TRAIN_SPLIT, block])
    scenes = world.lay_out(rng, world.sample_groups(rng, BLOCK, world.SCENES, held_out=False))
    described, rand = world.describe(scenes)[:rows], _stream(rng)
    said = [say(scene, world.TRAINING_NAMING, rand) for scene in described]
    if multilingual:
        streams = _streams_of_languages(seed, _TRAIN_SPLIT, block)
        described = [
            scene | {"captions": translations(one, streams)} for scene, one in zip(described, said, strict=True)
        ]
    yield from _samples(draw(scenes, rng, image_size, rows), described, txt=[one.english for one in said])


def classification_samples(seed: int = 0, image_size: int = 32) -> Iterator[Sample]:
    """Images of one object to name, some with a smaller distractor; cls is the number of its class."""
    yield from object_samples(np.random.default_rng([seed, _OBJECTS_SPLIT]), CLASSIFICATION_IMAGES, image_size)


def object_samples(rng: np.random.Generator, count: int, image_size: int) -> Iterator[Sample]:
    """Yield `count` images to classify, balanced over the classes."""
    labels, groups = world.classification_groups(rng, count)
    scenes = world.lay_out(rng, groups)
    yield from _samples(draw(scenes, rng, image_size), world.describe(scenes), cls=labels.tolist())


def retrieval_samples(seed: int = 0, image_size: int = 32, multilingual: bool = False) -> Iterator[Sample]:
    """Scenes whose captions leave little out, no caption twice; multilingual: in no language, and json holds them."""
    rng = np.random.default_rng([seed, _RETRIEVAL_SPLIT])
    candidates = 2 * RETRIEVAL_IMAGES
    scenes = world.lay_out(rng, world.sample_groups(rng, candidates, world.RETRIEVAL_SCENES, held_out=True))
    described, rand = world.describe(scenes), _stream(rng)
    streams = _streams_of_languages(seed, _RETRIEVAL_SPLIT, 0)
    seen: set[tuple[str, str]] = set()
    chosen: list[tuple[int, dict[str, str]]] = []
    for number, scene in enumerate(described):
        said = say(scene, world.RETRIEVAL_NAMING, rand)
        captions = translations(said, streams) if multilingual else {"en": said.english}
        if seen.isdisjoint(captions.items()):
            seen.update(captions.items())
            chosen.append((number, captions))
    numbers, captions = zip(*chosen[:RETRIEVAL_IMAGES], strict=True)
    images = draw(scenes, rng, image_size)[list(numbers)]
    captioned = [
        described[n] | ({"captions": c} if multilingual else {}) for n, c in zip(numbers, captions, strict=True)
    ]
    yield from _samples(images, captioned, txt=[c["en"] for c in captions])


def _stream(rng: np.random.Generator) -> Random:
    """For choosing words; Python's own generator, because numpy's is slow at giving single numbers."""
    return random.Random(int(rng.random() * 2**53)).random  # noqa: S311


def _streams_of_languages(seed: int, split: int, block: int) -> dict[str, Random]:
    """Beside the stream that draws: images and English captions are those of the English world."""
    return {
        language: _stream(np.random.default_rng([seed, split, block, number]))
        for number, language in enumerate(LANGUAGES, 1)
    }


@dataclass(frozen=True)
class _Content:
    """The values that determine a world."""

    examples: int
    seed: int
    image_size: int
    multilingual: bool

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.examples, self.seed, self.image_size, self.multilingual)


def _world(folder: Path, content: _Content) -> ShapesWorld:
    last = (content.examples - 1) // SHARD
    return ShapesWorld(
        folder=folder,
        train_pattern=f"{folder}/train/{{00000..{last:05d}}}.tar",
        evals=tuple(f"{folder}/{name}" for name in (MULTILINGUAL_SHAPES if content.multilingual else SHAPES)),
        fingerprint=content.fingerprint,
    )


def _holds(folder: Path, content: _Content) -> bool:
    """Whether `folder` is this world, whole; missing or empty is no. Raises InputError where it is other."""
    wanted = content.fingerprint
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


def _write_all(folder: Path, content: _Content, processes: int, progress: Callable[[int, int], None] | None) -> None:
    jobs = [(write, folder, content) for write in (_write_objects, _write_retrieval)]
    jobs += [(_write_shard, folder, content, n) for n in range((content.examples - 1) // SHARD + 1)]
    done, total = 0, content.examples + CLASSIFICATION_IMAGES + RETRIEVAL_IMAGES
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


def _write_shard(folder: Path, content: _Content, shard: int) -> int:
    first, last = shard * SHARD, min((shard + 1) * SHARD, content.examples)
    samples = (
        sample
        for start in range(first, last, BLOCK)
        for sample in training_block(
            start // BLOCK, content.seed, content.image_size, min(BLOCK, last - start), content.multilingual
        )
    )
    return write_tar(folder / "train" / f"{shard:05d}.tar", samples, first)


def _write_objects(folder: Path, content: _Content) -> int:
    names = [f"{colour} {shape}" for colour, shape in world.CLASSES]
    texts = {"classnames.txt": names, "zeroshot_classification_templates.txt": TEMPLATES}
    return _write_eval(folder / OBJECTS, classification_samples(content.seed, content.image_size), texts)


def _write_retrieval(folder: Path, content: _Content) -> int:
    """One set, or one of each language over the same images."""
    samples = list(retrieval_samples(content.seed, content.image_size, content.multilingual))
    texts = {"dataset_type.txt": ["retrieval"]}
    if not content.multilingual:
        return _write_eval(folder / RETRIEVAL, samples, texts)
    for language in LANGUAGES:
        captions = (json.loads(sample["json"])["captions"][language] for sample in samples)
        captioned = [sample | {"txt": text.encode()} for sample, text in zip(samples, captions, strict=True)]
        _write_eval(folder / f"{RETRIEVAL}_{language}", captioned, texts)
    return len(samples)


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
        write_tar(folder / "test" / f"{shard}.tar", everything[shard * size : (shard + 1) * size], shard * size)
    return len(everything)


def _samples(images: np.ndarray, described: list[dict], **columns: list) -> Iterator[Sample]:
    for image, scene, *row in zip(map(_png, images), described, *columns.values(), strict=True):
        values = {name: str(value).encode() for name, value in zip(columns, row, strict=True)}
        yield {"png": image, **values, "json": json.dumps(scene, separators=(",", ":"), ensure_ascii=False).encode()}


def _png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] → a file, stored: deflating the noise saves an eighth of it and takes as long as drawing."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def write_tar(path: Path, samples: Iterable[Sample], first: int) -> int:
    """Write samples with keys that count from `first`; the same content gives the same bytes. Returns how many."""
    from webdataset import TarWriter  # imports torch

    count = 0
    with TarWriter(str(path), encoder=False, mtime=0) as tar:
        for count, sample in enumerate(samples, 1):
            tar.write({"__key__": f"{first + count - 1:09d}", **sample})
    return count
