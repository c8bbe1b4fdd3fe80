"""What a machine's numbers are recorded under: its processor and cores."""

import os
import platform


def processor_and_cores() -> str:
    """'AMD EPYC, 2 cores'. A GPU is named where one is used: asking for it takes torch."""
    try:
        with open("/proc/cpuinfo") as lines:
            processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.machine()
    return f"{processor}, {os.cpu_count()} cores"
