"""True captions of scenes: each names a random part of what is there, in one of many wordings.

Written from the description that an example's `.json` holds, so that a caption can be checked against it. What a
caption says is kept beside its English words (`Said`): other languages say the same (shapes_languages).
`rand` is a function that gives numbers in [0, 1), such as `random.Random(seed).random`.
"""

from collections.abc import Callable
from typing import NamedTuple

from repro.world.scenes import Naming

MAX_WORDS = 14
"""Commas count. With start and end that is 16 tokens, save for the few words of two tokens."""
PLACE_MARGIN = 0.3
RELATION_MARGIN = 0.4

Random = Callable[[], float]

WORDINGS = {
    "small": ("small", "small", "small", "tiny", "little"),
    "large": ("large", "large", "big"),
    "dotted": ("dotted", "dotted", "dotted", "spotted"),
    "checked": ("checked", "checked", "checkered"),
    "gray": ("gray", "gray", "gray", "grey"),
    "crescent": ("crescent", "crescent", "moon"),
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "center": ("in the center", "in the middle"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "and": ("and", "and", "with", "next to", "beside"),
}
WITH_TEXTURE = {
    "striped": ("with stripes",),
    "dotted": ("with dots", "with spots"),
    "checked": ("with checks",),
    "outlined": ("with an outline",),
}
NUMBERS = {2: "two", 3: "three"}
LEAD_INS = ("a photo of", "a picture of", "an image of", "a drawing of", "there is")

# A caption that comes out too long is written again with less, in this order.
_SHORTER = (
    {},
    {"lead_in": 0.0, "place": 0.0, "pattern": 0.0},
    {"size": 0.0},
    {"background": 0.0},
    {"texture": 0.0},
)


class Phrase(NamedTuple):
    """Attributes that a caption mentions of one group; None for those that it leaves out."""

    count: int
    noun: str  # one of SHAPES, "shape" or "object"
    colour: str | None = None
    texture: str | None = None
    size: str | None = None


class Said(NamedTuple):
    """A caption's content: its English words, and the same independent of language."""

    english: str
    phrases: tuple[Phrase, ...]
    join: str = ""  # between two: "left of", "right of", "above", "below" or "and"
    place: tuple[str, ...] = ()  # of the only group
    statement: str | None = None  # what a sentence says of the only group: "red", "striped"
    lead_in: str | None = None  # one of LEAD_INS
    background: str | None = None
    pattern: str | None = None


def caption(scene: dict, naming: Naming, rand: Random) -> str:
    """One caption of a described scene (see `shapes_scenes.describe`), of at most MAX_WORDS words."""
    return say(scene, naming, rand).english


def say(scene: dict, naming: Naming, rand: Random) -> Said:
    """The caption in English, and what it says."""
    said = Said("", ())
    for less in _SHORTER:
        naming = naming._replace(**less)
        said = _sentence(scene, naming, rand)
        if said.english.count(" ") + said.english.count(",") < MAX_WORDS:
            break
    return said


def place(group: dict) -> list[str]:
    """Where a single object is in the image: [], ["center"], ["left"], ["left", "top"] ..."""
    if group["count"] > 1:
        return []
    x, y, _ = group["at"][0]
    if abs(x) < PLACE_MARGIN / 2 and abs(y) < PLACE_MARGIN / 2:
        return ["center"]
    sides = {"left": -x, "right": x, "top": -y, "bottom": y}
    return [side for side, distance in sides.items() if distance > PLACE_MARGIN]


def relations(one: dict, other: dict) -> list[str]:
    """Relation of `one` group to the `other`: each object of it is clearly left of, right of, above or below."""
    found = []
    for axis, before, after in ((0, "left of", "right of"), (1, "above", "below")):
        these, those = [at[axis] for at in one["at"]], [at[axis] for at in other["at"]]
        if max(these) + RELATION_MARGIN < min(those):
            found.append(before)
        elif max(those) + RELATION_MARGIN < min(these):
            found.append(after)
    return found


def _sentence(scene: dict, naming: Naming, rand: Random) -> Said:
    groups = scene["groups"]
    colour, pattern, background = _background(scene, naming, rand)
    if len(groups) > 1 and rand() < naming.total:
        everything = Phrase(sum(group["count"] for group in groups), "shape")
        lead_in, text = _led(f"{NUMBERS[everything.count]} {one_of(('shapes', 'objects'), rand)}", True, naming, rand)
        return Said(text + background, (everything,), "", (), None, lead_in, colour, pattern)

    start = int(rand() * len(groups))
    groups = groups[start:] + groups[:start]
    named = [group for i, group in enumerate(groups) if i == 0 or rand() < naming.group]
    if len(named) == 1 and rand() < 0.1:
        return _told(named[0], naming, rand)
    phrases, texts = zip(*(_phrase(group, naming, rand) for group in named), strict=True)
    join, where = "", []
    if len(named) == 1:
        where = place(named[0]) if rand() < naming.place else []
        text = texts[0] + (" " + _place(where, rand) if where else "")
    elif len(named) == 2:
        known = relations(*named) if rand() < naming.relation else []
        join = one_of(known, rand) if known else "and"
        text = f"{texts[0]} {_word(join, rand)} {texts[1]}"
    else:
        text = f"{texts[0]}, {texts[1]} and {texts[2]}"
    lead_in, text = _led(text, named[0]["count"] > 1, naming, rand)
    return Said(text + background, phrases, join, tuple(where), None, lead_in, colour, pattern)


def _phrase(group: dict, naming: Naming, rand: Random) -> tuple[Phrase, str]:
    """ "two small striped red circles", "a circle with stripes", "a red shape" """
    phrase, adjectives, noun, after = _words(group, naming, rand)
    words = " ".join([*adjectives, noun])
    article = NUMBERS.get(group["count"], "an" if words[0] in "aeiou" else "a")
    return phrase, f"{article} {words}{after}"


def _told(group: dict, naming: Naming, rand: Random) -> Said:
    """ "the small circle is red", "the two circles are striped" """
    kind = "colour" if rand() < 0.6 else "texture"
    phrase, adjectives, noun, after = _words(group, naming._replace(shape=1.0, **{kind: 0.0}), rand)
    number, verb = ([NUMBERS[group["count"]]], "are") if group["count"] > 1 else ([], "is")
    text = f"{' '.join(['the', *number, *adjectives, noun])}{after} {verb} {_word(group[kind], rand)}"
    return Said(text, (phrase,), statement=group[kind])


def _words(group: dict, naming: Naming, rand: Random) -> tuple[Phrase, list[str], str, str]:
    """The phrase, split into adjectives, noun, and words that follow the noun."""
    colour = [_word(group["colour"], rand)] if rand() < naming.colour else []
    said = group["shape"]
    if rand() < naming.shape:
        noun = _word(group["shape"], rand)
    else:
        # No two groups share a colour, so that the colour alone still says which group, and how many.
        said = noun = one_of(("shape", "object"), rand)
        colour = [_word(group["colour"], rand)]
    if group["count"] > 1:
        noun += "es" if noun.endswith("s") else "s"
    texture, after = [], ""
    textured = rand() < naming.texture
    if textured:
        if group["texture"] != "solid" and rand() < 0.2:
            after = " " + one_of(WITH_TEXTURE[group["texture"]], rand)
        else:
            texture = [_word(group["texture"], rand)]
    size = [_word(group["size"], rand)] if rand() < naming.size else []
    order = size + colour + texture if rand() < 0.25 else size + texture + colour
    phrase = Phrase(
        group["count"],
        said,
        group["colour"] if colour else None,
        group["texture"] if textured else None,
        group["size"] if size else None,
    )
    return phrase, order, noun, after


def _background(scene: dict, naming: Naming, rand: Random) -> tuple[str | None, str | None, str]:
    """Colour and pattern, where they are said, and "", " on white", " on a striped blue background" """
    if rand() >= naming.background:
        return None, None, ""
    colour = _word(scene["background"], rand)
    if rand() < naming.pattern:
        pattern = _word(scene["pattern"], rand)
        if rand() < 0.7:
            return scene["background"], scene["pattern"], f" on a {pattern} {colour} background"
        return None, scene["pattern"], f" on a {pattern} background"
    return scene["background"], None, f" on {colour}" if rand() < 0.4 else f" on a {colour} background"


def _place(sides: list[str], rand: Random) -> str:
    """ "on the left", "in the top left" """
    if len(sides) == 2 and rand() < 0.6:
        return f"in the {sides[1]} {sides[0]}" + (" corner" if rand() < 0.4 else "")
    return _word(one_of(sides, rand), rand)


def _led(text: str, plural: bool, naming: Naming, rand: Random) -> tuple[str | None, str]:
    """The text after its lead-in, if it has one, or after "a photo of "."""
    if rand() >= naming.lead_in:
        return None, text
    lead_in = one_of(LEAD_INS, rand)
    return lead_in, f"{'there are' if plural and lead_in == 'there is' else lead_in} {text}"


def _word(meaning: str, rand: Random) -> str:
    return one_of(WORDINGS[meaning], rand) if meaning in WORDINGS else meaning


def one_of(options, rand: Random):
    return options[int(rand() * len(options))]
