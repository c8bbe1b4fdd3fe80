"""What is corrupted, and how, follows from (seed, position): on any ranks and workers, and never in what is kept."""

import numpy as np
import pytest
import torch

from repro.config.errors import Interrupted
from repro.data.corruption import Corruption, RandomTexts
from repro.data.pairs import Pairs, SampleOrder, batches
from repro.data.shards import open_shards
from repro.runs.directory import RunDirectory
from tests.ranks import on_ranks
from tests.train.runs import StopAfter, assert_same_bits, trained, weights

BATCH, STEPS = 300, 2
"""More than one chunk a rank, also at one of two ranks."""
START, END = 8704, 8705
NO_TEXTS = RandomTexts(np.array([]), np.array([1]), np.array([0]))


def as_it_is(image):
    return image


def numbers(captions):
    """In tests of shards a caption is a number, and the number is its only token. [n, 1]"""
    return torch.tensor([[int(caption)] for caption in captions])


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    from repro.models import build

    folder = tmp_path_factory.mktemp("laptop")
    build.export("laptop", folder)
    return build.load(folder)


@pytest.fixture(scope="module")
def corrupt(towers):
    """corrupt("text", 0.5) → a Corruption of the laptop model's inputs."""
    texts = RandomTexts.of(towers.tokenize, towers.vocabulary_size)

    def make(kind: str, probability: float, seed: int = 0, batch_size: int = BATCH) -> Corruption:
        parts = kind.split("-")
        flags = {part: part in parts for part in ("image", "text", "batch")}
        return Corruption(**flags, probability=probability, seed=seed, batch_size=batch_size, random_texts=texts)

    return make


@pytest.fixture
def read(world, towers):
    """read(corruption) → every step's global batch, put together from the shares of the ranks."""
    files, indexes = open_shards([str(file) for file in sorted(world.folder.glob("train/*.tar"))])
    order = SampleOrder([len(index) for index in indexes], 0, 64)

    def read(corruption, ranks=1, workers=0, kept=None):
        pairs = Pairs(files, indexes, order, towers.resize, towers.tokenize, kept, corruption=corruption)
        options = {"first_step": 0, "steps": STEPS, "batch_size": BATCH, "ranks": ranks, "workers": workers}
        shares = [list(batches(pairs, rank=rank, **options)) for rank in range(ranks)]
        images = torch.stack([torch.cat([share[step].images for share in shares]) for step in range(STEPS)])
        return images, torch.stack([torch.cat([share[step].tokens for share in shares]) for step in range(STEPS)])

    return read


def changed(one, other):
    """[STEPS, BATCH]: where two inputs differ."""
    return (one != other).flatten(2).any(2)


@pytest.mark.parametrize("kind", ["image", "text", "batch", "image-text", "image-text-batch"])
def test_only_what_is_named_is_corrupted_and_about_as_often_as_asked(read, corrupt, kind):
    clean_images, clean_tokens = read(None)
    images, tokens = read(corrupt(kind, 0.4))
    noisy, other_text = changed(clean_images, images), changed(clean_tokens, tokens)
    assert noisy.float().mean() == pytest.approx(0.4 if "image" in kind else 0, abs=0.06)
    # Two captions of the world may be the same one, so that not every text that was exchanged differs.
    expected = {"text": 0.4, "batch": 0.4, "image-text": 0.4, "image-text-batch": 1 - 0.6 * 0.6}
    assert other_text.float().mean() == pytest.approx(expected.get(kind, 0), abs=0.06)
    if kind == "image-text":  # the two are drawn independently
        assert (noisy & other_text).float().mean() == pytest.approx(0.16, abs=0.05)


@pytest.mark.parametrize(("ranks", "workers"), [(2, 0), (1, 2), (4, 1)])
def test_the_same_is_corrupted_at_any_number_of_ranks_and_workers(read, corrupt, ranks, workers):
    corruption = corrupt("image-text-batch", 0.3)
    one, other = read(corruption), read(corruption, ranks, workers)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_another_seed_corrupts_others(read, corrupt):
    assert not torch.equal(read(corrupt("image", 0.3))[0], read(corrupt("image", 0.3, seed=1))[0])


def test_what_is_corrupted_at_a_small_probability_is_corrupted_at_a_larger_one(read, corrupt):
    clean, _ = read(None)
    few, many = (changed(clean, read(corrupt("image", p))[0]) for p in (0.1, 0.5))
    assert few.any() and not (few & ~many).any()


def test_noise_is_uniform(corrupt):
    noise = corrupt("image", 1.0).image_at(7, np.zeros((64, 64, 3), np.uint8))
    assert noise.dtype == np.uint8
    assert np.bincount(noise.ravel(), minlength=256).min() > 0
    assert noise.mean() == pytest.approx(127.5, abs=3)


