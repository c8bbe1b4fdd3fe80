"""From positions to batches: the order of the samples, who reads which, and what takes the place of a bad one."""

import itertools
import multiprocessing
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.config.errors import BadData
from repro.data.pairs import CHUNK, MOST_SUBSTITUTES, Pairs, SampleOrder, batches
from repro.data.shards import open_shards

pytestmark = pytest.mark.usefixtures("own_cache")

SIZES = (150, 40, 0, 130, 90, 60)
TOTAL = sum(SIZES)
BATCH, STEPS = 600, 3
"""Steps that cross the ends of epochs; a rank's share of a batch, at one or two ranks, is more than one chunk."""


def caption_numbers(captions: list[str]) -> torch.Tensor:
    """In these tests a caption is a number, and the number is its only token. [n, 1]"""
    return torch.tensor([[int(caption)] for caption in captions])


def open_pairs(shards, seed: int = 0, shuffle_shards: int = 3) -> Pairs:
    files, indexes = open_shards([str(shard) for shard in shards])
    order = SampleOrder([len(index) for index in indexes], seed, shuffle_shards)
    return Pairs(files, indexes, order, resize=lambda image: image, tokenize=caption_numbers)


@pytest.fixture
def shards(write_shard, numbered) -> list:
    """Shards of different sizes, one of them empty; captions count from 0 through all of them."""
    starts = itertools.accumulate(SIZES, initial=0)
    return [
        write_shard(f"{n}.tar", numbered(range(start, start + size)))
        for n, (start, size) in enumerate(zip(starts, SIZES, strict=False))
    ]


def numbers_of(batch) -> list[int]:
    """The batch's captions; each image must have the grey level of its caption."""
    numbers = batch.tokens[:, 0].tolist()
    assert batch.images.dtype == torch.uint8 and batch.images.shape[1:] == (3, 4, 4)
    assert batch.images[:, 0, 0, 0].tolist() == [number % 256 for number in numbers]
    return numbers


def joined(lists) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def global_batches(pairs, ranks: int = 1, workers: int = 0, first_step: int = 0) -> list[list[int]]:
    """The captions of every step's global batch, put together from the ranks' shares."""
    shares = [
        [
            numbers_of(batch)
            for batch in batches(
                pairs,
                first_step=first_step,
                steps=STEPS,
                batch_size=BATCH,
                rank=rank,
                ranks=ranks,
                workers=workers,
            )
        ]
        for rank in range(ranks)
    ]
    return [joined(of_a_step) for of_a_step in zip(*shares, strict=True)]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_nth_batch_is_the_same_at_any_number_of_ranks_and_workers(shards, ranks, workers):
    pairs = open_pairs(shards)
    in_order = [pairs.order.locate(position) for position in range(BATCH * STEPS)]
    starts = [0, *itertools.accumulate(SIZES)]
    expected = [starts[shard] + sample for shard, sample in in_order]
    assert BATCH // ranks > CHUNK
    assert joined(global_batches(pairs, ranks, workers)) == expected


@pytest.mark.parametrize("first_step", [1, 2])
def test_a_run_that_resumes_gets_the_batches_it_would_have_got(shards, first_step):
    assert global_batches(open_pairs(shards), first_step=first_step) == global_batches(open_pairs(shards))[first_step:]


def test_workers_start_on_systems_that_spawn_processes(shards, monkeypatch):
    monkeypatch.setattr(
        multiprocessing.context._default_context, "_actual_context", multiprocessing.get_context("spawn")
    )
    assert global_batches(open_pairs(shards), workers=1) == global_batches(open_pairs(shards))


def test_every_epoch_holds_every_sample_once_in_another_order(shards):
    order = joined(global_batches(open_pairs(shards)))
    epochs = [order[first : first + TOTAL] for first in range(0, BATCH * STEPS, TOTAL)]
    for epoch in epochs[:3]:
        assert sorted(epoch) == list(range(TOTAL))
    assert epochs[0] != epochs[1] != epochs[2]


def test_another_seed_gives_another_order(shards):
    assert global_batches(open_pairs(shards, seed=0)) != global_batches(open_pairs(shards, seed=1))


any_shards = given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=9).filter(any),
    seed=st.integers(0, 2**31 - 1),
    shuffle_shards=st.integers(1, 12),
    epoch=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@any_shards
def test_an_epoch_is_a_permutation_whatever_the_shards_and_windows(sizes, seed, shuffle_shards, epoch):
    order = SampleOrder(sizes, seed, shuffle_shards)
    places = [order.locate(position) for position in range(epoch * order.total, (epoch + 1) * order.total)]
    assert sorted(places) == [(shard, sample) for shard, size in enumerate(sizes) for sample in range(size)]


@settings(max_examples=60, deadline=None)
@any_shards
def test_no_more_shards_than_a_window_has_are_half_read_at_a_time(sizes, seed, shuffle_shards, epoch):
    order = SampleOrder(sizes, seed, shuffle_shards)
    left, half_read = list(sizes), set()
    for position in range(epoch * order.total, (epoch + 1) * order.total):
        shard, _ = order.locate(position)
        left[shard] -= 1
        half_read = {number for number in half_read | {shard} if left[number]}
        assert len(half_read) <= shuffle_shards


