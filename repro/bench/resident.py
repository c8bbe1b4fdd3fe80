"""How much more memory a piece of work holds at its peak than was held before it.

On CPUs: the growth of the resident set. What earlier work freed must not hide growth, so malloc gives its free pages
back to the system first; and the kernel's own peak is reset, so that no moment is missed between two samples.
On cuda: torch's allocator knows.
"""

import contextlib
import ctypes
import gc
import resource
from collections.abc import Callable

import torch


def resident_bytes(pid: int | str = "self") -> int:
    """What a process holds in memory at this moment. Raises OSError where it has ended."""
    return _status("VmRSS", pid)


def peak_growth_bytes(work: Callable[[], object], device: str) -> int:
    """The most memory held during `work()`, less what was held right before it.

    Where the kernel does not let a process reset its peak, this is the growth of the peak since the process began,
    which is too little when it held more before than at the start of `work`.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    give_back_freed_memory()
    reset = _reset_peak()
    before = resident_bytes()
    work()
    peak = _status("VmHWM") if reset else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(0, peak - before)


def give_back_freed_memory() -> None:
    """glibc keeps what is freed for later; other C libraries have no such call and are left as they are."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _status(field: str, pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/status") as lines:
        for line in lines:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")  # a zombie has no memory to tell of
