"""Contents of a scene of the shapes world, how scenes are sampled, and how hard the world is.

A scene is one to three groups of like objects on a background: "two red circles" and "a striped blue star".
No two groups of a scene share a shape or a colour, so that a phrase names one group and counts come out true.
Lengths are in half widths of the image: x runs from -1 (left) to 1 (right), y from -1 (top) to 1 (bottom).
"""

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np

COLOURS = {
    "red": (218, 30, 38),
    "orange": (255, 138, 0),
    "yellow": (255, 226, 30),
    "green": (34, 150, 52),
    "cyan": (40, 205, 225),
    "blue": (36, 66, 205),
    "purple": (128, 44, 172),
    "pink": (255, 146, 192),
    "brown": (128, 76, 34),
    "black": (18, 18, 18),
    "white": (248, 248, 248),
    "gray": (134, 134, 134),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "diamond",
    "star",
    "cross",
    "ring",
    "heart",
    "crescent",
    "hexagon",
    "arrow",
    "oval",
)
TEXTURES = ("solid", "striped", "dotted", "checked", "outlined")
SIZES = ("small", "large")
BACKGROUNDS = ("white", "black", "gray", "blue", "green", "brown", "pink", "yellow")
PATTERNS = ("plain", "striped", "dotted", "checked")

# How hard the world is. Other values give other bytes: raise shapes.WORLD_VERSION with them.
SCENES = {(1,): 0.46, (2,): 0.10, (3,): 0.06, (1, 1): 0.24, (1, 2): 0.08, (1, 1, 1): 0.06}
SOLID_SHARE = 0.50
LARGE_SHARE = 0.70
RADIUS = {"small": (0.32, 0.38), "large": (0.45, 0.50), "large and alone": (0.60, 0.80)}
PLACE_FREEDOM = 0.5  # share of the room an object has in its part of the image; 0: always in the middle of it
TILT = 0.12  # radians to either side; a square turned by 0.4 would pass for a diamond
COLOUR_JITTER = 18  # levels of 255 to either side, a channel
LIGHT = 0.14  # share of brightness gained at one edge and lost at the other
NOISE = 5.0  # standard deviation, in levels
PLAIN_SHARE = 0.62
TEXTURE_CONTRAST = 0.70  # 1: stripes and dots are black or white
PATTERN_CONTRAST = 0.22
COLOUR_DISTANCE = 130.0  # least distance of an object's colour from the background's, in levels
DISTRACTOR_SHARE = 0.25  # of the classification images


class Naming(NamedTuple):
    """How often a caption says a thing, where it could."""

    shape: float
    colour: float
    texture: float
    size: float
    place: float
    background: float
    pattern: float
    group: float  # each group after the first
    relation: float  # between two named groups, instead of "and"
    lead_in: float  # "a photo of ..."
    total: float  # "three shapes", instead of naming any group


TRAINING_NAMING = Naming(0.92, 0.80, 0.45, 0.30, 0.25, 0.30, 0.40, 0.80, 0.70, 0.25, 0.03)
RETRIEVAL_SCENES = {(1,): 0.20, (2,): 0.08, (1, 1): 0.50, (1, 2): 0.14, (1, 1, 1): 0.08}
RETRIEVAL_NAMING = Naming(1.0, 1.0, 0.9, 0.6, 0.6, 0.7, 0.5, 1.0, 0.9, 0.0, 0.0)

# Diagonals of the colour-by-shape table, so that each colour and each shape is held out equally often.
_DIAGONAL = (np.arange(len(COLOURS))[:, None] + 5 * np.arange(len(SHAPES))) % 12
_HELD_OUT = (_DIAGONAL == 0) | (_DIAGONAL == 6)
_CLASSES = _DIAGONAL % 3 != 2


def _names(table: np.ndarray) -> tuple[tuple[str, str], ...]:
    colours = tuple(COLOURS)
    return tuple((colours[colour], SHAPES[shape]) for colour, shape in np.argwhere(table))


HELD_OUT = _names(_HELD_OUT)
"""The 24 pairs (colour, shape) that no training scene holds."""
CLASSES = _names(_CLASSES)
"""The 96 pairs (colour, shape) to tell apart in zero-shot classification; the 24 held out are among them."""

_RGB = np.array(list(COLOURS.values()), np.float32)
BACKGROUND_RGB = 0.8 * np.array([COLOURS[name] for name in BACKGROUNDS], np.float32) + 0.2 * 128
_CLEAR = np.linalg.norm(BACKGROUND_RGB[:, None] - _RGB, axis=-1) > COLOUR_DISTANCE


