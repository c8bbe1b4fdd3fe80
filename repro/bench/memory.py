"""Peak memory of a run against its batch size, with embedding-gradient caching, beside what the loss's matrix takes.

Each batch size is trained for a few steps in a process of its own. The plain loss holds matrices of batch × batch;
a second run of the same steps takes the loss in blocks of rows (same value and gradient), and so shows the memory
of all the rest: "the similarity matrix aside".
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from repro.bench.record import run_fresh
from repro.check import complete, prepare_data
from repro.sweep import Overrides, expand, load_sweep

STEPS = 3
BLOCK_ROWS = 256


def compare(batch_sizes: Sequence[int], micro_batch: int, loss: str, data: str) -> pd.DataFrame:
    """One row a batch size: peak_memory_bytes with the plain loss, and with the loss in blocks of rows."""
    rows = []
    for batch_size in batch_sizes:
        values = {"loss": loss, "batch_size": batch_size, "micro_batch": micro_batch, "evals": ()}
        values |= {"examples_seen": STEPS * batch_size, "warmup_examples": 0, "data": data}
        specs = complete(expand(load_sweep("batch-size"), "laptop", Overrides({}, values)))
        prepare_data(specs, os.cpu_count() or 1)
        with tempfile.TemporaryDirectory() as scratch:
            plain = run_fresh(specs[0], Path(scratch) / "plain")
            program = "from repro.bench.memory import run_with_row_blocks; run_with_row_blocks()"
            blocks = run_fresh(specs[0], Path(scratch) / "blocks", program=program)
        rows.append(
            {
                "batch_size": batch_size,
                "micro_batch": micro_batch,
                "loss": loss,
                "peak_memory_bytes": plain["peak_memory_bytes"],
                "peak_memory_bytes_matrix_aside": blocks["peak_memory_bytes"],
            }
        )
    table = pd.DataFrame(rows)
    first = table["peak_memory_bytes_matrix_aside"].iloc[0]
    return table.assign(ratio_matrix_aside=table["peak_memory_bytes_matrix_aside"] / first)


def run_with_row_blocks() -> None:
    """The command line with a loss that holds BLOCK_ROWS rows of the similarity matrix at a time."""
    import torch

    import repro.train.loop as loop
    from repro.cli import main

    def sigmoid_rows(x: torch.Tensor, y: torch.Tensor, t: torch.Tensor, b: torch.Tensor, first: int) -> torch.Tensor:
        logits = t * x @ y.T + b
        return torch.nn.functional.softplus(logits).sum() - logits.diagonal(offset=first).sum()

    def softmax_rows(x: torch.Tensor, y: torch.Tensor, t: torch.Tensor, b: torch.Tensor, first: int) -> torch.Tensor:
        targets = torch.arange(len(x)) + first
        return torch.nn.functional.cross_entropy(t * x @ y.T, targets, reduction="sum")

    def in_blocks(rows, *inputs):
        """Gradients block by block, then a value that hands them on when it is differentiated."""
        x, y, t, b = leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        value = 0.0
        for first in range(0, len(x), BLOCK_ROWS):
            part = rows(x[first : first + BLOCK_ROWS], y, t, b, first) / len(x)
            part.backward()
            value += part.detach()
        pairs = zip(inputs, leaves, strict=True)
        surrogate = sum((tensor * leaf.grad).sum() for tensor, leaf in pairs if leaf.grad is not None)
        return value + surrogate - surrogate.detach()

    def make_loss(name: str):
        if name == "sigmoid":
            return lambda x, y, t, b: in_blocks(sigmoid_rows, x, y, t, b)
        zero = torch.zeros(())
        return lambda x, y, t, _: (in_blocks(softmax_rows, x, y, t, zero) + in_blocks(softmax_rows, y, x, t, zero)) / 2

    loop.make_loss = make_loss
    main()
