"""Scenes → pixels: signed distances to every outline, for a whole batch of scenes at once, in numpy.

A signed distance is negative inside a shape and positive outside, so that `clip(0.5 - distance in pixels)` is
how much of a pixel the shape covers: edges come out smooth without drawing at a higher resolution.
Shapes are defined in a circle of radius 1 about (0, 0); u runs to the right and v, unlike y, upwards.
"""

from math import cos, hypot, pi, sin

import numpy as np

from repro.world.scenes import (
    COLOURS,
    NOISE,
    PATTERN_CONTRAST,
    PATTERNS,
    SHAPES,
    TEXTURE_CONTRAST,
    TEXTURES,
    Scenes,
)

PIXELS_AT_ONCE = 64 * 32 * 32  # an array of this many float32 stays in the processor's cache
STRIPE_PERIOD, CELL_PERIOD = 0.25, 0.31  # in half widths: 4 and 5 of 32 pixels
OUTLINE_WIDTH = 0.10
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
NAMED_RGB = np.array(list(COLOURS.values()), np.float32)


def draw(scenes: Scenes, rng: np.random.Generator, image_size: int, rows: int | None = None) -> np.ndarray:
    """The first `rows` scenes, or all: uint8 [rows, image_size, image_size, 3].

    `rng` gives the noise: the scenes take it in order, so that fewer rows are drawn the same.
    """
    rows = len(scenes) if rows is None else rows
    images = np.empty((rows, image_size, image_size, 3), np.uint8)
    at_once = max(1, PIXELS_AT_ONCE // image_size**2)
    for start in range(0, rows, at_once):
        few = np.arange(start, min(start + at_once, rows))
        images[few] = _draw_few(scenes, few, rng, image_size)
    return images


def _draw_few(scenes: Scenes, rows: np.ndarray, rng: np.random.Generator, image_size: int) -> np.ndarray:
    """uint8 [rows, H, W, 3]. Until the last line planes of colour, [rows, 3, H, W]: numpy is faster so."""
    axis = ((np.arange(image_size) + 0.5) * (2 / image_size) - 1).astype(np.float32)
    canvas = _backgrounds(scenes, rows, axis)

    scene, slot = np.nonzero(scenes.group[rows] >= 0)
    shape = scenes.groups.shape[rows[scene], scenes.group[rows[scene], slot]]
    order = shape.argsort(kind="stable")  # like shapes together, so that each shape is one slice
    scene, slot, shape = scene[order], slot[order], shape[order]
    cover, mix = _objects(scenes, rows[scene], slot, shape, axis)

    rgb = scenes.rgb[rows[scene], slot].astype(np.float32)
    texture = scenes.groups.texture[rows[scene], scenes.group[rows[scene], slot]]
    strength = np.where(texture == TEXTURES.index("outlined"), 1.0, TEXTURE_CONTRAST).astype(np.float32)
    named = NAMED_RGB[scenes.groups.colour[rows[scene], scenes.group[rows[scene], slot]]]
    towards = strength[:, None] * (_second_level(named, scenes.background_rgb[rows[scene]]) - rgb)
    for number in range(3):  # one object of a scene at a time: a scene's planes are written once in each round
        these = np.flatnonzero(slot == number)
        planes, alpha, second = canvas[scene[these]], cover[these], mix[these]
        for channel in range(3):
            paint = second * towards[these, channel, None, None] + rgb[these, channel, None, None]
            paint -= planes[:, channel]
            paint *= alpha
            planes[:, channel] += paint
        canvas[scene[these]] = planes

    light = scenes.light[rows].astype(np.float32)
    canvas *= (1 + light[:, 0, None, None] * axis + light[:, 1, None, None] * axis[:, None])[:, None]
    noise = np.frombuffer(rng.bytes(canvas.size), np.uint8).reshape(canvas.shape)
    canvas += noise * np.float32(NOISE / 73.9)  # 73.9: standard deviation of a byte
    canvas += np.float32(0.5 - 127.5 * NOISE / 73.9)
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8).transpose(0, 2, 3, 1)


