"""What one job does: train → evaluate → record. However it ends, its directory says so (architecture, law 6)."""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from repro import __version__
from repro.data.source import eval_folders
from repro.errors import BadData, Diverged, InputError, Interrupted
from repro.evaluate import evaluate
from repro.resources import PACKAGE
from repro.rundir import RunDirectory, write_json
from repro.spec import RunSpec
from repro.train import distributed
from repro.train.loop import Options, check_ranks, train

REPORTED_PACKAGES = ("torch", "open_clip_torch", "clip-benchmark", "numpy", "timm")


def run(spec: RunSpec, directory: RunDirectory, options: Options) -> dict[str, Any]:
    """Run one cell to its end and return its result; a finished run only gets the evaluations that it lacks.

    Raises InputError where the run cannot start, and Interrupted when stopped on the way (type it again to go on).
    """
    torch.set_num_threads(spec.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs, and costs a pass over every new tensor
    _keep_freed_memory()
    device = distributed.start()
    check_ranks(spec, distributed.ranks())
    first = distributed.rank() == 0
    with directory.lock() if first else contextlib.nullcontext(), _asked_to_stop() as asked_to_stop:
        if first:
            directory.write_spec(spec)
            write_json(directory.provenance_file, provenance(spec, device))
        try:
            result = _train_and_evaluate(spec, directory, device, options, asked_to_stop)
        except InputError:
            raise
        except Exception as error:
            result = _failure(error, directory)
            if first:
                directory.write_result(result)
            if isinstance(error, Interrupted):
                raise
            if distributed.ranks() > 1 and not isinstance(error, BadData | Diverged):
                raise  # the other ranks do not know: torchrun ends them when this one leaves
            return result
        finally:
            distributed.stop()
        if first:
            directory.write_result(result)
        return result


def _train_and_evaluate(
    spec: RunSpec, directory: RunDirectory, device: torch.device, options: Options, asked_to_stop: Callable[[], bool]
) -> dict[str, Any]:
    result = directory.read_result()
    if result is None or result["status"] != "finished" or not directory.final.exists():
        result = {"status": "finished", "reason": ""} | train(spec, directory, device, options, asked_to_stop)
    if distributed.rank() == 0:
        result["metrics"] = evaluate(directory.checkpoints, eval_folders(spec), directory.evals, device)
    distributed.barrier()
    return result


def evaluate_again(directory: RunDirectory, evals: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a finished run anew on its own data sets, or on others, and renew its result. Raises InputError."""
    spec, result = directory.read_spec(), directory.read_result()
    if result is None or not directory.final.exists():
        raise InputError(f"{directory.path}: has no final weights to evaluate ({directory.status()})")
    wanted = eval_folders(spec.model_copy(update={"evals": tuple(evals)}) if evals else spec)
    if not wanted:
        raise InputError(f"{directory.path}: its spec names no evaluation; name some with --eval")
    with directory.lock():
        metrics = evaluate(directory.checkpoints, wanted, directory.evals, distributed.start(), redo=True)
        result = result | {"metrics": result.get("metrics", {}) | metrics}
        directory.write_result(result)
    return result


def _failure(error: Exception, directory: RunDirectory) -> dict[str, Any]:
    """The result of a run that did not finish: a status, and a reason in one line. The traceback goes to job/."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        status = "oom"
    else:
        status = getattr(error, "status", "failed")
    if status == "failed":
        (directory.job / f"error-{distributed.rank()}.txt").write_text(traceback.format_exc())
    lines = str(error).strip().splitlines() or [""]
    reason = lines[-1] if hasattr(error, "status") else f"{type(error).__name__}: {lines[0]}"
    last = directory.last_logged() or {}
    measured = {key: last.get(key) for key in ("examples_per_second", "peak_memory_bytes")}
    return {"status": status, "reason": reason} | measured


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM become a question that the training loop asks after each step; a second SIGINT kills."""
    asked = []

    def remember(number: int, _frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def provenance(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """Where a run's numbers come from (docs/architecture.md, law 9)."""
    versions = {
        f"{name.replace('-', '_').lower()}_version": importlib.metadata.version(name) for name in REPORTED_PACKAGES
    }
    return {
        **_git_commit(),
        "repro_version": __version__,
        **versions,
        "python_version": platform.python_version(),
        "host": socket.gethostname(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _git_commit() -> dict[str, Any]:
    """Commit of the checkout that the package runs from; empty for an installed wheel."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        if not (PACKAGE.parent / ".git").exists():
            return {"git_commit": "", "git_dirty": None}
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "repro"))}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": "", "git_dirty": None}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed memory: giving blocks back and faulting them in again at each step is slow."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_mmap_threshold, 32 << 20)  # the most that glibc takes
        mallopt(m_trim_threshold, 512 << 20)
        mallopt(m_arena_max, 1)  # what the text tower's thread frees is given back in spite of the threshold otherwise