@settings(max_examples=20, deadline=None)
@given(positions=st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_a_position_is_found_without_those_before_it(positions):
    fresh = [SampleOrder(list(SIZES), 7, 2).locate(position) for position in positions]
    order = SampleOrder(list(SIZES), 7, 2)
    assert [order.locate(position) for position in positions] == fresh


BAD = {
    "truncated image": (
        "image cannot be decoded (OSError)",
        lambda good: {"png": good["png"][:50], "txt": good["txt"]},
    ),
    "no image": (
        "image cannot be decoded (UnidentifiedImageError)",
        lambda good: {"png": b"<html>", "txt": good["txt"]},
    ),
    "empty caption": ("empty caption", lambda good: {"png": good["png"], "txt": b" \n"}),
    "not UTF-8": ("caption cannot be read", lambda good: {"png": good["png"], "txt": b"\xff\xfe"}),
    "invalid JSON": ("caption cannot be read", lambda good: {"png": good["png"], "json": b'{"caption": '}),
    "JSON that is a list": ("caption cannot be read", lambda good: {"png": good["png"], "json": b'["7"]'}),
    "JSON without a caption": ("empty caption", lambda good: {"png": good["png"], "json": b'{"url": "a.org"}'}),
    "caption that is a number": ("empty caption", lambda good: {"png": good["png"], "json": b'{"caption": 7}'}),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_sample_gives_its_place_to_the_next_epochs_and_is_counted(write_shard, numbered, kind):
    reason, corrupt = BAD[kind]
    samples = numbered(range(20))
    samples[7] = corrupt(samples[7])
    pairs = open_pairs([write_shard("a.tar", samples[:10]), write_shard("b.tar", samples[10:])])
    place = next(position for position in range(20) if pairs.order.locate(position) == (0, 7))
    batch = pairs[range(20)]
    expected = [10 * shard + sample for shard, sample in map(pairs.order.locate, range(20))]
    shard, sample = pairs.order.locate(place + 20)
    expected[place] = 10 * shard + sample
    assert numbers_of(batch) == expected
    assert batch.bad == {("a.tar", reason): 1}


def test_bad_samples_are_replaced_alike_at_any_number_of_ranks_and_workers(write_shard, numbered):
    samples = numbered(range(120))
    for number in range(0, 120, 3):
        samples[number]["png"] = b"no image"
    pairs = open_pairs([write_shard(f"{n}.tar", samples[n::4]) for n in range(4)])
    expected = global_batches(pairs)
    assert all(number % 3 for batch in expected for number in batch)
    for ranks, workers in [(1, 2), (2, 1)]:
        assert global_batches(pairs, ranks, workers) == expected


def test_counts_of_bad_samples_come_with_the_batch_that_met_them(write_shard, numbered):
    samples = numbered(range(30))
    samples[4]["txt"] = samples[9]["txt"] = b""
    samples[20]["png"] = b""
    pairs = open_pairs([write_shard("a.tar", samples[:15]), write_shard("b.tar", samples[15:])])
    for workers in (0, 1):
        one_epoch = batches(pairs, first_step=0, steps=3, batch_size=10, rank=0, ranks=1, workers=workers)
        counted = sum((batch.bad for batch in one_epoch), Counter())
        assert counted["a.tar", "empty caption"] >= 2
        assert counted["b.tar", "image cannot be decoded (UnidentifiedImageError)"] >= 1


def test_a_shard_cut_after_it_was_scanned_gives_bad_samples(write_shard, numbered):
    files = [write_shard("a.tar", numbered(range(10))), write_shard("b.tar", numbered(range(10, 20)))]
    pairs = open_pairs(files)
    os.truncate(files[0], 5 * 2048)
    batch = pairs[range(20)]
    assert batch.bad["a.tar", "cut off"] >= 5
    assert not {5, 6, 7, 8, 9} & set(numbers_of(batch))


@pytest.mark.parametrize("workers", [0, 1])
def test_data_without_a_usable_sample_raise_bad_data_with_counts(write_shard, picture, workers):
    pairs = open_pairs([write_shard("a.tar", [{"png": picture(1), "txt": b""}] * 5)])
    with pytest.raises(BadData) as error:
        next(batches(pairs, first_step=0, steps=1, batch_size=4, rank=0, ranks=1, workers=workers))
    assert str(error.value) == f"{MOST_SUBSTITUTES} bad samples in a row, most in a.tar: empty caption"
    assert error.value.counts == {("a.tar", "empty caption"): MOST_SUBSTITUTES}


def test_threads_may_read_the_same_shards(shards):
    pairs = open_pairs(shards)
    places = [(shard, sample) for shard, size in enumerate(SIZES) for sample in range(0, size, 10)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: int(pairs.read(*place)[1]), places))
    starts = [0, *itertools.accumulate(SIZES)]
    assert found == [starts[shard] + sample for shard, sample in places]
