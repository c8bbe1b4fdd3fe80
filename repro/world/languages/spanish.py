"""Spanish: two genders; adjectives follow the noun and agree with it, save for those that never change.

"dos pequeños círculos rojos a rayas a la izquierda de una estrella azul sobre fondo blanco"
"""

from typing import NamedTuple

from repro.world.captions import Phrase, Random, Said, one_of


class Noun(NamedTuple):
    singular: str
    plural: str
    feminine: bool = False


NOUNS = {
    "circle": Noun("círculo", "círculos"),
    "square": Noun("cuadrado", "cuadrados"),
    "triangle": Noun("triángulo", "triángulos"),
    "diamond": Noun("rombo", "rombos"),
    "star": Noun("estrella", "estrellas", True),
    "cross": Noun("cruz", "cruces", True),
    "ring": Noun("anillo", "anillos"),
    "heart": Noun("corazón", "corazones"),
    "crescent": Noun("media luna", "medias lunas", True),
    "hexagon": Noun("hexágono", "hexágonos"),
    "arrow": Noun("flecha", "flechas", True),
    "oval": Noun("óvalo", "óvalos"),
    "shape": Noun("figura", "figuras", True),
    "object": Noun("objeto", "objetos"),
}
ADJECTIVES = {
    "red": ("rojo",),
    "orange": ("naranja",),
    "yellow": ("amarillo",),
    "green": ("verde",),
    "cyan": ("turquesa",),
    "blue": ("azul",),
    "purple": ("morado", "violeta"),
    "pink": ("rosa",),
    "brown": ("marrón",),
    "black": ("negro",),
    "white": ("blanco",),
    "gray": ("gris",),
    "solid": ("liso",),
    "plain": ("liso",),
    "striped": ("a rayas", "rayado"),
    "dotted": ("con lunares", "punteado", "con puntos"),
    "checked": ("a cuadros",),
    "outlined": ("con borde", "contorneado"),
    "small": ("pequeño", "pequeño", "diminuto"),
    "large": ("grande",),
}
INVARIABLE = {"naranja", "turquesa", "rosa", "violeta"}
NUMBERS = {2: "dos", 3: "tres"}
LEAD_INS = {
    "a photo of": "una foto de",
    "a picture of": "una imagen de",
    "an image of": "una ilustración de",
    "a drawing of": "un dibujo de",
    "there is": "hay",
}
JOINS = {
    "left of": ("a la izquierda de",),
    "right of": ("a la derecha de",),
    "above": ("encima de", "por encima de"),
    "below": ("debajo de", "por debajo de"),
    "and": ("y", "y", "con", "junto a", "al lado de"),
}
PLACES = {
    "left": ("a la izquierda", "en el lado izquierdo"),
    "right": ("a la derecha", "en el lado derecho"),
    "top": ("arriba", "en la parte superior"),
    "bottom": ("abajo", "en la parte inferior"),
    "center": ("en el centro",),
}
IN_A_CORNER = {"left": "izquierda", "right": "derecha", "top": "superior", "bottom": "inferior"}


def tell(said: Said, rand: Random) -> str:
    if said.statement is not None:
        return _sentence(said, rand)
    phrases = [_phrase(phrase, rand) for phrase in said.phrases]
    if len(phrases) == 2:
        text = f"{phrases[0]} {one_of(JOINS[said.join], rand)} {phrases[1]}"
    else:
        text = f"{', '.join(phrases[:-1])} y {phrases[-1]}" if len(phrases) > 1 else phrases[0]
    lead_in = LEAD_INS[said.lead_in] if said.lead_in else ""
    return " ".join(part for part in (lead_in, text, _place(said.place, rand), _background(said, rand)) if part)


def _sentence(said: Said, rand: Random) -> str:
    """ "el círculo pequeño es rojo", "los dos círculos pequeños tienen borde" """
    phrase = said.phrases[0]
    noun, several = NOUNS[phrase.noun], phrase.count > 1
    article = ("las" if noun.feminine else "los") if several else ("la" if noun.feminine else "el")
    number = [NUMBERS[phrase.count]] if several else []
    predicate = one_of(ADJECTIVES[said.statement], rand)
    if predicate.startswith("con "):
        verb, predicate = "tienen" if several else "tiene", predicate.removeprefix("con ")
    else:
        verb, predicate = "son" if several else "es", _agreeing(predicate, noun, several)
    return " ".join([article, *number, *_words(phrase, rand), verb, predicate])


def _phrase(phrase: Phrase, rand: Random) -> str:
    """ "dos pequeños círculos rojos", "un círculo rojo pequeño" """
    article = NUMBERS.get(phrase.count, "una" if NOUNS[phrase.noun].feminine else "un")
    return " ".join([article, *_words(phrase, rand)])


def _words(phrase: Phrase, rand: Random) -> list[str]:
    """The noun, and what stands before and after it."""
    noun, several = NOUNS[phrase.noun], phrase.count > 1
    said = {word: one_of(ADJECTIVES[word], rand) for word in (phrase.colour, phrase.texture, phrase.size) if word}
    after = [_agreeing(word, noun, several) for word in said.values()]
    before = []
    if phrase.size and rand() < 0.5:
        size = after.pop()
        before = ["gran" if size == "grande" else size]
    elif phrase.size and phrase.texture:  # the size stands before what is said of the texture
        after[-2:] = after[-1], after[-2]
    return [*before, noun.plural if several else noun.singular, *after]


def _agreeing(adjective: str, noun: Noun, several: bool) -> str:
    """In the noun's gender and number; "a rayas" and the like stay as they are."""
    if adjective in INVARIABLE or " " in adjective:
        return adjective
    if adjective.endswith("o") and noun.feminine:
        adjective = adjective[:-1] + "a"
    if not several:
        return adjective
    return adjective + "s" if adjective[-1] in "aeo" else adjective.replace("ó", "o") + "es"


def _place(sides: tuple[str, ...], rand: Random) -> str:
    """ "a la izquierda", "arriba a la izquierda", "en la esquina superior izquierda" """
    if len(sides) == 2:
        across, upright = sides
        if rand() < 0.4:
            return f"en la esquina {IN_A_CORNER[upright]} {IN_A_CORNER[across]}"
        return f"{PLACES[upright][0]} {PLACES[across][0]}"
    return one_of(PLACES[sides[0]], rand) if sides else ""


def _background(said: Said, rand: Random) -> str:
    """ "sobre fondo blanco", "sobre un fondo azul a rayas" """
    words = [one_of(ADJECTIVES[word], rand) for word in (said.background, said.pattern) if word]
    return " ".join([one_of(("sobre fondo", "sobre un fondo"), rand), *words]) if words else ""
