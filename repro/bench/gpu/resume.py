"""A run in bf16 that is killed half-way and typed again, beside the same run undisturbed: the same weights and log."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import torch

from repro.bench.gpu.place import Place
from repro.bench.record import run_command
from repro.check import complete, prepare_data
from repro.rundir import RunDirectory
from repro.spec import RunSpec
from repro.sweep import Overrides, expand, load_sweep

MODEL = {
    "embed_dim": 384,
    "vision_cfg": {"image_size": 224, "patch_size": 16, "width": 384, "layers": 4, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 384, "heads": 6, "layers": 4},
}
"""Small, and with as many tokens an image as ViT-B/16: attention's backward pass adds in any order, if it may."""
MEASURED = ("time", "examples_per_second", "data_wait_share", "peak_memory_bytes")
"""Of a log line: what differs between two runs of the same spec."""


def measure(place: Place) -> None:
    spec = _spec(place)
    prepare_data([spec], os.cpu_count() or 1)
    folders = {name: place.scratch / "resume" / name for name in ("undisturbed", "killed")}
    started = {name: _start(spec, folder) for name, folder in folders.items()}
    killed = RunDirectory(folders["killed"] / "runs" / "single" / spec.run_id)
    step = _kill_half_way(started["killed"], killed, spec)
    place.rows.add(f"{spec.steps} steps in {spec.precision}", "killed after step", step)
    _finish(_start(spec, folders["killed"]), "the run typed again")
    _finish(started["undisturbed"], "the undisturbed run")
    undisturbed = RunDirectory(folders["undisturbed"] / "runs" / "single" / spec.run_id)
    _compare(place, undisturbed, killed)


def _spec(place: Place) -> RunSpec:
    values = {"data": "shapes:2048", "evals": (), "precision": "bf16", "deterministic": True, "max_loss_ratio": None}
    if place.toy:
        values |= {"batch_size": 64, "micro_batch": 32, "examples_seen": 64 * 80}
    else:
        file = place.scratch / "resume-model.json"
        file.write_text(json.dumps(MODEL))
        values |= {
            "model": str(file),
            "learning_rate": 5e-4,
            "batch_size": 256,
            "micro_batch": 128,
            "examples_seen": 256 * 150,
        }
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({"loss": ["sigmoid"]}, values)))
    return spec


def _start(spec: RunSpec, folder: Path) -> subprocess.Popen:
    command = run_command(spec, folder, checkpoint_seconds=0.1)
    return subprocess.Popen(command)  # noqa: S603


def _kill_half_way(process: subprocess.Popen, directory: RunDirectory, spec: RunSpec) -> int:
    """Once there is a checkpoint and half of the log; returns the last step that it logged."""
    while process.poll() is None:
        step = (directory.last_logged() or {}).get("step", 0)
        if step >= spec.steps // 2 and list(directory.checkpoints.glob("step-*.pt")):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return (directory.last_logged() or {})["step"]
        time.sleep(0.005)
    raise SystemExit(f"the run to be killed ended with exit code {process.returncode} before it was")


def _finish(process: subprocess.Popen, name: str) -> None:
    if code := process.wait():
        raise SystemExit(f"{name} ended with exit code {code}")


def _unmeasured(line: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in line.items() if key not in MEASURED}


def _compare(place: Place, undisturbed: RunDirectory, killed: RunDirectory) -> None:
    weights, wanted = (torch.load(run.final, weights_only=True, map_location="cpu") for run in (killed, undisturbed))
    differing = [name for name, value in wanted.items() if not torch.equal(value, weights[name])]
    case = "killed and resumed beside undisturbed"
    zero = place.expected("0", at_most=0)
    place.rows.add(case, "weights that differ", len(differing), f"of {len(wanted)} tensors", zero)
    logs = [[_unmeasured(line) for line in run.read_log()] for run in (killed, undisturbed)]
    lines = sum(a != b for a, b in zip(*logs, strict=False)) + abs(len(logs[0]) - len(logs[1]))
    place.rows.add(case, "log lines that differ", lines, f"of {len(logs[1])} lines", zero)
    if differing or lines:
        where = f"the first: {differing[0]}" if differing else "weights are the same"
        raise SystemExit(f"{len(differing)} tensors and {lines} log lines differ from the undisturbed run's; {where}")
