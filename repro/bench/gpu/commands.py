"""What other programs do: a run that is killed and typed again beside the same undisturbed; cells of a sweep; the tests
marked gpu, a row a file with what passed, and a row for each that failed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch

from repro.bench.gpu.place import OutOfTime, Place
from repro.bench.record import run_command
from repro.config.files import PACKAGE
from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch.complete import complete, prepare_data
from repro.runs.directory import RunDirectory, run_directories

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 56, "patch_size": 4, "width": 192, "layers": 4, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
}
"""Small, so that a checkpoint is, and with the 196 tokens an image of ViT-B/16 at 224 pixels: attention's backward pass
adds in any order, if it may."""
MEASURED = ("time", "examples_per_second", "data_wait_share", "peak_memory_bytes")
"""Values of a log line that differ between two runs of the same spec."""
MOST_ATTEMPTS = 3
TESTS = ("tests/gpu", "tests/loss/test_kernels.py")
IN_A_REHEARSAL = ("tests/gpu/test_training.py::test_micro_batches_have_the_gradient_of_the_whole_batch",)
"""On a CPU all of them take minutes, and are run by the project's own test command."""
MOST_PROCESSES = 12
"""That share the GPU: a test takes little of it, and much time to compile kernels for its sizes."""
RESERVE_SECONDS = 5.0
"""To note what has been done when the time is over."""
CURVE = [(loss, size) for size in ("1k", "4k", "512", "2k", "8k", "16k") for loss in ("sigmoid", "softmax")]
"""Cells of the sweep batch-size in the order in which they tell most."""
FIRST_CELL_SECONDS = 25.0
"""Estimate for the first cell, with drawing the world; later ones take what the one before took."""
SHOWN = ("examples_per_second", "step_seconds", "peak_memory_bytes", "data_wait_share", "final_loss")


def measure_resume(place: Place) -> None:
    """A run in bf16 that is killed half-way and typed again ends with the weights and log of the undisturbed one."""
    spec = _spec(place)
    prepare_data([spec], os.cpu_count() or 1)
    folder = place.scratch / "resume"
    undisturbed, wanted = _start(spec, folder / "undisturbed")
    for attempt in range(MOST_ATTEMPTS):
        step = _killed_half_way(*_start(spec, folder / f"killed-{attempt}"), spec)
        if step is not None:
            break
    else:
        raise SystemExit(f"{MOST_ATTEMPTS} runs of {spec.steps} steps were done before they could be killed")
    place.rows.add(f"{spec.steps} steps in {spec.precision}", "killed after step", step)
    again, resumed = _start(spec, folder / f"killed-{attempt}")
    for process, name in ((again, "the run typed again"), (undisturbed, "the undisturbed run")):
        if code := process.wait():
            raise SystemExit(f"{name} ended with exit code {code}")
    _compare(place, wanted, resumed)


def _spec(place: Place) -> RunSpec:
    values = {"data": "shapes:2048", "evals": (), "precision": "bf16", "deterministic": True, "max_loss_ratio": None}
    if place.toy:
        values |= {"batch_size": 32, "micro_batch": 16, "examples_seen": 32 * 60}
    else:
        file = place.scratch / "resume-model.json"
        file.write_text(json.dumps(MODEL))
        values |= {"model": str(file), "learning_rate": 5e-4}
        values |= {"batch_size": 128, "micro_batch": 64, "examples_seen": 128 * 150}
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({"loss": ["sigmoid"]}, values)))
    return spec


def _start(spec: RunSpec, folder: Path) -> tuple[subprocess.Popen, RunDirectory]:
    process = subprocess.Popen(run_command(spec, folder, checkpoint_seconds=0.1))  # noqa: S603
    return process, RunDirectory(folder / "runs" / "single" / spec.run_id)


def _killed_half_way(process: subprocess.Popen, directory: RunDirectory, spec: RunSpec) -> int | None:
    """Once there is a checkpoint and half of the log; returns the last step that it logged, None where it was done."""
    while process.poll() is None:
        step = (directory.last_logged() or {}).get("step", 0)
        if step >= spec.steps // 2 and list(directory.checkpoints.glob("step-*.pt")):
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL and not directory.final.exists():
                return (directory.last_logged() or {})["step"]
        time.sleep(0.005)
    if process.returncode > 0:
        raise SystemExit(f"the run to be killed ended with exit code {process.returncode}")
    return None


