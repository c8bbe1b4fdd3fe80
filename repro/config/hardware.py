"""The machine's processor, cores and GPUs, found without torch; results are recorded under these names."""

import os
import platform
from pathlib import Path

DEVICES = Path("/dev")


def processor_and_cores() -> str:
    """'AMD EPYC, 2 cores'. A GPU is named where one is used: asking for it takes torch."""
    try:
        with open("/proc/cpuinfo") as lines:
            processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.machine()
    return f"{processor}, {os.cpu_count()} cores"


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that a process started here would see, as CUDA_VISIBLE_DEVICES names them."""
    count = sum(file.name.removeprefix("nvidia").isdigit() for file in DEVICES.glob("nvidia*"))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or not count:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in listed.split(",") if name.strip() not in ("", "-1"))


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
