"""Captions by language: where they are found, which one a position shows, and what is said of data that lack one."""

import itertools
import json
from collections import Counter

import pytest
import torch

from repro.config.errors import InputError
from repro.data.cache import open_kept
from repro.data.languages import captions_in, check_languages, language_at, shares_of_languages
from repro.data.pairs import Pairs, SampleOrder, batches
from repro.data.shards import open_shards

pytestmark = pytest.mark.usefixtures("own_cache")

LANGUAGES = ("en", "de", "zh")
SAMPLES, BATCH, STEPS = 90, 40, 6


def in_letters(captions: list[str]) -> torch.Tensor:
    """In these tests a caption is such as "de 7", and its tokens are the codes of its letters. [n, 8]"""
    return torch.tensor([[ord(letter) for letter in caption.ljust(8)] for caption in captions])


def open_pairs(shards, languages=LANGUAGES, kept: bool = False, seed: int = 0) -> Pairs:
    files, indexes = open_shards([str(shard) for shard in shards])
    order = SampleOrder([len(index) for index in indexes], seed, shuffle_shards=3)
    keeper = open_kept(files, order.total, "a test", (4, 4), 8, languages) if kept else None
    return Pairs(files, indexes, order, lambda image: image, in_letters, keeper, languages)


@pytest.fixture
def shards(write_shard, picture) -> list:
    """Three shards with captions such as "de 7" of sample 7: the table alone in one, under "captions" in the others."""

    def sample(number: int) -> dict[str, bytes]:
        table = {language: f"{language} {number}" for language in (*LANGUAGES, "fr")}
        content = table if number < 30 else {"captions": table, "url": "a.org"}
        return {"png": picture(number), "txt": f"en {number}".encode(), "json": json.dumps(content).encode()}

    return [write_shard(f"{n}.tar", map(sample, range(30 * n, 30 * n + 30))) for n in range(3)]


def captions_of(batch) -> list[str]:
    """Each image must have the grey level of its caption's number."""
    found = ["".join(map(chr, row)).strip() for row in batch.tokens.tolist()]
    assert batch.images[:, 0, 0, 0].tolist() == [int(caption.split()[1]) for caption in found]
    return found


def all_captions(pairs, first_step: int = 0, ranks: int = 1, workers: int = 0) -> list[str]:
    shares = [
        [
            captions_of(batch)
            for batch in batches(
                pairs, first_step=first_step, steps=STEPS, batch_size=BATCH, rank=rank, ranks=ranks, workers=workers
            )
        ]
        for rank in range(ranks)
    ]
    return list(itertools.chain.from_iterable(itertools.chain.from_iterable(zip(*shares, strict=True))))


def test_both_forms_of_captions_by_language_are_read():
    table = {"en": "a circle", "pt-BR": "um círculo", "zh": " 圆形 "}
    expected = {"en": "a circle", "pt-BR": "um círculo", "zh": "圆形"}
    assert captions_in(json.dumps(table).encode()) == expected
    assert captions_in(json.dumps({"captions": table, "caption": "x", "width": 7}).encode()) == expected


@pytest.mark.parametrize(
    "content", [{"caption": "a cat", "url": "http://a.org", "key": "000"}, {"en": ""}, {"en": 7}, ["en"], "en"]
)
def test_other_json_has_no_captions_by_language(content):
    assert captions_in(json.dumps(content).encode()) == {}


def test_each_language_is_shown_equally_often_and_another_in_another_epoch():
    chosen = [language_at(3, position, 5) for position in range(20_000)]
    assert all(3800 < count < 4200 for count in Counter(chosen).values())
    epochs = zip(chosen[:10_000], chosen[10_000:], strict=True)
    assert 0.15 < sum(one == other for one, other in epochs) / 10_000 < 0.25
    assert [language_at(4, position, 5) for position in range(100)] != chosen[:100]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 0), (2, 1)])
def test_the_caption_of_a_position_is_the_same_at_any_number_of_ranks_and_workers(shards, ranks, workers):
    pairs = open_pairs(shards)
    expected = []
    for position in range(BATCH * STEPS):
        shard, sample = pairs.order.locate(position)
        expected.append(f"{LANGUAGES[language_at(0, position, 3)]} {30 * shard + sample}")
    assert all_captions(pairs, ranks=ranks, workers=workers) == expected


