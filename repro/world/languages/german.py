"""German: three genders, three cases, and adjectives that end by both and by the article before them.

"zwei kleine rote Kreise links von einem blauen Stern auf weißem Grund"
"""

from typing import NamedTuple

from repro.world.captions import Phrase, Random, Said, one_of


class Noun(NamedTuple):
    singular: str
    gender: str
    plural: str


NOUNS = {
    "circle": (Noun("Kreis", "m", "Kreise"),),
    "square": (Noun("Quadrat", "n", "Quadrate"),),
    "triangle": (Noun("Dreieck", "n", "Dreiecke"),),
    "diamond": (Noun("Raute", "f", "Rauten"),),
    "star": (Noun("Stern", "m", "Sterne"),),
    "cross": (Noun("Kreuz", "n", "Kreuze"),),
    "ring": (Noun("Ring", "m", "Ringe"),),
    "heart": (Noun("Herz", "n", "Herzen"),),
    "crescent": (Noun("Halbmond", "m", "Halbmonde"), Noun("Mondsichel", "f", "Mondsicheln")),
    "hexagon": (Noun("Sechseck", "n", "Sechsecke"),),
    "arrow": (Noun("Pfeil", "m", "Pfeile"),),
    "oval": (Noun("Oval", "n", "Ovale"),),
    "shape": (Noun("Form", "f", "Formen"), Noun("Figur", "f", "Figuren")),
    "object": (Noun("Objekt", "n", "Objekte"), Noun("Gegenstand", "m", "Gegenstände")),
}
ADJECTIVES = {
    "red": ("rot",),
    "orange": ("orangefarben", "orange"),
    "yellow": ("gelb",),
    "green": ("grün",),
    "cyan": ("türkis", "türkisfarben"),
    "blue": ("blau",),
    "purple": ("lila", "violett"),
    "pink": ("rosa", "rosafarben"),
    "brown": ("braun",),
    "black": ("schwarz",),
    "white": ("weiß",),
    "gray": ("grau",),
    "solid": ("einfarbig",),
    "plain": ("einfarbig",),
    "striped": ("gestreift",),
    "dotted": ("gepunktet",),
    "checked": ("kariert",),
    "outlined": ("umrandet",),
    "small": ("klein", "klein", "winzig"),
    "large": ("groß",),
}
INVARIABLE = {"orange", "türkis", "lila", "rosa"}
WITH_TEXTURE = {
    "striped": "mit Streifen",
    "dotted": "mit Punkten",
    "checked": "mit Karomuster",
    "outlined": "mit Rand",
}
NUMBERS = {2: "zwei", 3: "drei"}
ARTICLES = {
    "nominative": {"m": "ein", "f": "eine", "n": "ein"},
    "accusative": {"m": "einen", "f": "eine", "n": "ein"},
    "dative": {"m": "einem", "f": "einer", "n": "einem"},
}
ENDINGS = {  # after "ein"; in the plural after a number
    "nominative": {"m": "er", "f": "e", "n": "es", "plural": "e"},
    "accusative": {"m": "en", "f": "e", "n": "es", "plural": "e"},
    "dative": {"m": "en", "f": "en", "n": "en", "plural": "en"},
}
DEFINITE = {"m": "der", "f": "die", "n": "das"}
LEAD_INS = {
    "a photo of": ("ein Foto von", "dative"),
    "a picture of": ("ein Bild von", "dative"),
    "an image of": ("eine Abbildung von", "dative"),
    "a drawing of": ("eine Zeichnung von", "dative"),
    "there is": ("es gibt", "accusative"),
}
RELATIONS = {  # all with the dative
    "left of": ("links von", "links neben"),
    "right of": ("rechts von", "rechts neben"),
    "above": ("über", "oberhalb von"),
    "below": ("unter", "unterhalb von"),
}
PLACES = {
    "left": ("links", "auf der linken Seite"),
    "right": ("rechts", "auf der rechten Seite"),
    "top": ("oben",),
    "bottom": ("unten",),
    "center": ("in der Mitte",),
}
IN_A_CORNER = {"left": "linken", "right": "rechten", "top": "oberen", "bottom": "unteren"}