@dataclass(frozen=True)
class Groups:
    """Up to three groups of like objects in each of n scenes: indices into the vocabulary, [n, 3]."""

    count: np.ndarray  # 0 where there is no such group
    shape: np.ndarray
    colour: np.ndarray
    texture: np.ndarray
    size: np.ndarray


@dataclass(frozen=True)
class Scenes:
    """n scenes, ready to be drawn: arrays [n, ...]; a scene has up to three objects."""

    groups: Groups
    background: np.ndarray  # [n]
    pattern: np.ndarray  # [n]
    background_rgb: np.ndarray  # [n, 3]
    light: np.ndarray  # [n, 2] gain of brightness from left to right and from top to bottom
    group: np.ndarray  # [n, 3] the group of each object, -1 where there is no such object
    x: np.ndarray  # [n, 3]
    y: np.ndarray  # [n, 3]
    radius: np.ndarray  # [n, 3]
    tilt: np.ndarray  # [n, 3] radians
    direction: np.ndarray  # [n, 4] radians: of the stripes of each object, then of the background
    rgb: np.ndarray  # [n, 3, 3]

    def __len__(self) -> int:
        return len(self.background)


def sample_groups(rng: np.random.Generator, n: int, scenes: dict[tuple[int, ...], float], held_out: bool) -> Groups:
    """Groups of n scenes, of the kinds and shares in `scenes`; with held-out pairs or without."""
    kinds = np.array([kind + (0,) * (3 - len(kind)) for kind in scenes])
    count = kinds[_pick(rng, list(scenes.values()), (n,))]
    shape, colour = _distinct(rng, n, len(SHAPES)), _distinct(rng, n, len(COLOURS))
    while not held_out and len(again := np.flatnonzero(_HELD_OUT[colour, shape].any(axis=1))):
        shape[again], colour[again] = _distinct(rng, len(again), 12), _distinct(rng, len(again), 12)
    return Groups(count, shape, colour, _textures(rng, n), _pick(rng, (1 - LARGE_SHARE, LARGE_SHARE), (n, 3)))


def classification_groups(rng: np.random.Generator, n: int) -> tuple[np.ndarray, Groups]:
    """Classes [n], as even as can be, and scenes of which exactly that one of CLASSES is true.

    A distractor is smaller than the main object and of a pair that is no class.
    """
    label = np.arange(n) % len(CLASSES)
    label = label[rng.random(n).argsort()]
    main, other = np.argwhere(_CLASSES)[label], np.argwhere(~_CLASSES)  # [n, 2] colour and shape
    distractor = other[_pick(rng, np.ones(len(other)), (n,))]
    while len(again := np.flatnonzero((main == distractor).any(axis=1))):
        distractor[again] = other[_pick(rng, np.ones(len(other)), (len(again),))]
    colour, shape = np.stack([main, distractor, distractor], axis=1).transpose(2, 0, 1)
    present = rng.random(n) < DISTRACTOR_SHARE
    size = _pick(rng, (1 - LARGE_SHARE, LARGE_SHARE), (n, 3))
    size[:, 0] |= present
    size[:, 1] = 0
    count = np.stack([np.ones(n, int), present.astype(int), np.zeros(n, int)], axis=1)
    return label, Groups(count, shape, colour, _textures(rng, n), size)


