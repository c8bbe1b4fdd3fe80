"""Run directories → tidy pandas tables, ours and the paper's in the same shape.

One row a run, whatever became of it (docs/architecture.md, law 6): a directory that cannot be read is a row with status
`corrupt` and the reason.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.config.errors import InputError, nearest
from repro.config.files import CorruptRun, read_object, resource, write_atomically
from repro.config.spec import RunSpec
from repro.data.eval_sets import metrics_in
from repro.runs.directory import UNFINISHED, RunDirectory, run_directories

if TYPE_CHECKING:
    import pandas as pd

FIRST_COLUMNS = [
    *("run_id", "sweep", "setup", "scale", "loss", "batch_size", "examples_seen", "seed", "status", "reason"),
    *("examples_per_second", "step_seconds", "peak_memory_bytes", "final_logit_scale", "final_logit_bias"),
]

TELLING = ("setup", "scale", "loss", "batch_size", "examples_seen", "seed")
"""Fields of a run in tables of many rows a run."""


def load(runs: Path | str = "runs", sweep: str | None = None) -> "pd.DataFrame":
    """The runs of one sweep (or of all) as a table; metrics are columns named <dataset>/<metric>, from 0 to 1.

    Raises InputError where there is no such folder, or no such sweep in it, with the nearest.
    """
    import pandas as pd  # takes longer than choosing a sweep of 1,000 runs, which is all that `repro status` needs

    table = pd.DataFrame([row(directory) for directory in _directories(runs, sweep)])
    metrics = sorted(column for column in table.columns if "/" in column)
    others = [column for column in table.columns if column not in (*FIRST_COLUMNS, *metrics)]
    table = table.reindex(columns=[*FIRST_COLUMNS, *others, *metrics])
    order = ["sweep", "setup", "scale", "loss", "examples_seen", "batch_size", "seed", "run_id"]
    return table.sort_values(order, na_position="last").reset_index(drop=True)


def row(directory: RunDirectory) -> dict[str, Any]:
    """One run: its spec, its result, where its numbers came from."""
    values: dict[str, Any] = _named(directory)
    try:
        spec = directory.read_spec()
        values |= _fields(spec) | {"spec_hash": spec.spec_hash}
        result = directory.read_result() or {}
        status = result.get("status", "pending")
        if status in UNFINISHED:
            status, result = directory.status(), directory.read_result() or {}
        values |= {"status": status, "reason": ""}
        metrics = result.pop("metrics", {})
        if status != "running":
            values |= _cells({key: value for key, value in result.items() if key not in ("format", "status")})
        values |= _cells(metrics)
    except CorruptRun as error:
        return values | {"status": "corrupt", "reason": str(error)}
    try:
        origin = _cells(read_object(directory.provenance_file)) if directory.provenance_file.exists() else {}
        return values | origin | ({"command": without_places(str(origin["command"]))} if "command" in origin else {})
    except CorruptRun as error:  # the numbers are good, and where they came from is not known
        return values | {"reason": "; ".join(filter(None, [values["reason"], str(error)]))}


def without_places(command: str) -> str:
    """A command as it is published: of absolute paths, which mean something on one machine only, the last part."""
    program, *arguments = command.split(" ")
    return " ".join(["repro" if program == "__main__.py" else program, *map(without_place, arguments)])


def without_place(word: str) -> str:
    """Return the last part of an absolute path, anything else as it is."""
    return os.path.basename(word.rstrip("/")) if os.path.isabs(word) else word


def _named(directory: RunDirectory) -> dict[str, Any]:
    return {"run_id": directory.path.name, "sweep": directory.path.parent.name}


def _fields(spec: RunSpec) -> dict[str, Any]:
    """A run's spec as cells of a table."""
    return _cells(spec.model_dump(exclude={"format", "evals"}))


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """As cells of a table hold them: lists as words with spaces between, objects as text."""
    plain = {name: str(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: " ".join(map(str, v)) if isinstance(v, tuple | list) else v for name, v in plain.items()}


def load_evaluations(runs: Path | str = "runs", sweep: str | None = None) -> "pd.DataFrame":
    """Accuracy along the way, of one sweep or of all: a row for each run and point of its evaluate_at, and for its end.

    examples_seen_at is the point, metrics are columns; beside them what tells the runs apart. Runs that name no point
    have no rows, and where none does the table is empty.
    """
    return _long(runs, sweep, _evaluations_of)


def load_curves(runs: Path | str, sweep: str | None, columns: Sequence[str]) -> "pd.DataFrame":
    """Columns of the runs' logs against the examples seen (examples_seen_at): a row for each run and log line.

    The log's loss is the column training_loss: loss says which of the two it is. sweep: None for all.
    """
    names = {column: "training_loss" if column == "loss" else column for column in columns}

    def lines_of(directory: RunDirectory, _: RunSpec) -> Iterator[dict[str, Any]]:
        for line in directory.read_log():
            if isinstance(line, dict) and "examples_seen" in line:
                found = {own: line.get(column) for column, own in names.items()}
                yield {"examples_seen_at": line["examples_seen"], **found}

    return _long(runs, sweep, lines_of)


def _evaluations_of(directory: RunDirectory, spec: RunSpec) -> Iterator[dict[str, Any]]:
    for examples in sorted(spec.evaluate_at):
        if metrics := metrics_in(directory.evals_at(examples)):
            yield {"examples_seen_at": examples} | metrics
    final = (directory.read_result() or {}).get("metrics")
    if spec.evaluate_at and final:
        yield {"examples_seen_at": spec.examples_seen} | final


def _long(
    runs: Path | str, sweep: str | None, rows_of: Callable[[RunDirectory, RunSpec], Iterator[dict[str, Any]]]
) -> "pd.DataFrame":
    """Many rows a run, beside the columns that tell runs apart: those of TELLING, and the fields that differ."""
    import pandas as pd

    found: list[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = []
    for directory in _directories(runs, sweep):
        with contextlib.suppress(CorruptRun):  # a row of the runs' own table says what is corrupt
            spec = directory.read_spec()
            found.append((_named(directory), _fields(spec), list(rows_of(directory, spec))))
    every = [fields for _, fields, _ in found]
    differing = [name for name in every[0] if len({str(each[name]) for each in every}) > 1] if every else []
    names = list(dict.fromkeys([*TELLING, *differing]))
    table = [named | {name: own[name] for name in names} | row for named, own, rows in found for row in rows]
    order = ["run_id", "sweep", *names, "examples_seen_at"]
    metrics = sorted({column for row in table for column in row} - set(order))
    return pd.DataFrame(table, columns=[*order, *metrics])


def tables_of(runs: Path | str, sweep: str) -> "dict[str, pd.DataFrame]":
    """All tables of a sweep by what their file is called after its name: '', '-evaluations', '-curves'.

    The last two where runs were evaluated on the way, and where the sweep's file, found by its name, names columns of
    the logs that belong to its result.
    """
    from repro.config.sweep import load_sweep

    try:
        columns = load_sweep(sweep).curves
    except InputError:
        columns = ()
    found = {"": load(runs, sweep), "-evaluations": load_evaluations(runs, sweep)}
    found |= {"-curves": load_curves(runs, sweep, columns)} if columns else {}
    return {kind: table for kind, table in found.items() if len(table) or not kind}


def _directories(runs: Path | str, sweep: str | None) -> list[RunDirectory]:
    """All runs of a sweep, or of all. Raises InputError."""
    if not Path(runs).is_dir():
        raise InputError(
            f"{runs}: no folder of runs here ({Path.cwd()}); expected one that `repro sweep` made, such as "
            "results.load('path/to/runs')"
        )
    if sweep is not None and not (Path(runs) / sweep).is_dir():
        raise InputError(f"no runs of a sweep '{sweep}' in {runs}{nearest(sweep, sweeps(runs))}")
    return run_directories(Path(runs), sweep)


def sweeps(runs: Path | str = "runs") -> list[str]:
    """Names of the sweeps that have runs, the most recently worked on first."""
    newest: dict[Path, float] = {}
    for directory in run_directories(Path(runs)):
        folder = directory.path.parent  # which a launch changes that is queued, and has written nothing else yet
        for file in (folder, directory.spec_file, directory.log_file, directory.result_file):
            with contextlib.suppress(FileNotFoundError):
                newest[folder] = max(newest.get(folder, 0.0), file.stat().st_mtime)
    return [folder.name for folder in sorted(newest, key=lambda folder: -newest[folder])]


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
    """Write a table to its place in one piece. Raises InputError for a place that none can be written to."""
    try:
        write_atomically(file, lambda temporary: table.to_csv(temporary, index=False))
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from None
