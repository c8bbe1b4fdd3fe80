"""The tests marked gpu, on this device: a row a file with what passed, and a row for each test that failed."""

import importlib.util
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

from repro.bench.gpu.rows import OutOfTime, Place
from repro.config.resources import PACKAGE

TESTS = ("tests/gpu", "tests/loss/test_kernels.py")
IN_A_REHEARSAL = (
    "tests/gpu/test_losses.py::test_the_same_bits_come_out_twice",
    "tests/gpu/test_training.py::test_micro_batches_have_the_gradient_of_the_whole_batch",
    "tests/loss/test_kernels.py::test_the_same_bits_come_out_twice",
)
"""On a CPU all of them take minutes, and are run by the project's own test command."""
RESERVE_SECONDS = 5.0
"""For pytest to say what it has done when its time is over."""


def measure(place: Place) -> None:
    root = PACKAGE.parent
    if not (root / TESTS[0]).is_dir():
        place.rows.add_missing("tests", "not run", "no tests beside the package; run it from a checkout")
        return
    if importlib.util.find_spec("pytest") is None:
        place.rows.add_missing("tests", "not run", "not installed: pip install pytest")
        return
    report = place.scratch / "tests.xml"
    over = _run(root, IN_A_REHEARSAL if place.toy else TESTS, report, place.left - RESERVE_SECONDS)
    failures = _record(place, report) if report.exists() else ["pytest left no report"]
    if failures:
        raise SystemExit(f"{len(failures)} tests failed; the first: {failures[0]}")
    if over:
        raise OutOfTime("pytest was stopped before its last test")


def _run(root: Path, tests: tuple[str, ...], report: Path, limit_seconds: float) -> bool:
    """Whether pytest was stopped before its end; it reports what it has done until then."""
    # Without the project's own options, which are for pytest-xdist.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", "-m", "gpu", f"--junitxml={report}"]
    process = subprocess.Popen([sys.executable, "-m", "pytest", *options, *tests], cwd=root)  # noqa: S603
    try:
        process.wait(timeout=max(1.0, limit_seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
        return True
    return False


def _record(place: Place, report: Path) -> list[str]:
    """Write the rows; returns a line for each test that failed."""
    counts: dict[str, Counter] = defaultdict(Counter)
    failures = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it
        file, name = case.get("classname", "").replace(".", "/") + ".py", case.get("name", "")
        outcome, message = _outcome(case)
        counts[file][outcome] += 1
        if outcome == "failed":
            failures.append(f"{file}::{name}: {message}")
            place.rows.add_missing(f"{file}::{name}", "failed", message, "test")
        elif outcome == "skipped":
            place.rows.add_missing(f"{file}::{name}", "not run", message, "test")
    for file, found in counts.items():
        for outcome in ("passed", "failed", "skipped"):
            place.rows.add(file, f"tests {outcome}", found[outcome], "tests")
    return failures


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    for element in case:
        if element.tag in ("failure", "error", "skipped"):
            lines = (element.get("message") or element.text or "").strip().splitlines() or [""]
            return "skipped" if element.tag == "skipped" else "failed", lines[0][:200]
    return "passed", ""
