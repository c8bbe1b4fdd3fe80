"""Counts are read as people write them, and written so that they read back the same."""

import pytest

from repro.config.errors import InputError
from repro.config.units import (
    format_batch_size,
    format_bytes,
    format_examples,
    format_seconds,
    parse_batch_size,
    parse_examples,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("512", 512), ("1k", 1024), ("32k", 32_768), ("98k", 98_304), ("307k", 307_200), ("1M", 1_048_576), (64, 64)],
)
def test_a_k_in_a_batch_size_is_1024_and_the_papers_names_are_the_papers_numbers(text, count):
    assert parse_batch_size(text) == count


@pytest.mark.parametrize(("text", "count"), [("65k", 65_000), ("3B", 3 * 10**9), ("65_536", 65_536), ("0.5M", 500_000)])
def test_a_k_of_examples_is_decimal(text, count):
    assert parse_examples(text) == count


@pytest.mark.parametrize("count", [1, 32, 512, 1024, 1536, 32_768, 98_304, 245_760, 307_200, 1_048_576])
def test_a_batch_size_reads_back_as_it_was_written(count):
    assert parse_batch_size(format_batch_size(count)) == count


@pytest.mark.parametrize("text", ["many", "1.5", "k", "-4", "3T", ""])
def test_what_is_no_count_is_an_error_that_says_what_is(text):
    with pytest.raises(InputError, match=r"32k|whole number"):
        parse_batch_size(text)


def test_numbers_for_reading():
    assert format_examples(65_536) == "65.5k"
    assert format_examples(3e9) == "3B"
    assert format_bytes(1_572_864) == "1.5 MiB"


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (120, "2 min"), (5400, "1.5 h"), (2**22, "1,165.1 h")])
def test_lengths_of_time_are_written_for_reading(seconds, text):
    assert format_seconds(seconds) == text
