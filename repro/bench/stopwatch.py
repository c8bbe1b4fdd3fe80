"""One run with the time and the processor time at every step: python -m repro.bench.stopwatch SPEC FOLDER OUT.

Processor time is what a step takes of a core. With one thread that is its time on the clock wherever it has a core to
itself, and it stays nearly the same where it has not: a busy machine can be calibrated, too.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.config.spec import RunSpec


@dataclass(frozen=True)
class Reading:
    """One run, measured. Seconds are of one step, but for start and evaluation."""

    step_seconds: float
    step_cpu_seconds: float
    start_cpu_seconds: float
    """From the start of the process to the end of the first step, less a step."""
    evaluation_cpu_seconds: float
    peak_memory_bytes: int


class Stamps:
    """Stands in for run.StopRequest: training asks it after every step whether to stop."""

    to_make_room = False

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def __call__(self) -> bool:
        self.seconds.append(time.perf_counter())
        self.cpu_seconds.append(time.process_time())
        return False

    def nobody_asks(self) -> None:
        pass


def read(spec: RunSpec) -> Reading:
    """Run a spec in a process of its own. Raises InputError where it fails."""
    with tempfile.TemporaryDirectory(prefix="repro-plan-") as folder:
        spec_file, out = Path(folder) / "spec.json", Path(folder) / "out.json"
        spec_file.write_text(spec.model_dump_json())
        command = [sys.executable, "-m", "repro.bench.stopwatch", spec_file, Path(folder) / spec.run_id, out]
        environment = os.environ | {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)  # noqa: S603  this very file
        if not out.exists():
            raise InputError(f"the run to measure failed: {(done.stderr or done.stdout).strip()[-800:]}")
        found = json.loads(out.read_text())
    seconds, cpu = (_steps(found[name]) for name in ("seconds", "cpu_seconds"))
    start, end = found["cpu_seconds"][0], found["cpu_seconds"][-1]
    return Reading(seconds, cpu, start - cpu, found["cpu_seconds_at_end"] - end, found["peak_memory_bytes"])


def _steps(stamps: list[float]) -> float:
    """Of a step: the mean of all but the slowest tenth, which met something else."""
    steps = sorted(after - before for before, after in itertools.pairwise(stamps))
    return statistics.fmean(steps[: max(1, round(0.9 * len(steps)))])


def main(spec_file: str, folder: str, out: str) -> int:
    from repro.runs.directory import RunDirectory
    from repro.runs.execute import run
    from repro.train.loop import Options

    spec = RunSpec.parse(json.loads(Path(spec_file).read_text()), spec_file)
    stamps: Any = Stamps()
    result = run(spec, RunDirectory(folder), Options(), stop=stamps)
    if result["status"] != "finished":
        print(result["reason"], file=sys.stderr)
        return 1
    found = {"seconds": stamps.seconds, "cpu_seconds": stamps.cpu_seconds, "cpu_seconds_at_end": time.process_time()}
    Path(out).write_text(json.dumps(found | {"peak_memory_bytes": result["peak_memory_bytes"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
