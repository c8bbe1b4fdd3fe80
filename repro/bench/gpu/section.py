"""One section in this process: python -m repro.bench.gpu.section '{"name": …}', as the driver starts it."""

import importlib
import json
import sys
import time
from pathlib import Path

from repro.bench.gpu.place import OutOfTime, Place, Rows
from repro.runs.signals import whole_program

OUT_OF_TIME = 75
"""Exit code of a section that knew when to stop."""


def main(given: str) -> None:
    values = json.loads(given)
    sys.argv = ["repro", *values["arguments"]]  # which rows give as their command
    out = Path(values["out"])
    deadline = time.monotonic() + values["limit_seconds"]
    rows = Rows.begin(values["name"], out / f"{values['name']}.csv", values["device"])
    module, _, name = values["function"].partition(":")
    measure = getattr(importlib.import_module(module), name)
    try:
        measure(Place(values["device"], rows, out, Path(values["scratch"]), deadline))
    except OutOfTime as stopped:
        print(stopped)
        sys.exit(OUT_OF_TIME)


if __name__ == "__main__":
    with whole_program():
        main(sys.argv[1])
