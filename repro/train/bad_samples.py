"""Samples that could not be used: how many of which shard and why, in a sentence and in the run directory."""

from collections import Counter

from repro.config.files import full_disk_named, write_json
from repro.runs.directory import RunDirectory

FILE_NAME = "bad-samples.json"


def describe_bad(bad: Counter, count: int, of: int, allowed: float) -> str:
    worst = "; ".join(f"{shard}: {reason} ({n})" for (shard, reason), n in bad.most_common(5))
    return f"{count:,} of {of:,} samples are bad, more than the allowed {allowed:.1%} (max_bad_share): {worst}"


def write_bad(directory: RunDirectory, bad: Counter) -> None:
    """bad-samples.json: {shard: {reason: count}}, both sorted; no file where there is none."""
    if not bad:
        return
    by_shard: dict[str, dict[str, int]] = {}
    for (shard, reason), count in sorted(bad.items()):
        by_shard.setdefault(shard, {})[reason] = count
    file = directory.path / FILE_NAME
    with full_disk_named(file):
        write_json(file, by_shard)
