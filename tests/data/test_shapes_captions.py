"""Captions of the embedded world: true, many, short. A parser that knows only English reads them."""

import json
import random
import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from repro.world import scenes as world
from repro.world import write as shapes
from repro.world.captions import MAX_WORDS, caption

# What a wording stands for: @ a place, # the background, a dash for a relation. Longer wordings come first.
MEANINGS = {
    r"^(a (photo|picture|drawing)|an image) of |^there (is|are) ": "",
    r" on a (\w+) (\w+) background$": r" #\1 #\2",
    r" on a (\w+) background$": r" #\1",
    r" on (\w+)$": r" #\1",
    r"with an outline\b": "outlined",
    r"with (stripes|dots|spots|checks)": r"\1",
    r"(to the )?(left|right) of": r"\2-of",
    r"in the (top|bottom) (left|right)( corner)?": r"@\1 @\2",
    r"on the (left|right)( side)?": r"@\1",
    r"at the (top|bottom)": r"@\1",
    r"in the (center|middle)": "@center",
    r"next to|beside|with|,": " and",
    r"over": "above",
    r"under": "below",
    r"the (two|three)": r"\1",
    r"\b(an|the)\b": "a",
    r"\b(is|are)\b": "",
}
SAME = {"moon": "crescent", "grey": "gray", "big": "large", "tiny": "small", "little": "small"}
SAME |= {"stripes": "striped", "spotted": "dotted", "dots": "dotted", "spots": "dotted"}
SAME |= {"checkered": "checked", "checks": "checked", "crosses": "cross"}
COUNTS = {"a": 1, "two": 2, "three": 3}
JOINS = ("left-of", "right-of", "above", "below", "and")
VOCABULARY = {
    "shape": world.SHAPES,
    "colour": tuple(world.COLOURS),
    "texture": world.TEXTURES,
    "size": world.SIZES,
    "place": ("@left", "@right", "@top", "@bottom", "@center"),
}


@pytest.fixture(scope="module")
def training() -> list[tuple[str, dict]]:
    """Captions and what is true of their images: 8,192 scenes, not drawn."""
    pairs = []
    for block in range(8):
        rng, rand = np.random.default_rng(block), random.Random(block).random
        scenes = world.describe(world.lay_out(rng, world.sample_groups(rng, 1024, world.SCENES, held_out=False)))
        pairs += [(caption(scene, world.TRAINING_NAMING, rand), scene) for scene in scenes]
    return pairs


def test_every_training_caption_is_true(training):
    assert [(text, scene) for text, scene in training if not is_true(text, scene)] == []


def test_the_captions_in_the_shards_are_true():
    for sample in shapes.training_block(3):
        assert is_true(sample["txt"].decode(), json.loads(sample["json"]))


def test_retrieval_captions_are_true_and_no_two_are_alike():
    samples = list(shapes.retrieval_samples())
    for sample in samples:
        assert is_true(sample["txt"].decode(), json.loads(sample["json"]))
    assert len({sample["txt"] for sample in samples}) == len(samples) == shapes.RETRIEVAL_IMAGES


def test_the_check_itself_tells_true_from_untrue():
    circles = {"count": 2, "shape": "circle", "colour": "red", "texture": "solid", "size": "small"}
    star = {"count": 1, "shape": "star", "colour": "blue", "texture": "striped", "size": "large"}
    circles["at"], star["at"] = [[-0.5, -0.5, 0.3], [-0.5, 0.5, 0.3]], [[0.5, -0.5, 0.45]]
    scene = {"background": "white", "pattern": "dotted", "groups": [circles, star]}
    for true in (
        "two red circles to the left of a big blue star with stripes on a spotted white background",
        "three shapes on white",
        "there is a star in the top right corner",
        "the two red circles are solid",
    ):
        assert is_true(true, scene), true
    for untrue in (
        "a red circle",
        "three red circles",
        "two blue circles",
        "a small star",
        "a dotted star",
        "two circles right of a star",
        "two red circles above a blue star",
        "a star on the left",
        "a star on black",
        "two shapes",
        "a star on a plain background",
    ):
        assert not is_true(untrue, scene), untrue


def test_more_than_50_000_captions_are_possible(training):
    """Chao's lower bound of how many kinds there are, from how many were seen, seen once and seen twice."""
    times = Counter(Counter(text for text, _ in training).values())
    assert times.total() + times[1] ** 2 / (2 * times[2]) > 50_000


def test_most_captions_fit_sixteen_tokens(training):
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    lengths = np.array([len(tokenizer.encode(text)) + 2 for text, _ in training[:2000]])
    assert (lengths <= 16).mean() > 0.95
    assert max(len(text.replace(",", " ,").split()) for text, _ in training) <= MAX_WORDS


def test_class_prompts_read_like_training_captions(training):
    texts = [text for text, _ in training]
    words = {word for text in texts for word in text.replace(",", "").split()}
    prompts = [t.format(c=f"{colour} {shape}") for t in shapes.TEMPLATES for colour, shape in world.CLASSES]
    assert {word for prompt in prompts for word in prompt.split()} <= words
    assert sum(text in prompts for text in texts) > 0.01 * len(texts)


def is_true(text: str, scene: dict) -> bool:
    """Whether groups of the scene are what the phrases say, stand as the join says, on that background."""
    for wording, meaning in MEANINGS.items():
        text = re.sub(wording, meaning, text)
    background = [SAME.get(word[1:], word[1:]) for word in text.split() if word[0] == "#"]
    if any(word not in (scene["background"], scene["pattern"]) for word in background):
        return False
    words = [word for word in text.split() if word[0] != "#"]
    if words[1:] in (["shapes"], ["objects"]):
        return COUNTS[words[0]] == sum(group["count"] for group in scene["groups"])
    phrases, joins = [[]], []
    for word in words:
        if word in JOINS:
            joins.append(word)
            phrases.append([])
        else:
            phrases[-1].append(word)
    return any(
        all(_fits(phrase, group) for phrase, group in zip(phrases, groups, strict=True))
        and (joins[0] == "and" or _stands(joins[0], *groups) if len(joins) == 1 else True)
        for groups in permutations(scene["groups"], len(phrases))
    )


def _fits(phrase: list[str], group: dict) -> bool:
    """["two", "red", "circles"] of a group; an unknown word fails the test."""
    said: dict[str, list[str]] = {}
    for word in phrase[1:]:
        word = word if word in ("cross", *SAME) else word.removesuffix("s")
        word = SAME.get(word, word)
        if word in ("shape", "object"):
            continue
        kinds = [kind for kind, known in VOCABULARY.items() if word in known]
        assert len(kinds) == 1, f"{word} in {phrase}"
        said.setdefault(kinds[0], []).append(word)
    places = said.pop("place", [])
    if places and (group["count"] > 1 or not all(_lies(place, *group["at"][0][:2]) for place in places)):
        return False
    return COUNTS[phrase[0]] == group["count"] and all(said[kind] == [group[kind]] for kind in said)


def _lies(place: str, x: float, y: float) -> bool:
    sides = {"@left": x < -0.25, "@right": x > 0.25, "@top": y < -0.25, "@bottom": y > 0.25}
    return sides.get(place, max(abs(x), abs(y)) < 0.2)


def _stands(relation: str, one: dict, other: dict) -> bool:
    axis, sign = {"left-of": (0, -1), "right-of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
    return all(sign * (here[axis] - there[axis]) > 0.3 for here in one["at"] for there in other["at"])
