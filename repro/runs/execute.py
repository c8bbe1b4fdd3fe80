"""Carry out one run: train → evaluate → record. However it ends, its directory says so (architecture, law 6)."""

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
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from repro import __version__
from repro.config.errors import EvaluationFailed, InputError, Interrupted
from repro.config.files import FULL, PACKAGE, CorruptRun, write_json
from repro.config.hardware import processor_and_cores
from repro.config.spec import RunSpec
from repro.data.eval_sets import language_means
from repro.evaluate import evaluate, evaluate_released
from repro.models import pretrained
from repro.runs import liveness, ownership
from repro.runs.directory import RunDirectory
from repro.runs.signals import StopRequest, exit_at_once
from repro.train import distributed
from repro.train.checkpoint import damage_of
from repro.train.loop import Options, train
from repro.train.state import NO_DETERMINISTIC, lenient, set_deterministic
from repro.world.source import check_unchanged, eval_folders

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
    set_deterministic(spec.deterministic)
    _keep_freed_memory()
    rank, ranks = distributed.rank(), distributed.ranks()
    spec.check_ranks(ranks)
    directory.job.mkdir(parents=True, exist_ok=True)
    liveness.forget_failure(directory, rank, ranks)
    attempt = ownership.claim(directory.attempts, job_id, ranks) if rank == 0 else None
    with contextlib.ExitStack() as alive:
        stop = stop or alive.enter_context(StopRequest())
        alive.enter_context(liveness.announced(directory.alive_file(rank)))
        if attempt is not None:
            alive.enter_context(ownership.beating(attempt.file))
            options = dataclasses.replace(options, check_owner=attempt.check_in_force)
        ending = _Ending(directory, attempt)
        peers = alive.enter_context(contextlib.ExitStack())
        if ranks > 1:
            peers.enter_context(liveness.watching(directory, rank, ending.leave))
        try:
            if attempt is not None:
                directory.keep_room_for_a_result()
            result = _train_and_evaluate(spec, directory, options, stop, peers.close)
        except ownership.Superseded:
            raise
        except Exception as error:
            ending.begin()
            result = _failure(error, directory)
            if isinstance(error, Interrupted):
                result["make_room"] = stop.to_make_room
            alone = ranks > 1 and not getattr(error, "agreed", False)
            if alone:
                if (who := f"rank {rank}") not in result["reason"]:
                    result["reason"] = f"{who} of {ranks}: {result['reason']}"
                failure = result | {"lost_contact": is_lost_contact(error)}
                with contextlib.suppress(OSError):  # a disk that is full to the last byte: the exit code says it then
                    directory.write_failure(rank, failure)
                result = liveness.root_cause(directory, failure)
            ending.record(result)
            if alone:
                raise  # its peers are stuck in the group: the caller exits without leaving it (launch/rank.py)
            distributed.stop()
            if isinstance(error, Interrupted | InputError):
                raise
            return result
        ending.record(result)
        return result


class _Ending:
    """How this rank's run ends: told once, by the main thread, or by the one that sees another rank's failure."""

    def __init__(self, directory: RunDirectory, attempt: ownership.Attempt | None):
        self.directory, self.attempt, self._begun = directory, attempt, threading.Lock()

    def begin(self) -> None:
        """The main thread ends the run. Never returns where the other one does so already."""
        self._begun.acquire()

    def leave(self, failure: dict[str, Any]) -> None:
        """Another rank failed: record that, and exit, wherever the main thread is stuck."""
        if not self._begun.acquire(blocking=False):
            return
        code = liveness.FAILED
        try:
            self.record(failure)
            code = liveness.RECORDED
        except ownership.Superseded:
            code = liveness.BUSY
        except Exception:
            traceback.print_exc()
        finally:
            exit_at_once(code)

    def record(self, result: dict[str, Any]) -> None:
        """On rank 0, leave the result and how the attempt ended; a lost contact alone is none (launch/job.py asks why).

        Raises Superseded.
        """
        if self.attempt is None or result.get("lost_contact"):
            return
        self.attempt.check_in_force()
        columns = {key: value for key, value in result.items() if key not in ("lost_contact", "rank")}
        self.directory.write_result(columns)
        self.attempt.end(result["status"], (self.directory.last_logged() or {}).get("examples_seen", 0))


