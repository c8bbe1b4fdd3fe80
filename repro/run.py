"""What one job does: train → evaluate → record. However it ends, its directory says so (architecture, law 6)."""

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from repro import __version__, attempts, pretrained
from repro.data.evalsets import language_means
from repro.data.source import check_unchanged, eval_folders
from repro.errors import BadData, Diverged, EvaluationFailed, InputError, Interrupted
from repro.evaluate import evaluate
from repro.evaluate.released import evaluate_released
from repro.hardware import processor_and_cores
from repro.resources import PACKAGE
from repro.rundir import ENDED, CorruptRun, RunDirectory, read_json, write_json
from repro.spec import RunSpec
from repro.stopping import StopRequest
from repro.train import distributed
from repro.train.loop import Options, train

LAST_WORDS_SECONDS = 2.0
"""So long a rank that lost contact waits for the others to say why."""
REPORTED_PACKAGES = ("torch", "open_clip_torch", "clip-benchmark", "numpy", "timm")


def run(
    spec: RunSpec,
    directory: RunDirectory,
    options: Options,
    job_id: str = "",
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Run one cell to its end and return its result; a finished run only gets the evaluations that it lacks.

    job_id: SLURM's, where it runs there. Raises InputError where the run cannot start (which is recorded, unless
    another process has it), Interrupted when stopped on the way (type it again to go on), Superseded when another
    process has taken it over, and on several ranks whatever ends one of them alone.
    """
    torch.set_num_threads(spec.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs, and costs a pass over every new tensor
    _keep_freed_memory()
    rank, ranks = distributed.rank(), distributed.ranks()
    spec.check_ranks(ranks)
    directory.job.mkdir(parents=True, exist_ok=True)
    directory.failure_file(rank).unlink(missing_ok=True)
    directory.alive_file(rank).write_text(f"{socket.gethostname()} {os.getpid()}\n")
    attempt = attempts.claim(directory.attempts, job_id, ranks) if rank == 0 else None
    with contextlib.ExitStack() as alive:
        stop = stop or alive.enter_context(StopRequest())
        alive.callback(directory.alive_file(rank).write_text, ENDED)
        alive.enter_context(attempts.beating(directory.alive_file(rank)))
        if attempt is not None:
            alive.enter_context(attempts.beating(attempt.file))
            directory.keep_room_for_a_result()
            options = dataclasses.replace(options, still_ours=attempt.still_in_force)
        try:
            result = _train_and_evaluate(spec, directory, options, stop)
        except attempts.Superseded:
            raise
        except Exception as error:
            result = _failure(error, directory)
            if isinstance(error, Interrupted):
                result["make_room"] = stop.to_make_room
            agreed = ranks == 1 or isinstance(error, BadData | Diverged | Interrupted)
            if not agreed:
                write_json(directory.failure_file(rank), result | {"lost_contact": is_lost_contact(error)})
                result = root_cause(directory, ranks, result | {"lost_contact": is_lost_contact(error)})
            if attempt is not None:
                _record(directory, attempt, result)
            if not agreed or isinstance(error, Interrupted | InputError):
                raise  # the other ranks do not know: whoever started them ends them when this one leaves
            return result
        finally:
            distributed.stop()
        if attempt is not None:
            _record(directory, attempt, result)
        return result


def _record(directory: RunDirectory, attempt: attempts.Attempt, result: dict[str, Any]) -> None:
    """Leave the result, and word of how the attempt ended; a lost contact alone is no result (launch/job.py asks why).

    Raises Superseded.
    """
    attempt.still_in_force()
    lost_contact = result.pop("lost_contact", False)
    if not lost_contact:
        directory.write_result(result)
        attempt.end(result["status"], (directory.last_logged() or {}).get("examples_seen", 0))


def _train_and_evaluate(spec: RunSpec, directory: RunDirectory, options: Options, stop: StopRequest) -> dict[str, Any]:
    device = distributed.start()
    first = distributed.rank() == 0
    if first:
        directory.write_spec(spec)
        write_json(directory.provenance_file, provenance(spec, device))
    if first and directory.read_trained() is None:
        check_unchanged(spec)
        pretrained.check_unchanged(spec)
    trained = {} if spec.setup == "released" else train(spec, directory, device, options, stop)
    distributed.barrier()
    distributed.stop()  # ranks other than the first leave, and give back their device, while it evaluates
    stop.nobody_asks()
    result = {"status": "finished", "reason": ""} | trained
    if first:
        result["metrics"] = _evaluate(spec, directory, eval_folders(spec), device)
    return result


def _evaluate(
    spec: RunSpec, directory: RunDirectory, evals: Sequence[str], device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics of the run's final weights. Raises EvaluationFailed."""
    if spec.setup == "released":
        return evaluate_released(spec, directory, evals, device, redo)
    return evaluate(directory.checkpoints, evals, directory.evals, device, redo)


