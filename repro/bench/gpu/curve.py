"""Cells of the sweep batch-size at scale gpu on the embedded world, by the command itself, while time is left."""

import subprocess
import sys
import time
from pathlib import Path

from repro.bench.gpu.place import OutOfTime, Place
from repro.runs.directory import RunDirectory, run_directories

BATCH_SIZES = ("1k", "4k", "512", "2k", "8k", "16k")
"""In the order in which they tell most."""
LOSSES = ("sigmoid", "softmax")
FIRST_CELL_SECONDS = 25.0
"""What the first cell is thought to take, with drawing the world; later ones take what the one before took."""
SHOWN = ("examples_per_second", "step_seconds", "peak_memory_bytes", "data_wait_share", "final_loss")


def measure(place: Place) -> None:
    cells = [(loss, size) for size in BATCH_SIZES for loss in LOSSES]
    seconds, measured = FIRST_CELL_SECONDS, 0
    for loss, size in [("sigmoid", "64")] if place.toy else cells:
        case = f"siglip at scale gpu, {loss}, batch {size}"
        if place.left < 1.2 * seconds:
            reason = f"{place.left:.0f} s were left; a cell takes about {seconds:.0f} s"
            place.rows.add_missing(case, "not run", reason)
            continue
        started = time.monotonic()
        _measure_cell(place, case, loss, size)
        seconds, measured = time.monotonic() - started, measured + 1
    if not measured:
        raise OutOfTime("no cell fits in the time that was left")


def _measure_cell(place: Place, case: str, loss: str, size: str) -> None:
    runs = place.scratch / "curve" / f"{loss}-{size}"
    done = subprocess.run(_command(place, loss, size, runs), capture_output=True, text=True)  # noqa: S603
    found = run_directories(runs)
    result = found[0].read_result() if found else None
    if done.returncode or result is None:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        reason = (result or {}).get("reason") or lines[-1][:300]
        place.rows.add_missing(case, (result or {}).get("status") or "failed", reason)
        raise SystemExit(f"{case}: {reason}")
    _record(place, case, found[0], result)


def _record(place: Place, case: str, directory: RunDirectory, result: dict) -> None:
    spec = directory.read_spec()
    place.rows.add(case, "examples seen", spec.examples_seen, f"on {spec.data}")
    for name, value in result["metrics"].items():
        place.rows.add(case, name, value)
    for name in SHOWN:
        if result.get(name) is not None:
            place.rows.add(case, name, result[name])


def _command(place: Place, loss: str, size: str, runs: Path) -> list[str]:
    data, examples = ("shapes:2048", "1024") if place.toy else ("shapes:65536", "131072")
    command = [sys.executable, "-m", "repro", "sweep", "batch-size", "--scale", "gpu", "--data", data]
    command += ["--eval", "shapes", "--loss", loss, "--batch-size", size, "--examples", examples]
    command += ["--executor", "inline", "--runs", str(runs)]
    if place.toy:
        return [*command, "--set", "model=laptop", "precision=fp32", "threads=1", "micro_batch=64"]
    return [*command, "--workers", "12"]