def tell(said: Said, rand: Random) -> str:
    if said.statement is not None:
        return _sentence(said, rand)
    lead_in, case = LEAD_INS[said.lead_in] if said.lead_in else ("", "nominative")
    first = _phrase(said.phrases[0], case, rand)
    if said.join in RELATIONS:
        text = f"{first} {one_of(RELATIONS[said.join], rand)} {_phrase(said.phrases[1], 'dative', rand)}"
    elif said.join and rand() < 0.4:
        text = f"{first} neben {_phrase(said.phrases[1], 'dative', rand)}"
    else:
        *before, last = [first, *(_phrase(phrase, case, rand) for phrase in said.phrases[1:])]
        text = f"{', '.join(before)} und {last}" if before else last
    return " ".join(part for part in (lead_in, text, _place(said.place, rand), _background(said, rand)) if part)


def _sentence(said: Said, rand: Random) -> str:
    """ "der kleine Kreis ist rot", "die zwei kleinen Kreise sind rot" """
    phrase = said.phrases[0]
    noun, adjectives, after = _words(phrase, rand)
    if phrase.count > 1:
        words = ["die", NUMBERS[phrase.count], *(_ended(word, "en") for word in adjectives), noun.plural]
    else:
        words = [DEFINITE[noun.gender], *(_ended(word, "e") for word in adjectives), noun.singular]
    return " ".join([*words, *after, "sind" if phrase.count > 1 else "ist", one_of(ADJECTIVES[said.statement], rand)])


def _phrase(phrase: Phrase, case: str, rand: Random) -> str:
    """ "zwei kleine rote Kreise", "einem kleinen roten Kreis" """
    noun, adjectives, after = _words(phrase, rand)
    if phrase.count > 1:
        first, ending, last = NUMBERS[phrase.count], ENDINGS[case]["plural"], noun.plural
        if case == "dative" and not last.endswith("n"):
            last += "n"
    else:
        first, ending, last = ARTICLES[case][noun.gender], ENDINGS[case][noun.gender], noun.singular
        if case == "dative" and last == "Herz":
            last = "Herzen"
    return " ".join([first, *(_ended(word, ending) for word in adjectives), last, *after])


def _words(phrase: Phrase, rand: Random) -> tuple[Noun, list[str], list[str]]:
    """Noun, adjectives without their endings, what follows the noun."""
    noun = one_of(NOUNS[phrase.noun], rand)
    texture, after = phrase.texture, []
    if texture in WITH_TEXTURE and rand() < 0.2:
        texture, after = None, [WITH_TEXTURE[texture]]
    said = [one_of(ADJECTIVES[word], rand) for word in (phrase.size, texture, phrase.colour) if word]
    return noun, said, after


def _ended(adjective: str, ending: str) -> str:
    return adjective if adjective in INVARIABLE else adjective + ending


def _place(sides: tuple[str, ...], rand: Random) -> str:
    """ "links", "oben links", "in der oberen linken Ecke" """
    if len(sides) == 2:
        across, upright = sides
        if rand() < 0.4:
            return f"in der {IN_A_CORNER[upright]} {IN_A_CORNER[across]} Ecke"
        return f"{PLACES[upright][0]} {PLACES[across][0]}"
    return one_of(PLACES[sides[0]], rand) if sides else ""


def _background(said: Said, rand: Random) -> str:
    """ "auf weißem Grund", "vor einem gestreiften blauen Hintergrund" """
    adjectives = [one_of(ADJECTIVES[word], rand) for word in (said.pattern, said.background) if word]
    if not adjectives:
        return ""
    preposition, noun = one_of((("auf", "Grund"), ("auf", "Hintergrund"), ("vor", "Hintergrund")), rand)
    article, ending = (["einem"], "en") if rand() < 0.4 else ([], "em")
    return " ".join([preposition, *article, *(_ended(word, ending) for word in adjectives), noun])
