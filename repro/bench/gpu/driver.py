"""Sections one after the other, each in a process group of its own with its share of the time.

What a section leaves behind is ended with it. One that fails, or that is not done when its share is over, keeps the
rows that it has written and gets one with its reason; the next has its turn.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from repro.bench.gpu import SECTIONS, Section
from repro.bench.gpu.place import section_row
from repro.bench.gpu.section import OUT_OF_TIME
from repro.config.errors import InputError, nearest
from repro.results import write_csv

SUMMARY = "summary.csv"
GONE_SECONDS = 20.0
"""So long a killed process may take to go: one with tensors on a GPU takes a second or two."""
LAST_LINES = 15
"""Of the output of a section that failed, that are shown."""


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
    _check_folder(out, sections)
    deadline = time.monotonic() + 60 * minutes
    ended = _other_sections(out, sections)
    with tempfile.TemporaryDirectory(prefix="repro-bench-gpu-") as scratch:
        for number, section in enumerate(sections):
            shares = [each.share for each in sections[number:]]
            limit_seconds = max(0.0, deadline - time.monotonic()) * shares[0] / sum(shares)
            say(f"{section.name}: up to {limit_seconds:.0f} s")
            (out / f"{section.name}.csv").unlink(missing_ok=True)
            ended[section.name] = _run_section(section, limit_seconds, out, Path(scratch), device, say)
            table = _summary(out, ended)
            write_csv(table, out / SUMMARY)
    return table


def failed(table: pd.DataFrame, sections: Sequence[Section]) -> list[str]:
    """Of these sections, those that did not end well."""
    ends = table[table["quantity"] == "section"].set_index("section")["status"]
    return [section.name for section in sections if ends[section.name] != "ok"]


def _run_section(
    section: Section, limit_seconds: float, out: Path, scratch: Path, device: str, say: Callable[[str], None]
) -> dict[str, object]:
    values = {"name": section.name, "function": section.function, "device": device, "limit_seconds": limit_seconds}
    values |= {"out": str(out.absolute()), "scratch": str(scratch), "arguments": sys.argv[1:]}
    command = [sys.executable, "-m", "repro.bench.gpu.section", json.dumps(values)]
    environment = os.environ | {"REPRO_CACHE": str(scratch / "cache"), "TQDM_DISABLE": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"}
    log, started = scratch / f"{section.name}.log", time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  this package's own
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
    lines = log.read_text(errors="replace").strip().splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")[:300]
    status, reason = _outcome(code, limit_seconds, last)
    seconds = time.monotonic() - started
    say(f"{section.name}: {status} after {seconds:.0f} s" + (f"; {reason}" if reason else ""))
    if status != "ok":
        say("\n".join(f"    {line}" for line in lines[-LAST_LINES:]))
    return section_row(section.name, seconds, limit_seconds, status, reason)


def _outcome(code: int | None, limit_seconds: float, last_line: str) -> tuple[str, str]:
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
    while _is_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_group(group: int) -> bool:
    """Whether processes other than zombies are in it; those wait for whoever inherited them."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _check_folder(out: Path, sections: Sequence[Section]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made or written ({error.strerror})") from None
    for file in (out / f"{section.name}.csv" for section in sections):
        if file.exists() and file.stat().st_size:
            _check_ours(file)


def _check_ours(file: Path) -> None:
    """Raises InputError for a file that is no table of this benchmark's."""
    try:
        columns = set(pd.read_csv(file, nrows=0))
    except (OSError, ValueError):  # a folder, no text, nothing in it
        columns = set()
    if not {"section", "quantity"} <= columns:
        raise InputError(f"{file}: no column 'section', so not written by this benchmark; use another --out")


def _other_sections(out: Path, sections: Sequence[Section]) -> dict[str, dict[str, object]]:
    """What an earlier call recorded of the ends of sections that this one does not run."""
    if not (out / SUMMARY).exists():
        return {}
    _check_ours(out / SUMMARY)
    table = pd.read_csv(out / SUMMARY, keep_default_na=False)
    ends = table[table["quantity"] == "section"]
    running = {section.name for section in sections}
    return {row["section"]: row for row in ends.to_dict("records") if row["section"] not in running}


def _summary(out: Path, ended: dict[str, dict[str, object]]) -> pd.DataFrame:
    """Each section's end, then its rows, in the order of SECTIONS and then of their names."""
    order = [section.name for section in SECTIONS]
    names = sorted(ended, key=lambda name: (order.index(name) if name in order else len(order), name))
    parts = []
    for name in names:
        parts.append(pd.DataFrame([ended[name]]))
        if (out / f"{name}.csv").exists():
            parts.append(pd.read_csv(out / f"{name}.csv", keep_default_na=False))
    return pd.concat(parts, ignore_index=True).fillna("")
