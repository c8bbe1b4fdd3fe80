"""True captions of scenes: each names a random part of what is there, in one of many wordings.

Written from the description that an example's `.json` holds, so that a caption can be checked against it.
`lot` is everywhere a function that gives numbers in [0, 1), such as `random.Random(seed).random`.
"""

from collections.abc import Callable

from repro.data.shapes_scenes import Naming

MAX_WORDS = 14
"""Commas count. With start and end that is 16 tokens, save for the few words of two tokens."""
PLACE_MARGIN = 0.3
RELATION_MARGIN = 0.4

Lot = Callable[[], float]

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

# A caption that comes out too long is told again with less, in this order.
_SHORTER = (
    {},
    {"lead_in": 0.0, "place": 0.0, "pattern": 0.0},
    {"size": 0.0},
    {"background": 0.0},
    {"texture": 0.0},
)


def caption(scene: dict, naming: Naming, lot: Lot) -> str:
    """One caption of a described scene (see `shapes_scenes.describe`), of at most MAX_WORDS words."""
    text = ""
    for less in _SHORTER:
        naming = naming._replace(**less)
        text = _sentence(scene, naming, lot)
        if text.count(" ") + text.count(",") < MAX_WORDS:
            break
    return text


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
    """What `one` group is to the `other`: each object of it is clearly left of, right of, above or below."""
    found = []
    for axis, before, after in ((0, "left of", "right of"), (1, "above", "below")):
        these, those = [at[axis] for at in one["at"]], [at[axis] for at in other["at"]]
        if max(these) + RELATION_MARGIN < min(those):
            found.append(before)
        elif max(those) + RELATION_MARGIN < min(these):
            found.append(after)
    return found


def _sentence(scene: dict, naming: Naming, lot: Lot) -> str:
    groups = scene["groups"]
    background = _background(scene, naming, lot)
    if len(groups) > 1 and lot() < naming.total:
        total = sum(group["count"] for group in groups)
        return _led(f"{NUMBERS[total]} {_one_of(('shapes', 'objects'), lot)}", True, naming, lot) + background

    start = int(lot() * len(groups))
    groups = groups[start:] + groups[:start]
    named = [group for i, group in enumerate(groups) if i == 0 or lot() < naming.group]
    if len(named) == 1 and lot() < 0.1:
        return _told(named[0], naming, lot)
    phrases = [_phrase(group, naming, lot) for group in named]
    if len(named) == 1:
        where = place(named[0]) if lot() < naming.place else []
        text = phrases[0] + (" " + _place(where, lot) if where else "")
    elif len(named) == 2:
        known = relations(*named) if lot() < naming.relation else []
        text = f"{phrases[0]} {_say(_one_of(known, lot) if known else 'and', lot)} {phrases[1]}"
    else:
        text = f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    return _led(text, named[0]["count"] > 1, naming, lot) + background


def _phrase(group: dict, naming: Naming, lot: Lot) -> str:
    """ "two small striped red circles", "a circle with stripes", "a red shape" """
    adjectives, noun, after = _words(group, naming, lot)
    words = " ".join([*adjectives, noun])
    article = NUMBERS.get(group["count"], "an" if words[0] in "aeiou" else "a")
    return f"{article} {words}{after}"


def _told(group: dict, naming: Naming, lot: Lot) -> str:
    """ "the small circle is red", "the two circles are striped" """
    kind = "colour" if lot() < 0.6 else "texture"
    adjectives, noun, after = _words(group, naming._replace(shape=1.0, **{kind: 0.0}), lot)
    number, verb = ([NUMBERS[group["count"]]], "are") if group["count"] > 1 else ([], "is")
    return f"{' '.join(['the', *number, *adjectives, noun])}{after} {verb} {_say(group[kind], lot)}"


def _words(group: dict, naming: Naming, lot: Lot) -> tuple[list[str], str, str]:
    """Adjectives, noun, and what follows the noun."""
    colour = [_say(group["colour"], lot)] if lot() < naming.colour else []
    if lot() < naming.shape:
        noun = _say(group["shape"], lot)
    else:
        # No two groups share a colour, so that the colour alone still says which group, and how many.
        noun, colour = _one_of(("shape", "object"), lot), [_say(group["colour"], lot)]
    if group["count"] > 1:
        noun += "es" if noun.endswith("s") else "s"
    texture, after = [], ""
    if lot() < naming.texture:
        if group["texture"] != "solid" and lot() < 0.2:
            after = " " + _one_of(WITH_TEXTURE[group["texture"]], lot)
        else:
            texture = [_say(group["texture"], lot)]
    size = [_say(group["size"], lot)] if lot() < naming.size else []
    order = size + colour + texture if lot() < 0.25 else size + texture + colour
    return order, noun, after


def _background(scene: dict, naming: Naming, lot: Lot) -> str:
    """ "", " on white", " on a striped blue background" """
    if lot() >= naming.background:
        return ""
    colour = _say(scene["background"], lot)
    if lot() < naming.pattern:
        pattern = _say(scene["pattern"], lot)
        return f" on a {pattern} {colour} background" if lot() < 0.7 else f" on a {pattern} background"
    return f" on {colour}" if lot() < 0.4 else f" on a {colour} background"


def _place(sides: list[str], lot: Lot) -> str:
    """ "on the left", "in the top left" """
    if len(sides) == 2 and lot() < 0.6:
        return f"in the {sides[1]} {sides[0]}" + (" corner" if lot() < 0.4 else "")
    return _say(_one_of(sides, lot), lot)


def _led(text: str, plural: bool, naming: Naming, lot: Lot) -> str:
    """The text, or "a photo of " and the text."""
    if lot() >= naming.lead_in:
        return text
    lead_in = _one_of(LEAD_INS, lot)
    return f"{'there are' if plural and lead_in == 'there is' else lead_in} {text}"


def _say(word: str, lot: Lot) -> str:
    return _one_of(WORDINGS[word], lot) if word in WORDINGS else word


def _one_of(options, lot: Lot) -> str:
    return options[int(lot() * len(options))]
