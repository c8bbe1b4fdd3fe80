"""Training throughput beside open_clip's own trainer: same machine, shards, model, batch and precision.

open_clip's trainer needs webdataset ≤ 0.2.86, so it runs in an environment of its own, given by its interpreter.
Ours is measured twice: decoding every sample, as open_clip does, and reading what an earlier run decoded.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd

from benchmarks.fresh import interleave, run_fresh
from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.units import format_examples
from repro.data.shards import list_shards, open_shards
from repro.launch.complete import complete

REFERENCE_MODEL = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
}
"""A small model with CLIP's own vocabulary, which both trainers can build."""
OURS_DECODING, OURS_KEPT, OPEN_CLIP = "repro, decoding", "repro, decoded before", "open_clip"


def compare(
    pattern: str,
    *,
    batch_size: int = 256,
    examples: int = 16_384,
    threads: int = 2,
    workers: int = 1,
    repeats: int = 3,
    peer_python: Path | None = None,
) -> pd.DataFrame:
    """One row an implementation and repeat: examples_per_second. Raises InputError where one cannot run.

    Both are the mean over all steps but the first, which starts the data workers; open_clip's by its own log.
    """
    if peer_python is not None and shutil.which(peer_python) is None:
        raise InputError(f"--peer-python {peer_python}: there is no such program")
    shards = list_shards(pattern)
    _, indexes = open_shards(shards)
    if sum(map(len, indexes)) < examples:
        raise InputError(f"--examples {examples:,}: the shards hold {format_examples(sum(map(len, indexes)))} only")
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "reference.json"
        model.write_text(json.dumps(REFERENCE_MODEL))
        spec = RunSpec(
            setup="siglip",
            scale="laptop",
            data=pattern,
            model=str(model),
            loss="sigmoid",
            init_logit_bias=-10,
            batch_size=batch_size,
            micro_batch=batch_size,
            examples_seen=examples,
            threads=threads,
            learning_rate=1e-3,
            weight_decay=1e-4,
        )
        (spec,) = complete([spec])
        calls = iter(range(10_000))

        def ours(cache: str | None) -> Callable[[], dict[str, float]]:
            def measure() -> dict[str, float]:
                folder = Path(scratch) / f"run{next(calls)}"
                environment = os.environ | {"REPRO_CACHE": cache or str(folder / "cache")}
                result = run_fresh(spec, folder, workers, environment)
                return {"examples_per_second": result["examples_per_second"]}

            return measure

        warm = f"{scratch}/warm-cache"
        run_fresh(spec, Path(scratch) / "warm", workers, os.environ | {"REPRO_CACHE": warm})
        measures = {OURS_DECODING: ours(None), OURS_KEPT: ours(warm)}
        if peer_python is not None:
            local_dir = Path(scratch) / "local-dir"
            local_dir.mkdir()
            (local_dir / "open_clip_config.json").write_text(json.dumps(REFERENCE_MODEL))
            measures[OPEN_CLIP] = lambda: {
                "examples_per_second": open_clip_rate(
                    peer_python, local_dir, pattern, batch_size, examples, threads, workers, Path(scratch)
                )
            }
        table = interleave(measures, repeats)
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")  # both trainers get it; it changes both by far
    settings = {"batch_size": batch_size, "examples": examples, "threads": threads, "workers": workers}
    return table.assign(**settings, omp_wait_policy=waiting)


def open_clip_rate(
    python: Path, model: Path, pattern: str, batch_size: int, examples: int, threads: int, workers: int, scratch: Path
) -> float:
    """Examples a second of one epoch of open_clip's trainer, by its own log. Raises InputError."""
    command = [str(python), "-m", "open_clip_train.main", "--model", f"local-dir:{model}", "--siglip"]
    command += ["--train-data", pattern, "--dataset-type", "webdataset", "--train-num-samples", str(examples)]
    command += ["--batch-size", str(batch_size), "--workers", str(workers), "--precision", "fp32", "--epochs", "1"]
    command += ["--lr", "1e-3", "--beta2", "0.95", "--wd", "0.1", "--warmup", "10", "--log-every-n-steps", "8"]
    command += ["--logs", str(scratch / "logs"), "--name", "peer", "--save-frequency", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=scratch)  # noqa: S603
    except OSError as error:
        raise InputError(f"--peer-python {python}: {error.strerror}") from None
    shutil.rmtree(scratch / "logs", ignore_errors=True)  # a name is used once only
    rate = logged_rate(done.stdout + done.stderr, batch_size)
    if done.returncode or rate is None:
        raise InputError(f"--peer-python {python}: open_clip's trainer failed: {done.stderr.strip()[-800:]}")
    return rate


def logged_rate(log: str, batch_size: int) -> float | None:
    """Examples a second over all steps after the first line's, from open_clip's log; None where it has no two lines.

    A line gives the mean seconds of a step since the line before; its examples a second are the last step's alone.
    """
    lines = re.findall(r"\[ *(\d+)/\d+ .*? Batch \(t\): ([0-9.]+),", log)
    seen = [int(examples) for examples, _ in lines]
    steps = [(after - before) / batch_size for before, after in pairwise(seen)]
    seconds = sum(n * float(mean) for n, (_, mean) in zip(steps, lines[1:], strict=True))
    return (seen[-1] - seen[0]) / seconds if seconds else None
