"""Sections of `repro bench gpu` that end badly, each in its own way, after a row."""

import os
import signal
import subprocess
import sys
import time

from repro.bench.gpu.driver import Section

PID_FILE = "child.pid"


def section(function, share=1.0):
    return Section(function.__name__, share, f"{__name__}:{function.__name__}")


def works(place):
    place.rows.add("a case", "speed", 2.5, "pairs/s", place.expected("2", at_least=2.0))
    place.rows.add_missing("another case", "not run", "not installed")


def raises(place):
    place.rows.add("a case", "speed", 2.5, "pairs/s")
    raise ValueError("the kernel gave NaN")


def hangs(place):
    """With a child that outlives it."""
    place.rows.add("a case", "speed", 2.5, "pairs/s")
    _leave_a_child(place)
    time.sleep(600)


def is_killed(place):
    place.rows.add("a case", "speed", 2.5, "pairs/s")
    os.kill(os.getpid(), signal.SIGKILL)


def leaves_a_child(place):
    place.rows.add("a case", "speed", 2.5, "pairs/s")
    _leave_a_child(place)


def stops_in_time(place):
    place.rows.add("a case", "speed", 2.5, "pairs/s")
    place.reserve(1e6, "a long case")


def _leave_a_child(place):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (place.out / f"{place.rows.section}-{PID_FILE}").write_text(str(child.pid))