def _backgrounds(scenes: Scenes, rows: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """float32 [rows, 3, H, W]"""
    pixels = len(axis) / 2
    rgb = scenes.background_rgb[rows].astype(np.float32)
    towards = PATTERN_CONTRAST * (_second_level(rgb, rgb) - rgb)[:, :, None, None]
    canvas = np.empty((len(rows), 3, len(axis), len(axis)), np.float32)
    canvas[:] = rgb[:, :, None, None]
    for number, pattern in enumerate(PATTERNS):
        these = np.flatnonzero(scenes.pattern[rows] == number)
        if pattern != "plain" and len(these):
            across = scenes.direction[rows[these], 3]
            x, y = np.broadcast_to(axis, (len(these), 1, len(axis))), axis[:, None]
            canvas[these] += towards[these] * _pattern(pattern, x, y, across, pixels)[:, None]
    return canvas


def _objects(scenes: Scenes, row, slot, shape, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of each pixel that an object covers, and its second colour's share of that: [objects, H, W]."""
    pixels = len(axis) / 2  # a half width, in pixels
    tilt, radius = scenes.tilt[row, slot], scenes.radius[row, slot].astype(np.float32)[:, None, None]
    right, up = _turn(tilt)
    x = axis[None, None, :] - scenes.x[row, slot].astype(np.float32)[:, None, None]
    y = scenes.y[row, slot].astype(np.float32)[:, None, None] - axis[None, :, None]
    u, v = x * (right / radius) + y * (up / radius), y * (right / radius) - x * (up / radius)

    distance = np.empty_like(u)
    ends = np.searchsorted(shape, np.arange(len(SHAPES) + 1))
    for number, name in enumerate(SHAPES):
        these = slice(ends[number], ends[number + 1])
        if these.start < these.stop:
            distance[these] = DISTANCES[name](u[these], v[these])
    distance *= radius

    mix = np.zeros_like(u)
    texture = scenes.groups.texture[row, scenes.group[row, slot]]
    for number, name in enumerate(TEXTURES):
        these = np.flatnonzero(texture == number)
        if not len(these) or name == "solid":
            continue
        if name == "outlined":
            distance[these] -= OUTLINE_WIDTH / 2  # half of it lies outside, or thin shapes would be all outline
            mix[these] = np.clip((distance[these] + OUTLINE_WIDTH) * pixels + 0.5, 0, 1)
        else:
            across = scenes.direction[row[these], slot[these]]
            mix[these] = _pattern(name, u[these] * radius[these], v[these] * radius[these], across, pixels)
    distance *= -pixels
    distance += 0.5
    return np.clip(distance, 0, 1, out=distance), mix


def _pattern(name: str, x, y, direction: np.ndarray, pixels: float) -> np.ndarray:
    """Share of the second colour, float32 [rows, H, W]; `direction` [rows] is that across stripes."""
    if name == "striped":
        right, up = _turn(direction)
        wave = _wave((right * x + up * y) / STRIPE_PERIOD)
        return np.clip((wave - 0.03) * (STRIPE_PERIOD * pixels) + 0.5, 0, 1)
    if name == "dotted":
        # The corners of the cells are the centres of the dots; sqrt is the one slow operation here.
        to_corner = np.sqrt((0.25 - _wave(x / CELL_PERIOD)) ** 2 + (0.25 - _wave(y / CELL_PERIOD)) ** 2)
        return np.clip((0.27 - to_corner) * (CELL_PERIOD * pixels) + 0.5, 0, 1)
    sharpness = CELL_PERIOD * pixels * 2
    columns, rows = (np.clip(_wave(part / CELL_PERIOD) * sharpness, -1, 1) for part in (x, y))
    return 0.5 - 0.5 * columns * rows


def _wave(t: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 between -0.25 and 0.25: the signed distance from its zeros."""
    return np.abs(t - np.floor(t) - 0.5) - 0.25


def _second_level(rgb, behind) -> np.ndarray:
    """The gray level [n, 1] of stripes, dots or outline on colours [n, 3] that stand before others [n, 3].

    On a dark background it is light, so that stripes do not eat the shape; on a white object there, medium.
    """
    luminance, luminance_behind = ((colours * LUMINANCE).sum(axis=1) for colours in (rgb, behind))
    level = np.where(luminance_behind < 115, 250, 10)
    return np.where(np.abs(level - luminance) < 30, 128, level)[:, None].astype(np.float32)


def _turn(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine, [n, 1, 1]; rounded, because processors differ in their last bits."""
    return tuple(f(angle).round(4).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))


def _length(u, v):
    return np.sqrt(u * u + v * v)


def _box(a, b, half_width: float, half_height: float):
    return np.maximum(a - half_width, b - half_height)


def _circle(u, v):
    return _length(u, v) - 0.92


def _square(u, v):
    return _box(np.abs(u), np.abs(v), 0.78, 0.78)


def _triangle(u, v):
    slant = hypot(1.65, 0.98)
    return np.maximum((np.abs(u) * 1.65 + (v - 1) * 0.98) / slant, -v - 0.65)


def _diamond(u, v):
    return (np.abs(u) + 0.68 * np.abs(v) - 0.68) / hypot(1, 0.68)


def _star(u, v):
    """The plane is folded until one of the star's ten edges stands for all of them."""
    c, s = cos(pi / 5), sin(pi / 5)
    u = np.abs(u)
    for side in (1, -1):
        beyond = 2 * np.maximum(side * c * u - s * v, 0)
        u, v = u - beyond * (side * c), v + beyond * s
    u, v = np.abs(u), v - 1.08
    edge_u, edge_v = 0.46 * s, 0.46 * c - 1
    return (v * edge_u - u * edge_v) / hypot(edge_u, edge_v)


def _cross(u, v):
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(a, b) - 0.98, np.minimum(a, b) - 0.32)


def _ring(u, v):
    return np.abs(_length(u, v) - 0.70) - 0.25


def _heart(u, v):
    a = np.abs(u)
    lobe = _length(a - 0.45, v - 0.3) - 0.52
    tip = np.maximum(0.744 * a - 0.668 * (v + 0.95), v - 0.1)  # the line touches the lobe
    return np.minimum(lobe, tip)


def _crescent(u, v):
    return np.maximum(_length(u, v) - 0.98, 0.78 - _length(u - 0.5, v - 0.12))


def _hexagon(u, v):
    a, b = np.abs(u), np.abs(v)
    return np.maximum(b, 0.866 * a + 0.5 * b) - 0.84


def _arrow(u, v):
    a = np.abs(u)
    head = np.maximum((a * 1.0 + (v - 1) * 0.9) / hypot(1.0, 0.9), -v)
    return np.minimum(head, _box(a, np.abs(v + 0.45), 0.3, 0.5))


def _oval(u, v):
    near = _length(u, v / 0.55)
    return near * (near - 1) / (_length(u, v / 0.55**2) + 1e-6)


DISTANCES = {name: globals()[f"_{name}"] for name in SHAPES}
