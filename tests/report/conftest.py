"""Tables of runs as `repro.results.load` gives them, made up: no training is needed to draw a figure."""

import math

import numpy as np
import pandas as pd
import pytest

from repro import results
from repro.report.inputs import Inputs
from repro.results import tables


def run_row(loss="sigmoid", batch_size=64, seed=0, accuracy=0.5, status="finished", **changed):
    """One run's row. A run that is not finished has no metrics."""
    value = accuracy if status == "finished" else math.nan
    done = status == "finished"
    row = {
        "run_id": f"siglip-{loss}-bs{batch_size}-65.5k-s{seed}-0a1b2c3d",
        "sweep": "batch-size",
        "setup": "siglip",
        "scale": "laptop",
        "loss": loss,
        "batch_size": batch_size,
        "examples_seen": 65536,
        "seed": seed,
        "status": status,
        "reason": "" if done else f"the reason of {status}",
        "examples_per_second": 1500.0 + batch_size / 4 if done else math.nan,
        "step_seconds": batch_size / 1500 if done else math.nan,
        "peak_memory_bytes": (400 + batch_size / 8) * 2**20 if done else math.nan,
        "final_logit_scale": 12.5 if done else math.nan,
        "final_logit_bias": -9.5 if done and loss == "sigmoid" else math.nan,
        "data": "shapes:65536",
        "data_fingerprint": "5f3a9c0d1e2b4a67",
        "model": "laptop",
        "precision": "fp32",
        "init_logit_bias": -10.0 if loss == "sigmoid" else math.nan,
        "micro_batch": min(batch_size, 512),
        "learning_rate": 1e-3,
        "spec_hash": "0a1b2c3d",
        "finished_at": "2025-01-02T03:04:05+00:00" if done else None,
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "repro_version": "0.1.0",
        "torch_version": "2.9.0",
        "machine": "Some CPU, 2 cores",
        "gpu": "",
        "wds_shapes_objects/acc1": value,
        "wds_shapes_objects/acc5": min(1.0, 1.5 * value),
        "wds_shapes_retrieval/image_retrieval_recall@1": 0.4 * value,
        "wds_shapes_retrieval/text_retrieval_recall@1": 0.6 * value,
        "wds_shapes_retrieval/image_retrieval_recall@5": 0.8 * value,
        "wds_shapes_retrieval/text_retrieval_recall@5": 0.9 * value,
    }
    return row | changed


def sweep_table(batch_sizes=(32, 64, 128, 256, 512, 1024, 2048), seeds=(0,), **changed):
    """A whole sweep, sigmoid and softmax, that rises to 512 and falls beyond."""
    noise = np.random.default_rng(0)
    rows = [
        run_row(loss, size, seed, _accuracy(loss, size) + (0.01 * noise.standard_normal()), **changed)
        for loss in ("sigmoid", "softmax")
        for size in batch_sizes
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def _accuracy(loss, size):
    return 0.62 - 0.02 * (math.log2(size) - 8.5) ** 2 - (0.03 if loss == "softmax" and size < 512 else 0)


@pytest.fixture
def table():
    """Fourteen finished runs with one seed."""
    return sweep_table()


def inputs_of(runs, **others):
    """Inputs of a report: a table of runs and, unless more are given, nothing else but the paper."""
    empty = {"evaluations": pd.DataFrame(), "curves": pd.DataFrame(), "bench": {}, "published": results.published()}
    return Inputs(runs=tables.with_mean_recall(runs), **{**empty, **others})