def test_a_run_that_resumes_shows_the_languages_it_would_have_shown(shards):
    assert all_captions(open_pairs(shards), first_step=3) == all_captions(open_pairs(shards))[3 * BATCH :]


def test_kept_samples_show_the_same_captions(shards):
    """Filled by a run, read by one with the same seed, and by one that asks for other languages of the samples."""
    decoded = all_captions(open_pairs(shards))
    for _ in ("filling", "reading"):
        assert all_captions(open_pairs(shards, kept=True)) == decoded
    assert all_captions(open_pairs(shards, kept=True, seed=1)) == all_captions(open_pairs(shards, seed=1))
    other_order = ("zh", "en", "de")
    assert all_captions(open_pairs(shards, other_order, kept=True)) == all_captions(open_pairs(shards, other_order))
    assert all_captions(open_pairs(shards, (), kept=True)) == all_captions(open_pairs(shards, ()))


def test_a_kept_sample_keeps_the_languages_it_has_when_another_is_added(shards):
    pairs = open_pairs(shards, kept=True)
    all_captions(pairs)
    known = [sum(pairs.kept.read(number, language) is not None for number in range(SAMPLES)) for language in range(3)]
    all_captions(open_pairs(shards, kept=True, seed=1))
    more = [sum(pairs.kept.read(number, language) is not None for number in range(SAMPLES)) for language in range(3)]
    assert all(now > before for now, before in zip(more, known, strict=True))


def test_a_sample_without_the_language_shows_the_next_that_it_has(write_shard, picture):
    tables = [{"en": "en 0"}, {"de": "de 1", "zh": "zh 1"}]
    samples = [{"png": picture(number), "json": json.dumps(table).encode()} for number, table in enumerate(tables)]
    shown = set(all_captions(open_pairs([write_shard("a.tar", samples)])))
    assert shown == {"en 0", "de 1", "zh 1"}


def test_a_sample_with_none_of_the_languages_is_bad_and_counted(write_shard, picture):
    def sample(number: int) -> dict[str, bytes]:
        files = {"png": picture(number), "txt": b"a caption", "json": json.dumps({"en": f"en {number}"}).encode()}
        if number == 3:
            files["json"] = b'{"fr": "fr 3"}'
        if number == 5:
            del files["json"]
        if number == 7:
            files["json"] = b"{"
        return files

    pairs = open_pairs([write_shard("a.tar", map(sample, range(20)))], ("en", "de"))
    batch = pairs[range(20)]
    assert not {"fr 3", "en 3", "en 5", "en 7"} & set(captions_of(batch))
    assert batch.bad["a.tar", "no caption in en, de"] >= 2
    assert batch.bad["a.tar", "caption cannot be read"] >= 1


def test_what_the_data_have_is_found_before_a_run(shards, write_shard, picture):
    files, indexes = open_shards([str(shard) for shard in shards])
    shares = shares_of_languages(files, indexes)
    assert shares == {"en": 1.0, "de": 1.0, "zh": 1.0, "fr": 1.0}
    assert check_languages("d/*.tar", ["de", "fr"], shares) == []
    with pytest.raises(InputError, match=r"d/\*.tar have no caption in 'dee'; the nearest is 'de' \(they have de, en"):
        check_languages("d/*.tar", ["de", "dee"], shares)
    plain = write_shard("plain.tar", [{"png": picture(1), "txt": b"a circle"}])
    shares = shares_of_languages(*open_shards([str(plain)]))
    with pytest.raises(
        InputError, match=r"languages en: the data plain\.tar have no captions by language; expected such"
    ):
        check_languages("plain.tar", ["en"], shares)


def test_a_language_of_some_samples_is_a_note():
    (note,) = check_languages("d", ["en", "sw"], {"en": 1.0, "sw": 0.031})
    assert note == "captions in 'sw': 3.1% of the samples of d have one; the others show another of the languages"


def test_the_emoji_set_has_ten_languages(emoji):
    files, indexes = open_shards(sorted(map(str, (emoji / "train").glob("*.tar"))))
    shares = shares_of_languages(files, indexes)
    assert sorted(shares) == ["de", "en", "es", "fr", "it", "ja", "ko", "pt", "ru", "zh"]
    assert set(shares.values()) == {1.0}
