"""The same bits each time: what torch has to be told for it, on GPUs above all (docs/architecture.md, law 1).

Strict, torch refuses operations that add in no fixed order, and the backward passes of attention add in one. Told
only to warn, flash attention and the memory-efficient kernel keep their faster, unordered sums.
"""

import contextlib
import os
from collections.abc import Iterator

import torch

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