def evaluate_again(directory: RunDirectory, evals: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a finished run anew on its own data sets, or on others, and renew its result. Raises InputError."""
    spec, result = directory.read_spec(), directory.read_result()
    if result is None or not (directory.final.exists() or spec.setup == "released"):
        raise InputError(f"{directory.path}: has no final weights to evaluate ({directory.status()})")
    wanted = eval_folders(spec.model_copy(update={"evals": tuple(evals)}) if evals else spec)
    if not wanted:
        raise InputError(f"{directory.path}: its spec names no evaluation; name some with --eval")
    attempt = attempts.claim(directory.attempts)
    with attempts.beating(attempt.file):
        try:
            metrics = _evaluate(spec, directory, wanted, distributed.start(), redo=True)
            metrics = result.get("metrics", {}) | metrics
            result = result | {"metrics": metrics | language_means(metrics)}
            directory.write_result(result)
        finally:
            attempt.end("evaluated")
    return result


def _failure(error: Exception, directory: RunDirectory) -> dict[str, Any]:
    """The result of a run that did not finish: a status, and a reason in one line. The traceback goes to job/."""
    status = getattr(error, "status", "failed")
    speaks_for_itself = isinstance(error, InputError | CorruptRun)
    if status == "failed" and not speaks_for_itself:
        (directory.job / f"error-{distributed.rank()}.txt").write_text(traceback.format_exc())
    lines = str(error).strip().splitlines() or [""]
    reason = lines[-1] if hasattr(error, "status") else f"{type(error).__name__}: {lines[0]}"
    reason = "; ".join(lines) if speaks_for_itself else reason
    last = directory.last_logged() or {}
    measured = {key: last.get(key) for key in ("examples_per_second", "peak_memory_bytes")}
    with contextlib.suppress(CorruptRun):  # then it is what the reason says
        measured |= directory.read_trained() or {}
    metrics = {"metrics": error.metrics} if isinstance(error, EvaluationFailed) else {}
    return measured | metrics | {"status": status, "reason": reason}


def is_lost_contact(error: Exception) -> bool:
    """Whether a rank failed only because another one went away."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return (
        isinstance(error, RuntimeError)
        and re.search(r"gloo|NCCL|Connection (closed|reset|refused)|[Bb]roken pipe|Socket", str(error)) is not None
    )


def root_cause(directory: RunDirectory, ranks: int, own: dict[str, Any]) -> dict[str, Any]:
    """Of all that the ranks say, what is not only the echo of another's end. Waits a little for the others to say it.

    own: this rank's failure, with lost_contact.
    """
    deadline = time.monotonic() + (LAST_WORDS_SECONDS if own["lost_contact"] else 0)
    while True:
        found = [read_json(file) for rank in range(ranks) if (file := directory.failure_file(rank)).exists()]
        for failure in found:
            if not failure["lost_contact"]:
                return failure
        if time.monotonic() > deadline:
            return own
        time.sleep(0.1)


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
        "machine": processor_and_cores(),
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


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed memory: giving blocks back and faulting them in again at each step is slow."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8
        mallopt(m_mmap_threshold, 32 << 20)  # the most that glibc takes
        mallopt(m_trim_threshold, 512 << 20)
        mallopt(m_arena_max, 1)  # what the text tower's thread frees is given back in spite of the threshold otherwise
