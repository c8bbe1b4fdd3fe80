"""Bytes on disks and between ranks: checkpoints, shards, embeddings; what a rank sends in a step."""

from collections.abc import Sequence
from pathlib import Path

from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.estimate.memory import moments
from repro.estimate.needs import for_run, parameters
from repro.loss.registry import LOSSES
from repro.models.sizes import ModelSize

CHECKPOINTS = 3
"""At a time on disk while a run trains: the two that are kept and the one being written (train/checkpoint.py)."""
PAIR_BYTES = 25_000
"""Of a pair in shards that are not there to be measured: what img2dataset leaves at 256 px (LAION-400M: 10 TB)."""
SHAPES_PAIR_BYTES = 6_144
"""Of the embedded world's, in their tars."""
COUNTING_BYTES = 2 * 8 * 65_536
"""All-reduced where negatives are chosen: two histograms of 16 bits (loss/negatives.py)."""


def checkpoint_bytes(spec: RunSpec, size: ModelSize) -> tuple[int, int]:
    """One to resume from (weights in training, and moments), and the final weights: a whole model, as open_clip has it,
    with a frozen tower, and the token table that a bottleneck's factors make."""
    if not spec.trains:
        return 0, 0
    in_training = for_run(spec, size)
    return 4 * parameters(spec, in_training).held + moments(spec, in_training), 4 * size.parameters


def shard_bytes(specs: Sequence[RunSpec]) -> tuple[int, bool]:
    """Of all data that the runs read, once each; whether any of it is assumed.

    Of shards that cannot be seen, as if each example were seen once, in the longest run.
    """
    total, assumed = 0, False
    for data in sorted({spec.data for spec in specs if spec.trains}):
        seen = max(spec.examples_seen for spec in specs if spec.data == data)
        found = _found_bytes(data)
        assumed |= found is None
        total += PAIR_BYTES * seen if found is None else found
    return total, assumed


def _found_bytes(data: str) -> int | None:
    from repro.data.shards import is_remote, list_shards  # numpy with it

    if (pairs := pairs_in(data)) is not None:
        return SHAPES_PAIR_BYTES * pairs
    if not data or any(is_remote(part) for part in data.split("::")):
        return None
    try:
        return sum(Path(shard).stat().st_size for shard in list_shards(data))
    except (InputError, OSError):
        return None


def pairs_in(data: str) -> int | None:
    """Of the embedded world; None for shards, which would have to be read to be counted."""
    from repro.world.source import is_shapes, world_size

    return world_size(data) if is_shapes(data) else None


def images_to_embed(specs: Sequence[RunSpec]) -> dict[tuple[str, str], int]:
    """(data, model) of siglit runs → images to embed once: all of the data, as far as the longest run sees them."""
    longest: dict[tuple[str, str], int] = {}
    for spec in specs:
        if spec.reads_embeddings:
            key, pairs = (spec.data, spec.model), pairs_in(spec.data)
            seen = spec.examples_seen if pairs is None else min(pairs, spec.examples_seen)
            longest[key] = max(longest.get(key, 0), seen)
    return longest


def embeddings_bytes(images: int, size: ModelSize) -> int:
    """Of so many images embedded once, in 16 bit, with their texts' tokens in 32 (data/embeddings.py)."""
    return images * (2 * size.embed_dim + 4 * size.context_length)


def sent_bytes(spec: RunSpec, size: ModelSize, ranks: int) -> dict[str, float]:
    """By one rank in a step: `loss` and `gradients`. A ring and a gather send as much, in different messages.

    Every rank sees each other's texts once (twice for the softmax, the second time with their log-sum-exps) and sends
    their gradients home in fp32; gradients of weights are averaged by an all-reduce that sends nothing twice.
    """
    if ranks == 1 or not spec.trains:
        return {"loss": 0.0, "gradients": 0.0}
    size, local = for_run(spec, size), spec.batch_size // ranks
    texts = local * size.embed_dim * (2 if spec.precision == "bf16" else 4)
    a_block = texts + 4 * local * size.embed_dim
    a_block += (LOSSES[spec.loss].passes - 1) * (texts + 2 * 8 * local)
    loss = float((ranks - 1) * a_block)
    all_reduce = 2 * (ranks - 1) / ranks
    if spec.negatives != "all":
        loss += all_reduce * COUNTING_BYTES + (0 if spec.negatives == "random" else 2 * (ranks - 1) * texts)
    return {"loss": loss, "gradients": all_reduce * 4 * parameters(spec, size).learning}
