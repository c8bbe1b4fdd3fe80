"""Bytes on disks and between ranks: checkpoints, shards, embeddings; what a rank sends in a step."""

from collections.abc import Sequence
from pathlib import Path

from repro.errors import InputError
from repro.model_size import ModelSize
from repro.needs import for_run, parameters
from repro.plan.memory import moments
from repro.spec import RunSpec

CHECKPOINTS = 3
"""At a time on disk while a run trains: the two that are kept and the one being written (train/checkpoint.py)."""
PAIR_BYTES = 25_000
"""Of a pair in shards that are not there to be measured: what img2dataset leaves at 256 px (LAION-400M: 10 TB)."""
SHAPES_PAIR_BYTES = 6_144
"""Of the embedded world's, in their tars."""
COUNTING_BYTES = 2 * 8 * 65_536
"""All-reduced where negatives are chosen: two histograms of 16 bits (loss/negatives.py)."""


def checkpoint_bytes(spec: RunSpec, size: ModelSize) -> tuple[int, int]:
    """One to resume from (weights and moments), and the final weights."""
    size = for_run(spec, size)
    if spec.setup == "released":
        return 0, 0
    weights = 4 * parameters(spec, size).held
    return weights + moments(spec, size), weights


def shard_bytes(specs: Sequence[RunSpec]) -> tuple[int, bool]:
    """Of all data that the runs read, once each; whether any of it is assumed.

    Of shards that cannot be seen, as if each example were seen once, in the longest run.
    """
    total, assumed = 0, False
    for data in sorted({spec.data for spec in specs if spec.setup != "released"}):
        seen = max(spec.examples_seen for spec in specs if spec.data == data)
        found = _found_bytes(data)
        assumed |= found is None
        total += PAIR_BYTES * seen if found is None else found
    return total, assumed


def _found_bytes(data: str) -> int | None:
    from repro.data.shards import is_remote, list_shards  # numpy with it
    from repro.data.source import is_shapes, world_size

    if is_shapes(data):
        return SHAPES_PAIR_BYTES * world_size(data.rpartition(":seed=")[0] or data)
    if not data or any(is_remote(part) for part in data.split("::")):
        return None
    try:
        return sum(Path(shard).stat().st_size for shard in list_shards(data))
    except (InputError, OSError):
        return None


def embeddings_bytes(specs: Sequence[RunSpec], sizes: dict[str, ModelSize]) -> int:
    """Of images embedded once (siglit), in 16 bit, with their tokens; of the longest run on each data and model."""
    longest: dict[tuple[str, str], int] = {}
    for spec in specs:
        if spec.setup == "siglit":
            key = spec.data, spec.model
            longest[key] = max(longest.get(key, 0), spec.examples_seen)
    return sum(
        examples * (2 * sizes[model].embed_dim + 2 * sizes[model].context_length)
        for (_, model), examples in longest.items()
    )


def sent_bytes(spec: RunSpec, size: ModelSize, ranks: int) -> dict[str, float]:
    """By one rank in a step: `loss` and `gradients`. A ring and a gather send as much, in different messages.

    Every rank sees each other's texts once (twice for the softmax, the second time with their log-sum-exps) and sends
    their gradients home in fp32; gradients of weights are averaged by an all-reduce that sends nothing twice.
    """
    if ranks == 1 or spec.setup == "released":
        return {"loss": 0.0, "gradients": 0.0}
    size, local = for_run(spec, size), spec.batch_size // ranks
    texts = local * size.embed_dim * (2 if spec.precision == "bf16" else 4)
    a_block = texts + 4 * local * size.embed_dim
    if spec.loss == "softmax":
        a_block += texts + 2 * 8 * local
    loss = float((ranks - 1) * a_block)
    all_reduce = 2 * (ranks - 1) / ranks
    if spec.negatives != "all":
        loss += all_reduce * COUNTING_BYTES + (0 if spec.negatives == "random" else 2 * (ranks - 1) * texts)
    return {"loss": loss, "gradients": all_reduce * 4 * parameters(spec, size).learning}
