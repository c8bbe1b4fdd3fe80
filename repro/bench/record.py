"""Records of benchmarks: a CSV that says where its numbers come from; and the command line of a run to measure."""

import datetime
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from repro.config.errors import InputError
from repro.config.hardware import processor_and_cores
from repro.config.spec import RunSpec
from repro.results import write_csv


def run_command(
    spec: RunSpec, folder: Path, workers: int = 0, checkpoint_seconds: float | None = None
) -> list[str | Path]:
    """The command line of a run below `folder`, where its spec is written."""
    folder.mkdir(parents=True, exist_ok=True)
    spec_file = folder / "bench.json"
    spec_file.write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "repro", "run", spec_file]
    command += ["--runs", folder / "runs", "--workers", str(workers)]
    return command + (["--checkpoint-seconds", str(checkpoint_seconds)] if checkpoint_seconds is not None else [])


def update(table: pd.DataFrame, file: Path, keys: Sequence[str], device: str = "cpu") -> pd.DataFrame:
    """Put the table's rows beside those already in the file; a row of the same keys on the same machine is replaced.

    Returns this machine's rows of the file, with their origin.
    """
    new = table.assign(**origin(device))
    keys = [*keys, "machine"]
    if file.exists():
        old = pd.read_csv(file)
        if missing := [key for key in keys if key not in old]:
            raise InputError(f"{file}: no column '{missing[0]}', so not written by this benchmark; use another --out")
        new = pd.concat([old, new]).drop_duplicates(keys, keep="last")
    new = new.sort_values(keys, kind="stable").reset_index(drop=True)
    write_csv(new, file)
    return new[new["machine"] == origin(device)["machine"]]


def origin(device: str = "cpu") -> dict[str, str]:
    """Where a number comes from, for every row."""
    program = "python -m benchmarks" if Path(sys.argv[0]).parent.name == "benchmarks" else "repro"
    machine = processor_and_cores()
    if device == "cuda":
        import torch

        machine = f"{torch.cuda.get_device_name(0)}; {machine}"
    return {
        "machine": machine,
        "torch_version": version("torch"),
        "open_clip_version": version("open_clip_torch"),
        "command": " ".join([program, *(os.path.basename(a) if os.path.isabs(a) else a for a in sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
    }