def _compare(place: Place, undisturbed: RunDirectory, resumed: RunDirectory) -> None:
    weights, wanted = (torch.load(run.final, weights_only=True, map_location="cpu") for run in (resumed, undisturbed))
    differing = [name for name, value in wanted.items() if not torch.equal(value, weights[name])]
    case, zero = "killed and resumed beside undisturbed", place.expected("0", at_most=0)
    place.rows.add(case, "weights that differ", len(differing), f"of {len(wanted)} tensors", zero)
    logs = [
        [{key: value for key, value in line.items() if key not in MEASURED} for line in run.read_log()]
        for run in (resumed, undisturbed)
    ]
    lines = sum(a != b for a, b in zip(*logs, strict=False)) + abs(len(logs[0]) - len(logs[1]))
    place.rows.add(case, "log lines that differ", lines, f"of {len(logs[1])} lines", zero)
    if differing or lines:
        where = f"the first: {differing[0]}" if differing else "weights are the same"
        raise SystemExit(f"{len(differing)} tensors and {lines} log lines differ from the undisturbed run's; {where}")


def measure_curve(place: Place) -> None:
    """Cells of the sweep batch-size at scale gpu on the embedded world, while time is left."""
    seconds, measured = FIRST_CELL_SECONDS, 0
    for loss, size in [("sigmoid", "64")] if place.toy else CURVE:
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
    data, examples = ("shapes:2048", "1024") if place.toy else ("shapes:16384", "65536")
    command = [sys.executable, "-m", "repro", "sweep", "batch-size", "--scale", "gpu", "--data", data]
    command += ["--eval", "shapes", "--loss", loss, "--batch-size", size, "--examples", examples]
    command += ["--executor", "inline", "--runs", str(runs)]
    toy = ["--set", "model=laptop", "precision=fp32", "threads=1", "micro_batch=64"]
    command += toy if place.toy else ["--workers", "12"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
    found = run_directories(runs)
    result = found[0].read_result() if found else None
    if done.returncode or result is None:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        reason = (result or {}).get("reason") or lines[-1][:300]
        place.rows.add_missing(case, (result or {}).get("status") or "failed", reason)
        raise SystemExit(f"{case}: {reason}")
    spec = found[0].read_spec()
    place.rows.add(case, "examples seen", spec.examples_seen, f"on {spec.data}")
    shown = {name: result[name] for name in SHOWN if result.get(name) is not None}
    for name, value in (result["metrics"] | shown).items():
        place.rows.add(case, name, value)


def measure_tests(place: Place) -> None:
    if not (PACKAGE.parent / TESTS[0]).is_dir():
        place.rows.add_missing("tests", "not run", "no tests beside the package; run it from a checkout")
        return
    if importlib.util.find_spec("pytest") is None:
        place.rows.add_missing("tests", "not run", "not installed: pip install pytest")
        return
    import pytest

    os.chdir(PACKAGE.parent)
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # pytest ends as by Ctrl-C, between two tests or in one
    signal.setitimer(signal.ITIMER_REAL, max(1.0, place.left - RESERVE_SECONDS))
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", "-m", "gpu"]
    options.append(f"--basetemp={place.scratch / 'tests'}")  # else pytest first removes what earlier calls have left
    if importlib.util.find_spec("xdist"):
        options += ["-n", str(min(MOST_PROCESSES, os.cpu_count() or 1)), "--dist", "worksteal"]
    recorder = Recorder(place)
    code = pytest.main([*options, *(IN_A_REHEARSAL if place.toy else TESTS)], plugins=[recorder])
    signal.setitimer(signal.ITIMER_REAL, 0)
    for file, found in recorder.counts.items():
        for outcome in ("passed", "failed", "skipped"):
            place.rows.add(file, f"tests {outcome}", found[outcome], "tests")
    if recorder.failures:
        raise SystemExit(f"{len(recorder.failures)} tests failed; the first: {recorder.failures[0]}")
    if code == pytest.ExitCode.INTERRUPTED:
        raise OutOfTime("pytest was stopped before its last test")
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"pytest ended with {pytest.ExitCode(code).name}")


class Recorder:
    """A plugin of pytest that writes a row for each test that fails or is skipped, and counts them all by file."""

    def __init__(self, place: Place):
        self.place, self.failures = place, []
        self.counts: dict[str, Counter] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.when != "call" and report.passed:  # setting up and tearing down count where they fail
            return
        self.counts[report.nodeid.partition("::")[0]][report.outcome] += 1
        if report.passed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        said = report.longrepr[2] if report.skipped else crash.message if crash else str(report.longrepr)
        message = (said.strip().splitlines() or [""])[0].removeprefix("Skipped: ")[:200]
        self.place.rows.add_missing(report.nodeid, "not run" if report.skipped else "failed", message, "test")
        if report.failed:
            self.failures.append(f"{report.nodeid}: {message}")