def test_the_share_of_the_global_batch_that_was_asked_for_gets_each_others_texts(corrupt):
    corruption = corrupt("batch", 0.1, batch_size=50)
    for step in range(4):
        positions = range(50 * step, 50 * step + 50)
        texts = [corruption.text_position(position) for position in positions]
        assert sorted(texts) == list(positions)
        assert sum(text != position for text, position in zip(texts, positions, strict=True)) == 5
    all_of_it = corrupt("batch", 1.0, batch_size=50)
    assert all(all_of_it.text_position(position) != position for position in range(100))


def test_a_random_text_keeps_the_marks_and_is_of_any_length(corrupt):
    corruption = corrupt("text", 1.0)
    clean = np.array([START, *range(320, 328), END, *[0] * 6])
    texts = np.stack([corruption.tokens_at(position, clean) for position in range(2000)])
    assert texts.dtype == clean.dtype and texts.shape == (2000, 16)
    assert (texts[:, 0] == START).all() and ((texts == END).sum(1) == 1).all()
    ends = (texts == END).argmax(1)
    assert set(ends) == set(range(2, 16))
    for text, end in zip(texts, ends, strict=True):
        assert text[1:end].all() and not text[end + 1 :].any()
    assert len(np.unique(texts)) > 5000  # of 8,706


def test_a_tokenizer_whose_end_is_its_padding_keeps_it_in_the_last_place():
    def tokenize(texts):  # as SigLIP's: no start, then 1 for the end and for padding
        return torch.tensor([[*(7 for _ in text), *(1 for _ in range(8 - len(text)))] for text in texts])

    random_texts = RandomTexts.of(tokenize, 32)
    texts = np.stack([random_texts.draw(np.random.default_rng(seed)) for seed in range(300)])
    assert (texts[:, -1] == 1).all()
    assert set((texts == 1).sum(1)) == set(range(1, 8))


def test_only_clean_samples_are_kept(read, corrupt, world, towers):
    from repro.data.cache import open_kept

    files, _ = open_shards([str(file) for file in sorted(world.folder.glob("train/*.tar"))])
    kept = open_kept(files, 2048, "of the test of corruption", towers.image_size, towers.context_length)
    corruption, clean = corrupt("image-text-batch", 0.5), read(None)
    corrupted = read(corruption)
    for reader, expected in ((corruption, corrupted), (None, clean), (corruption, corrupted)):
        found = read(reader, kept=kept)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_bad_sample_is_counted_once_though_its_text_is_wanted_elsewhere(write_shard, numbered, own_cache):
    samples = numbered(range(40))
    samples[3]["png"] = b"no image"
    files, indexes = open_shards([str(write_shard("a.tar", samples))])
    order = SampleOrder([40], 0, 1)
    corruption = Corruption(False, False, True, 1.0, 0, 40, NO_TEXTS)
    pairs = Pairs(files, indexes, order, as_it_is, numbers, corruption=corruption)
    halves = [pairs[range(20)], pairs[range(20, 40)]]
    assert sum(half.bad.total() for half in halves) == 1
    images = torch.cat([half.images[:, 0, 0, 0] for half in halves]).tolist()
    texts_shown = torch.cat([half.tokens[:, 0] for half in halves]).tolist()
    assert sorted(images) == sorted(texts_shown)
    assert all(image != text for image, text in zip(images, texts_shown, strict=True) if images.count(image) == 1)


CORRUPTED = {"corruption": "image-text-batch", "corruption_probability": 0.25, "examples_seen": 320}


def train_on_rank(spec, path):
    return trained(spec, path)[1]


def test_a_corrupted_run_resumed_ends_with_the_same_bits_and_on_two_ranks_with_the_same_weights(make_spec, tmp_path):
    spec = make_spec(epsilon=1e-3, **CORRUPTED)
    undisturbed, _ = trained(spec, tmp_path / "a")
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "b", stop=StopAfter(2))
    resumed, _ = trained(spec, tmp_path / "b")
    assert_same_bits(undisturbed, resumed)
    on_ranks(2, train_on_rank, spec.model_copy(update={"micro_batch": 16}), tmp_path / "c")
    for name, value in weights(undisturbed).items():
        torch.testing.assert_close(value, weights(RunDirectory(tmp_path / "c"))[name], rtol=1e-5, atol=1e-5)


def test_a_text_from_elsewhere_in_the_batch_is_in_the_language_of_its_own_position(write_shard, picture, own_cache):
    samples = [
        {"png": picture(number), "json": b'{"captions": {"en": "%d", "de": "%d"}}' % (number, 100 + number)}
        for number in range(60)
    ]
    files, indexes = open_shards([str(write_shard("a.tar", samples))])
    corruption = Corruption(False, False, True, 0.5, 0, 60, NO_TEXTS)
    clean, corrupted = (
        Pairs(files, indexes, SampleOrder([60], 0, 1), as_it_is, numbers, languages=("en", "de"), corruption=each)
        for each in (None, corruption)
    )
    one, other = clean[range(60)].tokens, corrupted[range(60)].tokens
    assert one.max() >= 100 > one.min()
    assert sorted(one.flatten().tolist()) == sorted(other.flatten().tolist())
    assert (one != other).sum() == 30
