"""What was decoded once is read back the same, and a damaged record is decoded again."""

import numpy as np
import pytest
import torch

from repro.data.cache import KeptSamples, open_kept
from repro.data.pairs import Pairs, SampleOrder
from repro.data.shards import list_shards, open_shards

SHAPE, LENGTH = (4, 5, 3), 6
IMAGE = np.arange(60, dtype=np.uint8).reshape(SHAPE)
TOKENS = np.arange(LENGTH) + 40_000


@pytest.fixture
def kept(tmp_path):
    return KeptSamples(tmp_path / "decoded" / "x", SHAPE, LENGTH)


def test_a_sample_is_read_back_as_it_was_written(kept):
    kept.write(3, IMAGE, TOKENS)
    image, tokens = kept.read(3)
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(tokens, TOKENS)


def test_what_was_not_written_is_none_in_a_hole_and_past_the_end(kept):
    kept.write(3, IMAGE, TOKENS)
    assert kept.read(1) is None
    assert kept.read(9) is None


def test_a_black_image_without_a_caption_is_not_taken_for_a_hole(kept):
    kept.write(0, np.zeros(SHAPE, np.uint8), np.zeros(LENGTH, np.int64))
    assert kept.read(0) is not None


def test_a_damaged_record_is_none(kept, tmp_path):
    kept.write(0, IMAGE, TOKENS)
    file = tmp_path / "decoded" / "x"
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    assert kept.read(0) is None


def test_batches_are_the_same_decoded_or_kept(world, tmp_path):
    from repro.models import build

    build.export("laptop", tmp_path)
    towers = build.load(tmp_path)
    files, indexes = open_shards(list_shards(world.train_pattern))
    order = SampleOrder([len(index) for index in indexes], 0, 64)
    kept = open_kept(files, 2048, "a test", towers.image_size, towers.context_length)
    decoded = Pairs(files, indexes, order, towers.resize, towers.tokenize)[range(40)]
    for _ in ("filling", "reading"):
        batch = Pairs(files, indexes, order, towers.resize, towers.tokenize, kept)[range(40)]
        assert torch.equal(batch.images, decoded.images)
        assert torch.equal(batch.tokens, decoded.tokens)


def test_a_large_data_set_is_not_kept(tmp_path):
    assert open_kept([], 10_000_000, "x", (224, 224), 16) is None
