"""The memory of one rank at its peak, by what holds it, and the micro-batch that fits."""

from repro.config.layout import Layout
from repro.config.spec import RunSpec
from repro.estimate.machine import Machine
from repro.estimate.needs import (
    BYTES_AN_EMBEDDING,
    MOMENT_BYTES,
    example_bytes,
    for_run,
    gathered_bytes,
    kept_bytes,
    memory_needed,
    parameters,
    tile_bytes,
)
from repro.models.sizes import ModelSize

PARTS = ("process", "weights", "optimizer", "activations", "copies", "embeddings", "batch", "tile")


def memory_parts(spec: RunSpec, layout: Layout, size: ModelSize, machine: Machine) -> dict[str, float]:
    """Bytes by part; their sum is the peak.

    weights: with gradients. copies: of what learns, for a log line's norm of the update (two) and on its way to other
    ranks (one); on a GPU only what exceeds the activations, which are gone by then, and on a CPU malloc keeps both.
    activations: of a micro-batch of both towers on CPUs, where what one tower frees the other does not find again;
    in bf16 half, and a copy of the weights in bf16 beside.
    """
    size = for_run(spec, size)
    held, half = parameters(spec, size), spec.precision == "bf16"
    state = {"weights": 4 * held.held + 4 * held.learning, "optimizer": moments(spec, size)}
    if not spec.trains:
        return {"process": machine.process_bytes} | {name: machine.state_factor * state[name] for name in state}
    local, ranks = spec.batch_size // layout.ranks, layout.ranks
    micro_batch = min(local, spec.micro_batch)
    kept = kept_bytes(spec, size)
    at_once = sum(kept) if local <= spec.micro_batch or not machine.on_gpu else max(kept)
    activations = micro_batch * at_once / (2 if half else 1) + (2 * held.held if half else 0)
    activations *= machine.activation_factor
    copies = machine.state_factor * max(8, 4 * (ranks > 1)) * held.learning
    if machine.on_gpu:
        copies = max(0.0, copies - activations)
    return {
        "process": machine.process_bytes,
        "weights": machine.state_factor * state["weights"],
        "optimizer": machine.state_factor * state["optimizer"],
        "activations": activations,
        "copies": copies,
        "embeddings": BYTES_AN_EMBEDDING * size.embed_dim * local + travelling_bytes(spec, size, ranks),
        "batch": 0.0 if machine.on_gpu else machine.input_factor * local * example_bytes(spec, size),
        "tile": float(tile_bytes(local, machine.on_gpu)),
    }


def moments(spec: RunSpec, size: ModelSize) -> int:
    """Bytes of the optimizer's state."""
    return MOMENT_BYTES[spec.optimizer] * parameters(spec, size).learning


def travelling_bytes(spec: RunSpec, size: ModelSize, ranks: int) -> int:
    """Of blocks of texts on their way: two of them and two of gradients in a ring, all of them in a gather."""
    if ranks == 1:
        return 0
    if spec.exchange == "gather":
        return gathered_bytes(spec, size)
    both_ways = 2 if spec.exchange == "ring-bidirectional" else 1
    return both_ways * 2 * (spec.batch_size // ranks) * size.embed_dim * (6 if spec.precision == "bf16" else 8)


def peak_bytes(spec: RunSpec, layout: Layout, size: ModelSize, machine: Machine) -> float:
    """Never less than the least that the run can need (needs.py)."""
    predicted = sum(memory_parts(spec, layout, size, machine).values())
    return max(predicted, memory_needed(spec, layout, size, machine.on_gpu))


def largest_micro_batch(spec: RunSpec, layout: Layout, size: ModelSize, machine: Machine, there: float) -> int | None:
    """The largest that divides a rank's share and fits into so many bytes; None where none does."""
    local = spec.batch_size // layout.ranks
    divisors = {d for root in range(1, int(local**0.5) + 1) if local % root == 0 for d in (root, local // root)}
    for micro_batch in sorted(divisors, reverse=True):
        tried = spec.model_copy(update={"micro_batch": micro_batch})
        if peak_bytes(tried, layout, size, machine) <= there:
            return micro_batch
    return None
