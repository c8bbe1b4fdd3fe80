"""Sections one after the other, each in a process group of its own with its share of the time.

What a section leaves behind is ended with it. One that fails, or that is not done when its share is over, keeps the
rows that it has written and gets one with its reason; the next has its turn.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil

from repro.bench.gpu.place import OutOfTime, Place, Rows, section_row
from repro.config.errors import InputError, nearest
from repro.results import write_csv
from repro.runs.signals import whole_program

SUMMARY = "summary.csv"
GONE_SECONDS = 20.0
"""So long a killed process may take to go: one with tensors on a GPU takes a second or two."""
LAST_LINES = 15
"""Shown of the output of a section that failed."""
OUT_OF_TIME = 75
"""Exit code of a section that knew when to stop."""


@dataclass(frozen=True)
class Section:
    """share: of the minutes, relative to the others'. function: 'module:name', called with a Place."""

    name: str
    share: float
    function: str


SECTIONS = tuple(
    Section(name, share, f"repro.bench.gpu.{function}")
    for name, share, function in (
        ("machine", 0.09, "ceilings:measure"),
        ("correct", 0.16, "commands:measure_tests"),
        ("loss", 0.23, "peers:measure"),
        ("resume", 0.11, "commands:measure_resume"),
        ("step", 0.20, "steps:measure"),
        ("feed", 0.13, "steps:measure_feed"),
        ("curve", 0.08, "commands:measure_curve"),
    )
)
"""In the order in which they run; correctness and the loss come before what they are the ground of."""


def select(names: Sequence[str]) -> list[Section]:
    """By name, in the order in which they run; all where no name is given. Raises InputError with the nearest."""
    known = [section.name for section in SECTIONS]
    for name in names:
        if name not in known:
            raise InputError(f"--only: unknown section '{name}'{nearest(name, known)} (sections: {', '.join(known)})")
    return [section for section in SECTIONS if not names or section.name in names]


def run(
    sections: Sequence[Section], minutes: float, out: Path, device: str, say: Callable[[str], None]
) -> pd.DataFrame:
    """All rows, written to out/SECTION.csv as they are measured and to out/summary.csv after each section.

    What an earlier call has left of these sections is replaced; other sections' rows stay in the summary. Raises
    InputError for a folder that cannot be written, or in which others' files have these names.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made or written ({error.strerror})") from None
    files = {section.name: out / f"{section.name}.csv" for section in sections}
    for file in files.values():
        if file.exists() and file.stat().st_size:
            _rows_in(file)
    before = _rows_in(out / SUMMARY) if (out / SUMMARY).exists() else pd.DataFrame(columns=["section", "quantity"])
    ends = before[(before["quantity"] == "section") & ~before["section"].isin(list(files))]
    ended = {row["section"]: row for row in ends.to_dict("records")}
    deadline = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="repro-bench-gpu-") as scratch:
        for number, section in enumerate(sections):
            shares = [each.share for each in sections[number:]]
            limit_seconds = max(0.0, deadline - time.monotonic()) * shares[0] / sum(shares)
            say(f"{section.name}: up to {limit_seconds:.0f} s")
            files[section.name].unlink(missing_ok=True)
            ended[section.name] = _run_section(section, limit_seconds, out, Path(scratch), device, say)
            table = _summary(out, ended)
            write_csv(table, out / SUMMARY)
    return table


def failed(table: pd.DataFrame, sections: Sequence[Section]) -> list[str]:
    """Return the names of these sections that did not end well."""
    ends = table[table["quantity"] == "section"].set_index("section")["status"]
    return [section.name for section in sections if ends[section.name] != "ok"]


def _run_section(
    section: Section, limit_seconds: float, out: Path, scratch: Path, device: str, say: Callable[[str], None]
) -> dict[str, object]:
    values = {"name": section.name, "function": section.function, "device": device, "limit_seconds": limit_seconds}
    values |= {"out": str(out.absolute()), "scratch": str(scratch), "arguments": sys.argv[1:]}
    command = [sys.executable, "-m", "repro.bench.gpu.driver", json.dumps(values)]
    environment = os.environ | {"REPRO_CACHE": str(scratch / "cache"), "TQDM_DISABLE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"}
    log, started = scratch / f"{section.name}.log", time.monotonic()
    with log.open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **streams, env=environment, start_new_session=True)  # noqa: S603
        try:
            code: int | None = process.wait(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
    lines = log.read_text(errors="replace").strip().splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")[:300]
    status, reason = _end_of(code, limit_seconds, last)
    seconds = time.monotonic() - started
    say(f"{section.name}: {status} after {seconds:.0f} s" + (f"; {reason}" if reason else ""))
    if status != "ok":
        say("\n".join(f"    {line}" for line in lines[-LAST_LINES:]))
    return section_row(section.name, seconds, limit_seconds, status, reason)


def _end_of(code: int | None, limit_seconds: float, last_line: str) -> tuple[str, str]:
    """Status and reason."""
    if code is None:
        return "timeout", f"not done after {limit_seconds:.0f} s; its last line: {last_line}"
    if code == OUT_OF_TIME:
        return "timeout", last_line
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}; its last line: {last_line}"
    return ("ok", "") if code == 0 else ("failed", last_line)


def _end_group(process: subprocess.Popen) -> None:
    """Kill whatever is left of a section, and wait until its processes are gone, so that their memory is."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + GONE_SECONDS
    while any(_is_in(process.pid, each) for each in psutil.process_iter()) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_in(group: int, process: psutil.Process) -> bool:
    """Whether a process is in a group; zombies, which wait for whoever inherited them, are not."""
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        return os.getpgid(process.pid) == group and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def _rows_in(file: Path) -> pd.DataFrame:
    """Rows of an earlier call. Raises InputError for a file that is no table of this benchmark's."""
    try:
        table = pd.read_csv(file, keep_default_na=False)
    except (OSError, ValueError):  # a folder, no text, nothing in it
        table = pd.DataFrame()
    if not {"section", "quantity"} <= set(table):
        raise InputError(f"{file}: no column 'section', so not written by this benchmark; use another --out")
    return table


def _summary(out: Path, ended: dict[str, dict[str, object]]) -> pd.DataFrame:
    """Each section's end, then its rows, in the order of SECTIONS and then of their names."""
    order = [section.name for section in SECTIONS]
    parts = []
    for name in sorted(ended, key=lambda name: (order.index(name) if name in order else len(order), name)):
        parts.append(pd.DataFrame([ended[name]]))
        if (out / f"{name}.csv").exists():
            parts.append(_rows_in(out / f"{name}.csv"))
    return pd.concat(parts, ignore_index=True).fillna("")


def main(given: str) -> None:
    """One section in this process: python -m repro.bench.gpu.driver '{"name": …}', as _run_section starts it."""
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
