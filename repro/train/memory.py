"""Running out of memory in a training step, by its name and with the sizes that led to it."""

import contextlib
import re
import traceback
from collections.abc import Iterator

import torch

from repro.config.errors import OutOfMemory
from repro.config.units import format_batch_size, format_bytes

SIGNS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
ONEDNN = "could not create a primitive"
"""All that oneDNN says where there is no memory for its code. With more words it is another error."""


@contextlib.contextmanager
def out_of_memory_named(rank: int, batch_size: int, local_batch: int, micro_batch: int) -> Iterator[None]:
    """The body is a training step. Raises OutOfMemory where it needs more memory than this rank has."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the step's tensors, which a smaller try needs back
        raise OutOfMemory(
            f"out of memory on rank {rank} at batch size {format_batch_size(batch_size)}, "
            f"local batch {local_batch:,}, micro-batch {micro_batch:,}{_tried(str(error))}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Said by torch, Python or numpy in their errors' type, by others in words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return str(error) == ONEDNN or any(sign in str(error) for sign in SIGNS)


def _tried(message: str) -> str:
    """': tried to allocate 2.0 GiB', where the message says how much."""
    if match := re.search(r"tried to allocate (\d+) bytes", message):
        return f": tried to allocate {format_bytes(int(match[1]))}"
    if match := re.search(r"(?:Tried to|Unable to) allocate ([\d.]+) (\wiB|bytes)", message):
        return f": tried to allocate {float(match[1]):g} {match[2]}"
    return ""