def lay_out(rng: np.random.Generator, groups: Groups) -> Scenes:
    """Place the groups' objects, choose backgrounds they stand out from, and whatever captions leave open."""
    n = len(groups.count)
    total = groups.count.sum(axis=1)
    ends = groups.count.cumsum(axis=1)
    group = (np.arange(3)[:, None] >= ends[:, None]).sum(axis=2)  # [n, object]
    group[np.arange(3) >= total[:, None]] = -1

    size = np.take_along_axis(groups.size, group, axis=1)  # of absent objects: of no account
    size = np.where((size == 1) & (total == 1)[:, None], 2, size)
    low, high = np.array(list(RADIUS.values())).T
    radius = low[size] + rng.random((n, 3)) * (high - low)[size]
    cell = _cells(rng, total)
    room = PLACE_FREEDOM * np.maximum(cell[..., 2:] - radius[..., None], 0)
    centre = cell[..., :2] + (2 * rng.random((n, 3, 2)) - 1) * room

    colour = np.take_along_axis(groups.colour, np.maximum(group, 0), axis=1)
    clear = _CLEAR[:, colour].all(axis=2).T  # [n, background]
    background = (rng.random(clear.shape) * clear).argmax(axis=1)
    patterned = (1 - PLAIN_SHARE) / (len(PATTERNS) - 1)
    jitter = COLOUR_JITTER * (2 * rng.random((n, 4, 3)) - 1)
    return Scenes(
        groups=groups,
        background=background,
        pattern=_pick(rng, [PLAIN_SHARE] + [patterned] * (len(PATTERNS) - 1), (n,)),
        background_rgb=BACKGROUND_RGB[background] + jitter[:, 3],
        light=LIGHT * (2 * rng.random((n, 2)) - 1),
        group=group,
        x=centre[..., 0].round(3),
        y=centre[..., 1].round(3),
        radius=radius.round(3),
        tilt=TILT * (2 * rng.random((n, 3)) - 1),
        direction=_pick(rng, np.ones(4), (n, 4)) * (np.pi / 4),
        rgb=_RGB[colour] + jitter[:, :3],
    )


def describe(scenes: Scenes) -> list[dict]:
    """Each scene as plain values, the `.json` of its example: what is true of the image.

    {"background": "white", "pattern": "plain", "groups": [{"count": 1, "shape": "circle", "colour": "red",
    "texture": "striped", "size": "small", "at": [[x, y, radius]]}]}
    """
    colours, groups = tuple(COLOURS), scenes.groups
    attributes = np.stack([groups.count, groups.shape, groups.colour, groups.texture, groups.size], axis=-1)
    places = np.stack([scenes.x, scenes.y, scenes.radius], axis=-1)
    descriptions = []
    for background, pattern, rows, at in zip(
        scenes.background.tolist(), scenes.pattern.tolist(), attributes.tolist(), places.tolist(), strict=True
    ):
        described, first = [], 0
        for count, shape, colour, texture, size in rows:
            if count:
                group = {"count": count, "shape": SHAPES[shape], "colour": colours[colour]}
                group |= {"texture": TEXTURES[texture], "size": SIZES[size], "at": at[first : first + count]}
                described.append(group)
                first += count
        descriptions.append({"background": BACKGROUNDS[background], "pattern": PATTERNS[pattern], "groups": described})
    return descriptions


def _pick(rng: np.random.Generator, shares, size: tuple[int, ...]) -> np.ndarray:
    """Indices drawn with the given shares. Only by `rng.random`: its stream is the most stable of numpy's."""
    edges = np.cumsum(shares)
    return np.minimum(np.searchsorted(edges, rng.random(size) * edges[-1], side="right"), len(edges) - 1)


def _distinct(rng: np.random.Generator, n: int, options: int) -> np.ndarray:
    """[n, 3] indices below `options`, no two alike in a row."""
    return rng.random((n, options)).argsort(axis=1)[:, :3]


def _textures(rng: np.random.Generator, n: int) -> np.ndarray:
    textured = (1 - SOLID_SHARE) / (len(TEXTURES) - 1)
    return _pick(rng, [SOLID_SHARE] + [textured] * (len(TEXTURES) - 1), (n, 3))


def _layouts() -> dict[int, np.ndarray]:
    """By number of objects, ways to share out the image in cells: x, y and half sizes, [ways, 3, 4]."""
    corners = [(x, y, 0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)]
    side_by_side = [(-0.5, 0.0, 0.5, 0.8), (0.5, 0.0, 0.5, 0.8)]
    stacked = [(0.0, -0.5, 0.8, 0.5), (0.0, 0.5, 0.8, 0.5)]
    diagonal, other_diagonal = corners[::3], corners[1:3]
    choices = {
        1: [[(0.0, 0.0, 0.95, 0.95)]],
        2: [side_by_side, stacked, diagonal, other_diagonal],
        3: list(combinations(corners, 3)),
    }
    return {
        total: np.array([list(order) + [order[0]] * (3 - total) for way in ways for order in permutations(way)])
        for total, ways in choices.items()
    }


_LAYOUTS = _layouts()


def _cells(rng: np.random.Generator, total: np.ndarray) -> np.ndarray:
    """[n, 3, 4]: the cell of each object."""
    cells, drawn = np.empty((len(total), 3, 4)), rng.random(len(total))
    for objects, ways in _LAYOUTS.items():
        rows = total == objects
        cells[rows] = ways[(drawn[rows] * len(ways)).astype(int)]
    return cells
