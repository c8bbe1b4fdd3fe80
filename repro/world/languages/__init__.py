"""The captions of the embedded world in other languages: each says what the English one says, in its own grammar.

A language is a function of what a caption says (`Said`) and of a random stream that chooses among its wordings. A new
one is a file with its words and its rules of agreement and order, and a line here.
"""

from collections.abc import Callable

from repro.world.captions import Random, Said
from repro.world.languages import arabic, chinese

TELL: dict[str, Callable[[Said, Random], str]] = {
    "en": lambda said, rand: said.english,
    "zh": chinese.tell,
    "ar": arabic.tell,
}

LANGUAGES = tuple(TELL)


def translations(said: Said, streams: dict[str, Random]) -> dict[str, str]:
    """Language → caption. Each language has a random stream of its own, so that one more changes none of the others."""
    return {language: tell(said, streams[language]) for language, tell in TELL.items()}
