"""repro bench gpu: what only a GPU can tell, in minutes. docs/gpu.md says how to read it.

A section is a module with `measure(place)`, run in a process of its own (section.py) by the driver (driver.py).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """share: of the minutes, relative to the others'. function: 'module:name', called with a Place."""

    name: str
    share: float
    function: str


SECTIONS = tuple(
    Section(name, share, f"repro.bench.gpu.{name}:measure")
    for name, share in {
        "machine": 0.09,
        "correct": 0.17,
        "loss": 0.23,
        "resume": 0.13,
        "step": 0.22,
        "feed": 0.08,
        "curve": 0.08,
    }.items()
)
"""In the order in which they run; correctness and the loss come before what they are the ground of."""
