"""Captions in several languages: where a sample's .json holds them, and which one a position of training shows.

Two forms are read: {"captions": {"en": "a circle", "de": "ein Kreis"}, …}, and the table alone, {"en": …, "de": …}.
The language of a position is drawn from (seed, position), each equally often, so that another epoch may show another
language, whoever reads the sample. A sample that lacks it shows the next of the wanted languages that it has: real data
are patchy, and the image is as good; a sample with none of them is bad.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro.config.errors import InputError, nearest
from repro.data.shards import ShardIndex, evenly, read_range

LOOKED_AT = 512
"""Samples of a data set, evenly spread, that are read before a run to see which languages it has."""
CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,8})*")
NO_LANGUAGES = {"url", "key", "uid"}
"""Keys that img2dataset and others write beside a caption, and that look like language codes."""


def captions_in(content: bytes) -> dict[str, str]:
    """{language: caption} of a sample's .json; {} where it has none. Raises ValueError for what is no JSON."""
    values = json.loads(content)
    if not isinstance(values, dict):
        return {}
    table = values["captions"] if isinstance(values.get("captions"), dict) else values
    return {
        language: text.strip()
        for language, text in table.items()
        if isinstance(text, str) and text.strip() and CODE.fullmatch(language) and language not in NO_LANGUAGES
    }


def language_at(seed: int, position: int, languages: int) -> int:
    """Which of so many languages a position shows. Independent of the order of samples, which is of the seed too."""
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8, person=b"language").digest()
    return int.from_bytes(digest, "little") % languages


def caption_in(captions: dict[str, str], languages: Sequence[str], wanted: int) -> str | None:
    """In the wanted one of the languages, or the next that there is; None where there is none."""
    in_turn = (*languages[wanted:], *languages[:wanted])
    return next((captions[language] for language in in_turn if language in captions), None)


def check_languages(data: str, languages: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """Sentences on languages that only some samples have; shares: language → share of the samples that have it.

    Raises InputError for a language that none has.
    """
    for language in languages:
        if not shares:
            raise InputError(
                f"languages {language}: the data {data} have no captions by language; expected such as "
                '{"en": "…", "de": "…"} in each sample\'s .json, or data: shapes-multilingual'
            )
        if language not in shares:
            near = nearest(language, shares)
            has = "" if "known" in near else f" (they have {', '.join(sorted(shares))})"
            raise InputError(f"languages: the data {data} have no caption in '{language}'{near}{has}")
    return [
        f"captions in '{language}': {shares[language]:.1%} of the samples of {data} have one; "
        "the others show another of the languages"
        for language in languages
        if shares[language] < 1
    ]


def shares_of_languages(files: list[Path], indexes: list[ShardIndex]) -> dict[str, float]:
    """Language → share of the samples looked at that have a caption in it, the most frequent first."""
    places, found = evenly([len(index) for index in indexes], LOOKED_AT), Counter()
    for shard, sample in places:
        with contextlib.suppress(ValueError):
            found.update(captions_in(read_range(files[shard], indexes[shard].json[sample]) or b"{}").keys())
    return {language: count / len(places) for language, count in found.most_common()}
