"""Look through a data set before runs are spent on it: counts, sizes, unusable samples, captions, a contact sheet.

Counts and file sizes are of all pairs, from the shards' indexes. What asks for a sample to be read and decoded is of
samples spread evenly over the data, through the code that training reads them with.
"""

import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from repro.data.pairs import Pairs, SampleOrder, UnusableSample
from repro.data.shards import JSON, Progress, ShardIndex, count_unusable, evenly, list_shards, open_shards

CONTEXT_LENGTHS = (16, 64)
"""Tokens that a text tower reads, of the laptop recipe and of the paper; what is longer is cut."""
COLUMNS, ROWS = 6, 4
TILE, GAP, FONT_SIZE, CAPTION_LINES = 176, 16, 14, 4
INK, PALE, PAPER, FRAME, ALARM = "#222222", "#777777", "#ffffff", "#ececec", "#b00020"
READ_AHEAD = 256
"""Samples that the threads may be ahead of the one that reads their results."""


class Spread(NamedTuple):
    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Scanned:
    """Contents of the headers of all shards. lost: (shard, reason) → samples that the scan could not pair."""

    shards: int
    shard_bytes: int
    pairs: int
    json_captions: int
    unpaired: int
    broken: dict[str, str]  # shard → why reading stopped
    lost: Counter
    image_bytes: Spread


@dataclass(frozen=True)
class Sample:
    """One pair as training would get it, or the reason why it would not."""

    shard: str
    number: int
    reason: str = ""
    caption: str = ""
    pixels: np.ndarray | None = None  # [H, W, 3] uint8
    size: tuple[int, int] = (0, 0)  # width, height, as stored
    format: str = ""
    transparent: bool = False


@dataclass(frozen=True)
class LookedAt:
    """Contents of the samples themselves. bad: (shard, reason) → samples. Shares are of the usable ones."""

    samples: int
    bad: Counter
    formats: Counter
    transparent: int
    spreads: dict[str, Spread]
    longer_than: dict[int, float]  # tokens → share of captions
    duplicates: float  # share of captions that repeat one before


def check(pattern: str, samples: int | None, progress: Progress) -> tuple[Scanned, LookedAt, Image.Image]:
    """Scan the shards of a pattern, look at so many of their samples (None: all), and draw the contact sheet.

    Raises InputError where nothing matches, or no shard holds a pair.
    """
    files, indexes = open_shards(list_shards(pattern))
    sizes = [len(index) for index in indexes]
    looked_at = summarise(look(files, indexes, evenly(sizes, samples), _first_pixel, progress))
    tiles = list(look(files, indexes, evenly(sizes, COLUMNS * ROWS), _fit_tile))
    return scanned(files, indexes), looked_at, contact_sheet(tiles, f"{len(tiles)} of {sum(sizes):,} pairs, {pattern}")


def refusals(scan: Scanned, looked_at: LookedAt, max_bad_share: float) -> list[str]:
    """Why a run would end as bad-data. It checks two shares: of what the scan lost, and of what it then reads."""
    lost, bad = sum(scan.lost.values()), sum(looked_at.bad.values())
    shares = {
        f"{lost:,} of {scan.pairs + lost:,} samples lack an image or a caption, or were lost in broken shards": (
            lost / (scan.pairs + lost)
        ),
        f"{bad:,} of the {looked_at.samples:,} samples looked at are bad": bad / looked_at.samples,
    }
    return [f"{text} ({share:.1%})" for text, share in shares.items() if share > max_bad_share]


def scanned(files: list[Path], indexes: list[ShardIndex]) -> Scanned:
    names = [file.name for file in files]
    return Scanned(
        shards=len(files),
        shard_bytes=sum(file.stat().st_size for file in files),
        pairs=sum(map(len, indexes)),
        json_captions=sum(int((index.kind == JSON).sum()) for index in indexes),
        unpaired=sum(index.unpaired for index in indexes),
        broken={name: index.broken for name, index in zip(names, indexes, strict=True) if index.broken},
        lost=count_unusable(names, indexes),
        image_bytes=spread(np.concatenate([index.image[:, 1] for index in indexes])),
    )


def spread(values: np.ndarray) -> Spread:
    return Spread(float(np.min(values)), float(np.median(values)), float(np.max(values)))


