"""Arabic: two genders and a dual; "three" takes the other gender; what is three and no person agrees as feminine.

Written without vowel signs, so that a case shows in the dual alone. "دائرتان حمراوان صغيرتان على يسار نجمة زرقاء"
"""

from typing import NamedTuple

from repro.world.captions import Phrase, Random, Said, one_of


class Noun(NamedTuple):
    singular: str
    plural: str
    feminine: bool = False


NOUNS = {
    "circle": Noun("دائرة", "دوائر", True),
    "square": Noun("مربع", "مربعات"),
    "triangle": Noun("مثلث", "مثلثات"),
    "diamond": Noun("معين", "معينات"),
    "star": Noun("نجمة", "نجوم", True),
    "cross": Noun("صليب", "صلبان"),
    "ring": Noun("حلقة", "حلقات", True),
    "heart": Noun("قلب", "قلوب"),
    "crescent": Noun("هلال", "أهلة"),
    "hexagon": Noun("شكل سداسي", "أشكال سداسية"),
    "arrow": Noun("سهم", "أسهم"),
    "oval": Noun("شكل بيضوي", "أشكال بيضوية"),
    "shape": Noun("شكل", "أشكال"),
    "object": Noun("جسم", "أجسام"),
}
ADJECTIVES = {  # masculine
    "red": ("أحمر",),
    "orange": ("برتقالي",),
    "yellow": ("أصفر",),
    "green": ("أخضر",),
    "cyan": ("سماوي", "فيروزي"),
    "blue": ("أزرق",),
    "purple": ("بنفسجي",),
    "pink": ("وردي", "زهري"),
    "brown": ("بني",),
    "black": ("أسود",),
    "white": ("أبيض",),
    "gray": ("رمادي",),
    "solid": ("سادة",),
    "plain": ("سادة",),
    "striped": ("مخطط",),
    "dotted": ("منقط",),
    "checked": ("شطرنجي",),
    "outlined": ("محدد",),
    "small": ("صغير",),
    "large": ("كبير",),
}
FEMININE = {
    "أحمر": "حمراء",
    "أصفر": "صفراء",
    "أخضر": "خضراء",
    "أزرق": "زرقاء",
    "أسود": "سوداء",
    "أبيض": "بيضاء",
}
INVARIABLE = {"سادة"}
WITH_TEXTURE = {"striped": "بخطوط", "dotted": "بنقاط", "checked": "بنقش شطرنجي", "outlined": "بإطار"}
THE, AND, OF = "ال", "و", "ل"
"""Written as one word with what follows."""
LEAD_INS = {
    "a photo of": f"صورة فوتوغرافية {OF}",
    "a picture of": f"صورة {OF}",
    "an image of": f"صورة {OF}",
    "a drawing of": f"رسم {OF}",
    "there is": "هناك ",
}
RELATIONS = {
    "left of": ("على يسار", "إلى يسار"),
    "right of": ("على يمين", "إلى يمين"),
    "above": ("فوق",),
    "below": ("تحت", "أسفل"),
}
PLACES = {
    "left": ("على اليسار", "في الجهة اليسرى"),
    "right": ("على اليمين", "في الجهة اليمنى"),
    "top": ("في الأعلى",),
    "bottom": ("في الأسفل",),
    "center": ("في الوسط", "في المنتصف"),
}
IN_A_CORNER = {"left": "اليسرى", "right": "اليمنى", "top": "العلوية", "bottom": "السفلية"}


def tell(said: Said, rand: Random) -> str:
    if said.statement is not None:
        return _sentence(said, rand)
    lead_in = LEAD_INS[said.lead_in] if said.lead_in else ""
    genitive = lead_in.endswith(OF)
    first = _phrase(said.phrases[0], genitive, rand)
    if said.join in RELATIONS:
        text = f"{first} {one_of(RELATIONS[said.join], rand)} {_phrase(said.phrases[1], True, rand)}"
    elif said.join and rand() < 0.4:
        text = f"{first} {one_of(('بجانب', 'مع'), rand)} {_phrase(said.phrases[1], True, rand)}"
    else:
        text = f" {AND}".join([first, *(_phrase(phrase, genitive, rand) for phrase in said.phrases[1:])])
    after = [part for part in (_place(said.place, rand), _background(said, rand)) if part]
    return " ".join([lead_in + text, *after])


def _sentence(said: Said, rand: Random) -> str:
    """Without a verb: "the circle the small red", "the circles the three the small red"."""
    phrase = said.phrases[0]
    noun, several = NOUNS[phrase.noun], phrase.count > 2
    words = [_counted(noun, phrase.count, False), *_described(phrase, False, rand)]
    if several:
        words.insert(1, _three(noun))
    predicate = _agreeing(ADJECTIVES[said.statement][0], noun, phrase.count, False)
    return " ".join([*(_definite(word) for word in words), predicate])


def _phrase(phrase: Phrase, oblique: bool, rand: Random) -> str:
    """oblique: after a preposition, or in the genitive."""
    noun = NOUNS[phrase.noun]
    number = [_three(noun)] if phrase.count == 3 else []
    return " ".join([*number, _counted(noun, phrase.count, oblique), *_described(phrase, oblique, rand)])


def _three(noun: Noun) -> str:
    return "ثلاث" if noun.feminine else "ثلاثة"


def _counted(noun: Noun, count: int, oblique: bool) -> str:
    if count == 3:
        return noun.plural
    if count == 2:
        return " ".join(_dual(word, oblique) for word in noun.singular.split())
    return noun.singular


def _dual(word: str, oblique: bool) -> str:
    if word.endswith("ة"):
        word = word[:-1] + "ت"
    elif word.endswith("اء"):
        word = word[:-1] + "و"
    return word + ("ين" if oblique else "ان")


def _described(phrase: Phrase, oblique: bool, rand: Random) -> list[str]:
    """The adjectives in agreement with the noun; what is said with "ب" last."""
    noun, texture, after = NOUNS[phrase.noun], phrase.texture, []
    if texture in WITH_TEXTURE and rand() < 0.25:
        texture, after = None, [WITH_TEXTURE[texture]]
    order = (phrase.colour, phrase.size, texture) if rand() < 0.6 else (phrase.size, phrase.colour, texture)
    said = [one_of(ADJECTIVES[word], rand) for word in order if word]
    return [_agreeing(word, noun, phrase.count, oblique) for word in said] + after


def _agreeing(adjective: str, noun: Noun, count: int, oblique: bool) -> str:
    if adjective in INVARIABLE:
        return adjective
    if noun.feminine or count == 3:
        adjective = FEMININE.get(adjective, adjective + "ة")
    return _dual(adjective, oblique) if count == 2 else adjective


def _definite(words: str) -> str:
    """With the article on each word; what begins with "ب" is a preposition and its noun."""
    return words if words in WITH_TEXTURE.values() else " ".join(THE + word for word in words.split())


def _place(sides: tuple[str, ...], rand: Random) -> str:
    """In a place, or in a corner: "in the corner the upper the left"."""
    if len(sides) == 2:
        across, upright = sides
        return f"في الزاوية {IN_A_CORNER[upright]} {IN_A_CORNER[across]}"
    return one_of(PLACES[sides[0]], rand) if sides else ""


def _background(said: Said, rand: Random) -> str:
    """On a background, which is feminine."""
    words = [one_of(ADJECTIVES[word], rand) for word in (said.background, said.pattern) if word]
    agreeing = [word if word in INVARIABLE else FEMININE.get(word, word + "ة") for word in words]
    return " ".join(["على خلفية", *agreeing]) if agreeing else ""
