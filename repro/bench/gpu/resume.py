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
from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch.complete import complete, prepare_data
from repro.runs.directory import RunDirectory

MODEL = {
    "embed_dim": 384,
    "vision_cfg": {"image_size": 224, "patch_size": 16, "width": 384, "layers": 4, "head_width": 64},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 384, "heads": 6, "layers": 4},
}
"""Small, and with as many tokens an image as ViT-B/16: attention's backward pass adds in any order, if it may."""
MEASURED = ("time", "examples_per_second", "data_wait_share", "peak_memory_bytes")
"""Of a log line: what differs between two runs of the same spec."""
MOST_ATTEMPTS = 3


def measure(place: Place) -> None:
    spec = _spec(place)
    prepare_data([spec], os.cpu_count() or 1)
    folder = place.scratch / "resume"
    undisturbed = _start(spec, folder / "undisturbed")
    killed, step = _killed_half_way(spec, folder)
    place.rows.add(f"{spec.steps} steps in {spec.precision}", "killed after step", step)
    _finish(_start(spec, killed), "the run typed again")
    _finish(undisturbed, "the undisturbed run")
    _compare(place, _directory(spec, folder / "undisturbed"), _directory(spec, killed))


def _spec(place: Place) -> RunSpec:
    values = {"data": "shapes:2048", "evals": (), "precision": "bf16", "deterministic": True, "max_loss_ratio": None}
    if place.toy:
        values |= {"batch_size": 64, "micro_batch": 32, "examples_seen": 64 * 60}
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


def _directory(spec: RunSpec, folder: Path) -> RunDirectory:
    return RunDirectory(folder / "runs" / "single" / spec.run_id)


def _killed_half_way(spec: RunSpec, folder: Path) -> tuple[Path, int]:
    """The folder of a run that was killed, and the last step that it logged; anew where it was done before the kill."""
    for attempt in range(MOST_ATTEMPTS):
        killed = folder / f"killed-{attempt}"
        step = _kill_half_way(_start(spec, killed), _directory(spec, killed), spec)
        if step is not None:
            return killed, step
    raise SystemExit(f"{MOST_ATTEMPTS} runs of {spec.steps} steps were done before they could be killed")


def _kill_half_way(process: subprocess.Popen, directory: RunDirectory, spec: RunSpec) -> int | None:
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