def look(
    files: list[Path],
    indexes: list[ShardIndex],
    places: list[tuple[int, int]],
    shrink: Callable[[Image.Image], Image.Image],
    progress: Progress = lambda done, total: None,
) -> Iterator[Sample]:
    """The samples at these places, in order. `shrink` decodes an image whole, and returns what is kept of it."""
    order = SampleOrder([len(index) for index in indexes], seed=0, shuffle_shards=1)

    def one(place: tuple[int, int]) -> Sample:
        seen: list[Image.Image] = []
        pairs = Pairs(files, indexes, order, lambda image: shrink(seen.append(image) or image), lambda captions: None)
        shard = files[place[0]].name
        try:
            pixels, caption = pairs.read(*place)
        except UnusableSample as reason:
            return Sample(shard, place[1], str(reason))
        transparent = seen[0].mode.endswith(("A", "a")) or "transparency" in seen[0].info
        return Sample(shard, place[1], "", caption, pixels, seen[0].size, seen[0].format or "", transparent)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # image decoders work outside Python's lock
        for first in range(0, len(places), READ_AHEAD):
            yield from pool.map(one, places[first : first + READ_AHEAD])
            progress(min(first + READ_AHEAD, len(places)), len(places))


def summarise(samples: Iterable[Sample]) -> LookedAt:
    """Count, and measure images and captions; tokens are CLIP's, with those for start and end."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    measured: list[tuple[int, ...]] = []
    total, transparent = 0, 0
    bad, formats, captions = Counter(), Counter(), set()
    for sample in samples:
        total += 1
        if sample.reason:
            bad[sample.shard, sample.reason] += 1
            continue
        text = sample.caption
        measured.append((*sample.size, len(text), len(text.split()), len(tokenizer.encode(text)) + 2))
        formats[sample.format] += 1
        transparent += sample.transparent
        captions.add(hash(text))  # their hashes take less memory than millions of captions
    names = ("image width", "image height", "caption characters", "caption words", "caption tokens")
    columns = dict(zip(names, np.array(measured, np.int64).reshape(-1, len(names)).T, strict=True))
    usable = len(measured)
    return LookedAt(
        samples=total,
        bad=bad,
        formats=formats,
        transparent=transparent,
        spreads={name: spread(column) for name, column in columns.items()} if usable else {},
        longer_than={n: float(np.mean(columns["caption tokens"] > n)) for n in CONTEXT_LENGTHS} if usable else {},
        duplicates=1 - len(captions) / usable if usable else 0.0,
    )


def _first_pixel(image: Image.Image) -> Image.Image:
    image.load()
    return image.crop((0, 0, 1, 1))


def _fit_tile(image: Image.Image) -> Image.Image:
    """Small enough for a tile; a small image is enlarged by a whole factor, so that its pixels can be seen."""
    image.load()
    times = TILE // max(image.size)
    if times > 0:
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    image = image.convert("RGB")
    image.thumbnail((TILE, TILE))
    return image


def contact_sheet(samples: list[Sample], title: str) -> Image.Image:
    """Samples in rows, each with its place, its size and its caption below; in place of an unusable one, the reason."""
    line = round(FONT_SIZE * 1.35)
    cell = (TILE + GAP, TILE + GAP + line * (CAPTION_LINES + 1))
    columns = min(COLUMNS, len(samples))
    top = GAP + 2 * line
    sheet = Image.new("RGB", (GAP + max(columns, 3) * cell[0], top + -(-len(samples) // columns) * cell[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, GAP), title, INK, width=sheet.width - 2 * GAP)
    for position, sample in enumerate(samples):
        x, y = GAP + position % columns * cell[0], top + position // columns * cell[1]
        draw.rectangle((x, y, x + TILE - 1, y + TILE - 1), FRAME)
        size = "" if sample.reason else f" · {sample.size[0]}×{sample.size[1]}"
        _write(draw, (x, y + TILE + 3), f"{Path(sample.shard).stem[-12:]} #{sample.number}{size}", PALE)
        if sample.pixels is None:
            _write(draw, (x + 8, y + TILE // 3), sample.reason, ALARM, CAPTION_LINES, TILE - 16)
            continue
        height, width, _ = sample.pixels.shape
        sheet.paste(Image.fromarray(sample.pixels), (x + (TILE - width) // 2, y + (TILE - height) // 2))
        _write(draw, (x, y + TILE + 3 + line), sample.caption, INK, CAPTION_LINES)
    return sheet


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, ink: str, lines: int = 1, width: int = TILE
) -> None:
    """Write a text in so many lines of a width, in matplotlib's DejaVu Sans: the same on every machine."""
    font = ImageFont.truetype(_font_file(), FONT_SIZE)
    text = " ".join(text.split())
    characters = max(4, int(width * len(text) / max(1.0, font.getlength(text))))
    wrapped = textwrap.wrap(text, characters, max_lines=lines, placeholder="…")
    draw.text(at, "\n".join(wrapped), fill=ink, font=font, spacing=round(FONT_SIZE * 0.2))


def _font_file() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