def _train_and_evaluate(
    spec: RunSpec, directory: RunDirectory, options: Options, stop: StopRequest, leave_peers: Callable[[], None]
) -> dict[str, Any]:
    device = distributed.start(options.timeout_seconds)
    first = distributed.rank() == 0
    if first:
        directory.write_spec(spec)
        write_json(directory.provenance_file, provenance(spec, device))
    if first and directory.read_trained() is None:
        check_unchanged(spec)
        pretrained.check_unchanged(spec)
    trained = {} if not spec.trains else train(spec, directory, device, options, stop)
    distributed.stop()  # ranks other than the first leave, and give back their device, while it evaluates
    leave_peers()
    stop.stop_polling()
    liveness.activity.move("evaluating")
    result = {"status": "finished", "reason": ""} | trained
    if first:
        result["metrics"] = _evaluate(spec, directory, eval_folders(spec), device)
    return result


def _evaluate(
    spec: RunSpec, directory: RunDirectory, evals: Sequence[str], device: torch.device, redo: bool = False
) -> dict[str, float]:
    """Metrics of the run's final weights. Raises EvaluationFailed."""
    with lenient():
        if not spec.trains:
            return evaluate_released(spec, directory, evals, device, redo)
        return evaluate(directory.checkpoints, evals, directory.evals, device, redo)


def evaluate_again(directory: RunDirectory, evals: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a finished run anew on its own data sets, or on others, and renew its result. Raises InputError."""
    spec, result = directory.read_spec(), directory.read_result()
    if result is None or not (directory.final.exists() or not spec.trains):
        raise InputError(f"{directory.path}: has no final weights to evaluate ({directory.status()})")
    if spec.trains and (damage := damage_of(directory.final)):
        raise InputError(f"{directory.final}: is damaged or cut off ({damage}); remove result.json to train again")
    wanted = eval_folders(spec.model_copy(update={"evals": tuple(evals)}) if evals else spec)
    if not wanted:
        raise InputError(f"{directory.path}: its spec names no evaluation; name some with --eval")
    attempt = ownership.claim(directory.attempts)
    with ownership.beating(attempt.file):
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
    speaks_for_itself = isinstance(error, InputError | CorruptRun)
    status, reason = _named(error)
    if status == "failed" and not speaks_for_itself:
        with contextlib.suppress(OSError):  # a full disk is no reason to lose the reason
            (directory.job / f"error-{distributed.rank()}.txt").write_text(traceback.format_exc())
    if speaks_for_itself:
        reason = "; ".join(str(error).strip().splitlines())
    last = directory.last_logged() or {}
    measured = {key: last.get(key) for key in ("examples_per_second", "peak_memory_bytes")}
    with contextlib.suppress(CorruptRun):  # then it is what the reason says
        measured |= directory.read_trained() or {}
    metrics = {"metrics": error.metrics} if isinstance(error, EvaluationFailed) else {}
    return measured | metrics | {"status": status, "reason": reason}


def _named(error: Exception) -> tuple[str, str]:
    """Status and reason of an exception, of torch's and the system's too."""
    lines = str(error).strip().splitlines() or [""]
    if hasattr(error, "status"):
        return error.status, lines[-1]
    if isinstance(error, OSError) and error.errno in FULL:
        return "disk-full", f"{error.filename or 'a file of the run'}: {FULL[error.errno]}"
    if NO_DETERMINISTIC in lines[0]:
        operation = lines[0].partition(NO_DETERMINISTIC)[0].strip()
        return "failed", f"{operation} gives other bits each time; --set deterministic=false trains with it"
    return "failed", f"{type(error).__name__}: {lines[0]}"


def is_lost_contact(error: Exception) -> bool:
    """Whether a rank failed only because another one went away."""
    if isinstance(error, torch.distributed.DistError | distributed.RankLost):
        return True
    return (
        isinstance(error, RuntimeError)
        and re.search(r"gloo|NCCL|Connection (closed|reset|refused)|[Bb]roken pipe|Socket", str(error)) is not None
    )


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
