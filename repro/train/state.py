"""A nested state of dicts, lists and tensors: its size, its copy in host memory, the same on all ranks.

And torch's random state, which is part of it, and its determinism (docs/architecture.md, law 1). Strict, torch refuses
operations that add in no fixed order, and the backward passes of attention add in one. Told only to warn, flash
attention and the memory-efficient kernel keep their faster, unordered sums.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from repro.train import distributed


def map_tensors(function: Callable[[torch.Tensor], Any], state: Any) -> Any:
    """The same nesting, with `function` of each tensor in its place."""
    if isinstance(state, torch.Tensor):
        return function(state)
    if isinstance(state, dict):
        return {key: map_tensors(function, value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map_tensors(function, value) for value in state)
    return state


def size_bytes(state: Any) -> int:
    """Bytes of all tensors."""
    sizes: list[int] = []
    map_tensors(lambda tensor: sizes.append(tensor.nbytes), state)
    return sum(sizes)


def to_host(state: Any) -> Any:
    """A copy in host memory that training does not touch."""
    return map_tensors(lambda tensor: tensor.detach().to("cpu", copy=True), state)


def from_first_rank(state: Any, device: torch.device) -> Any:
    """Rank 0's state on every rank, tensors on `device`, one message a tensor; what other ranks give is not read."""
    if distributed.ranks() == 1:
        return state
    first = distributed.rank() == 0
    outline = distributed.from_first_rank(map_tensors(lambda tensor: tensor.to("meta"), state) if first else None)
    if not first:
        state = map_tensors(lambda tensor: torch.empty_like(tensor, device=device), outline)

    def send_or_receive(tensor: torch.Tensor) -> torch.Tensor:
        whole = tensor.to(device).contiguous()
        dist.broadcast(whole, src=0)
        return whole

    return map_tensors(send_or_receive, state)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's generators that a rank can draw from."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


CUBLAS_WORKSPACE = ":4096:8"
"""Two streams' products share no workspace: cuBLAS's condition for the same bits. Read when CUDA starts."""
NO_DETERMINISTIC = "does not have a deterministic implementation"
"""torch's words for an operation that strict mode refuses."""


def set_deterministic(strict: bool) -> None:
    """For this process, from here on. strict: RunSpec.deterministic."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs, and costs a pass over every new tensor


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """While inside, operations that have no fixed order are used with a warning: evaluation takes anybody's model."""
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(strict, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
