"""The tests marked gpu, on this device: a row a file with what passed, and a row for each test that failed."""

import importlib.util
import os
import signal
from collections import Counter, defaultdict

from repro.bench.gpu.place import OutOfTime, Place
from repro.config.files import PACKAGE

TESTS = ("tests/gpu", "tests/loss/test_kernels.py")
IN_A_REHEARSAL = (
    "tests/gpu/test_losses.py::test_the_same_bits_come_out_twice",
    "tests/gpu/test_training.py::test_micro_batches_have_the_gradient_of_the_whole_batch",
    "tests/loss/test_kernels.py::test_the_same_bits_come_out_twice",
)
"""On a CPU all of them take minutes, and are run by the project's own test command."""
MOST_PROCESSES = 12
"""That share the GPU: a test takes little of it, and much time to compile kernels for its sizes."""
RESERVE_SECONDS = 5.0
"""To note what has been done when the time is over."""


def measure(place: Place) -> None:
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
