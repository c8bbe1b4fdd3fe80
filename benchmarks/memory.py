"""Peak memory of a run against its batch size, with embedding-gradient caching.

Each batch size is trained for a few steps in a process of its own. Towers hold one micro-batch and the loss one tile,
so what grows is the batch's own: its images, tokens and embeddings.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.fresh import run_fresh
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch.complete import complete, prepare_data

STEPS = 3


def compare(batch_sizes: Sequence[int], micro_batch: int, loss: str, data: str) -> pd.DataFrame:
    """One row a batch size: peak_memory_bytes, and its ratio to the first's."""
    rows = []
    for batch_size in batch_sizes:
        values = {"loss": loss, "batch_size": batch_size, "micro_batch": micro_batch, "evals": ()}
        values |= {"examples_seen": STEPS * batch_size, "warmup_examples": 0, "data": data}
        (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({}, values)))
        prepare_data([spec], os.cpu_count() or 1)
        with tempfile.TemporaryDirectory() as scratch:
            result = run_fresh(spec, Path(scratch))
        sizes = {"batch_size": batch_size, "micro_batch": micro_batch, "loss": loss}
        rows.append(sizes | {"peak_memory_bytes": result["peak_memory_bytes"]})
    table = pd.DataFrame(rows)
    return table.assign(ratio=table["peak_memory_bytes"] / table["peak_memory_bytes"].iloc[0])
