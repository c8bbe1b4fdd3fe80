"""Run directories → tidy pandas tables, ours and the paper's in the same shape.

One row a run, whatever became of it (docs/architecture.md, law 6): a directory that cannot be read is a row with status
`corrupt` and the reason.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.errors import InputError, nearest
from repro.launch.records import FOLDER
from repro.resources import resource
from repro.rundir import UNFINISHED, CorruptRun, RunDirectory, read_object, run_directories, write_atomically

if TYPE_CHECKING:
    import pandas as pd

FIRST_COLUMNS = [
    *("run_id", "sweep", "setup", "scale", "loss", "batch_size", "examples_seen", "seed", "status", "reason"),
    *("examples_per_second", "step_seconds", "peak_memory_bytes", "final_logit_scale", "final_logit_bias"),
]


def load(runs: Path | str = "runs", sweep: str | None = None) -> "pd.DataFrame":
    """The runs of one sweep (or of all) as a table; metrics are columns named <dataset>/<metric>, from 0 to 1."""
    import pandas as pd  # takes longer than choosing a sweep of 1,000 runs, which is all that `repro status` needs

    rows = [row(directory) for directory in run_directories(Path(runs), sweep)]
    table = pd.DataFrame(rows)
    metrics = sorted(column for column in table.columns if "/" in column)
    others = [column for column in table.columns if column not in (*FIRST_COLUMNS, *metrics)]
    table = table.reindex(columns=[*FIRST_COLUMNS, *others, *metrics])
    order = ["sweep", "setup", "scale", "loss", "examples_seen", "batch_size", "seed", "run_id"]
    return table.sort_values(order, na_position="last").reset_index(drop=True)


def row(directory: RunDirectory) -> dict[str, Any]:
    """One run: its spec, its result, where its numbers came from."""
    values: dict[str, Any] = {"run_id": directory.path.name, "sweep": directory.path.parent.name}
    try:
        spec = directory.read_spec()
        values |= spec.model_dump(exclude={"format", "evals"}) | {"spec_hash": spec.spec_hash}
        result = directory.read_result() or {}
        status = result.get("status", "pending")
        if status in UNFINISHED:
            status, result = directory.status(), directory.read_result() or {}
        values |= {"status": status, "reason": ""}
        if values["status"] != "running":
            values |= {key: value for key, value in result.items() if key not in ("metrics", "format", "status")}
        values |= result.get("metrics", {})
    except CorruptRun as error:
        return values | {"status": "corrupt", "reason": str(error)}
    try:
        return values | (read_object(directory.provenance_file) if directory.provenance_file.exists() else {})
    except CorruptRun as error:  # the numbers are good, and where they came from is not known
        return values | {"reason": "; ".join(filter(None, [values["reason"], str(error)]))}


def sweeps(runs: Path | str = "runs") -> list[str]:
    """Names of the sweeps that have runs, the most recently worked on first."""
    newest: dict[str, float] = {}
    for directory in run_directories(Path(runs)):
        files = (directory.spec_file, directory.log_file, directory.result_file)
        changed = 0.0
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                changed = max(changed, file.stat().st_mtime)
        name = directory.path.parent.name
        newest[name] = max(newest.get(name, 0), changed)
    for name in newest:  # a launch that is queued has written nothing else yet
        with contextlib.suppress(FileNotFoundError):
            newest[name] = max(newest[name], (Path(runs) / name / FOLDER).stat().st_mtime)
    return sorted(newest, key=lambda name: -newest[name])


def choose_sweep(runs: Path | str, name: str | None) -> str:
    """The named sweep, or the most recent. Raises InputError with the nearest, or how to make one."""
    if Path(runs).is_file():
        raise InputError(f"--runs {runs}: is a file; expected the folder of all runs")
    if name and Path(name).name == name and any((Path(runs) / name).glob("*/spec.json")):
        return name
    found = sweeps(runs)
    if not found:
        raise InputError(f"{runs}: no runs here yet; make some with: repro sweep batch-size --loss sigmoid softmax")
    if name is not None:
        raise InputError(f"no runs of a sweep '{name}' in {runs}{nearest(name, found)}")
    return found[0]


def published() -> "pd.DataFrame":
    """The paper's tables (arXiv 2303.15343), one number a row; accuracies in percent."""
    import pandas as pd

    return pd.read_csv(resource("paper") / "published.csv")


def write_csv(table: "pd.DataFrame", file: Path) -> None:
    """Write a table to its place in one piece."""
    write_atomically(file, lambda temporary: table.to_csv(temporary, index=False))
