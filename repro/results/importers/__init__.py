"""Results from elsewhere → rows of our table: clip-benchmark, open_clip, big_vision, plain CSV (docs/tables.md).

Each file is read for itself: one that cannot be is a problem in the answer, and the others are imported. What no file
says and a figure needs, the loss and the batch size, has to be given; nothing is guessed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from repro import results
from repro.config.errors import InputError, nearest
from repro.config.files import CorruptRun
from repro.results import tables
from repro.results.importers import big_vision, metric_files, open_clip
from repro.results.importers.cells import (
    OURS,
    UNITS,
    Row,
    check_column,
    in_shares,
    is_metric,
    is_missing,
    listed,
    parsed,
    read_text,
    slug,
)

FORMATS = ("clip-benchmark", "open_clip", "big_vision", "csv")
EXPECTED = (
    "clip-benchmark's JSON or CSV, a log folder of open_clip (params.txt, checkpoints/results.jsonl), big_vision's "
    "big_vision_metrics.txt, or a CSV with a column a metric"
)
TABLES = (".csv", ".tsv")
NOT_SAID = {"setup": "unknown", "scale": "imported", "status": "finished", "reason": ""}
"""Values of rows that do not say theirs."""
EXAMPLES = {"loss": "loss=sigmoid", "batch_size": "batch_size=32k"}


@dataclass(frozen=True)
class Imported:
    """A table in our shape, notes for its reader, and the files that could not be read."""

    name: str
    table: pd.DataFrame
    notes: list[str]
    problems: list[str]


def read(
    files: Sequence[Path],
    form: str | None = None,
    name: str | None = None,
    mapping: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    units: str | None = None,
) -> Imported:
    """Rows of all files and folders.

    form: of FORMATS; told from each file where None. name: whose results these are; by the first file's name where
    None. mapping: our column → a CSV's. values: columns of all rows, whatever the files say. units: UNITS.
    Raises InputError for what concerns the whole import, and where no file at all can be read.
    """
    mapping, values = dict(mapping or {}), dict(values or {})
    for option, names in (("--set", values), ("--map", mapping)):
        for key in names:
            check_column(key, option)
    values = {key: parsed(key, value, "--set") for key, value in values.items()}
    for option, given, known in (("--units", units, UNITS), ("--format", form, FORMATS)):
        if given is not None and given not in known:
            raise InputError(f"{option} {given}: unknown{nearest(given, known)}")
    readers = {"open_clip": open_clip.read, "big_vision": big_vision.read}
    readers |= {"clip-benchmark": metric_files.read_clip_benchmark}
    readers |= {"csv": lambda path: metric_files.read_csv(path, mapping, values)}
    found: list[tuple[str, Path]] = []
    rows: list[Row] = []
    evaluated: list[Row] = []
    notes, problems = [], []
    for path in files:
        try:
            found += _sources_in(path, form)
        except InputError as error:
            problems.append(str(error))
    name = name or _name_of(files[0], found)
    if slug(name) != name or name.startswith(".") or name == tables.PAPER:
        raise InputError(f"--name {name}: expected letters, digits and . _ -, and not '{tables.PAPER}', such as mine")
    for kind, path in dict.fromkeys(found):
        try:
            read_rows, told = readers[kind](path)
            told += in_shares(read_rows, str(path), units)
        except (InputError, CorruptRun) as error:
            problems.append(str(error))
            continue
        (evaluated if kind == "clip-benchmark" else rows).extend(read_rows)
        notes += told
    together, disagreeing = metric_files.merged(evaluated)
    complete, lacking, overruled = _with_values([*rows, *together], values)
    problems += [*disagreeing, *lacking]
    if not complete:
        raise InputError("\n".join(problems))
    named, numbered = _named(complete, name)
    return Imported(name, _ordered(pd.DataFrame(named)), [*notes, *overruled, *numbered], problems)


def write(imported: Imported, file: Path) -> dict[str, int]:
    """Put the rows into the file: they replace those of the same run_id, and others stay. Raises InputError.

    An evaluation of the same model on another data set adds its metrics to the row that is there. Returns how many of
    the written rows are added, replaced, unchanged and from before.
    """
    before: dict[str, dict[str, Any]] = {}
    if file.is_file():
        old = tables.load(str(file))
        foreign = old[old[tables.ORIGIN] != imported.name] if tables.ORIGIN in old else old
        if len(foreign):
            raise InputError(
                f"{file}: holds rows that are not of the import '{imported.name}', such as "
                f"{foreign['run_id'].iloc[0] if 'run_id' in foreign else 'its first'}; expected another --out or --name"
            )
        before = {row["run_id"]: row for row in old.to_dict("records")}
    after, counts = dict(before), {"added": 0, "replaced": 0, "unchanged": 0}
    for row in imported.table.to_dict("records"):
        known = before.get(row["run_id"])
        after[row["run_id"]] = joined = _joined(known, row) if known else row
        same = known is not None and _as_written(known) == _as_written(joined)
        counts["added" if known is None else "unchanged" if same else "replaced"] += 1
    results.write_csv(_ordered(pd.DataFrame(list(after.values()))), file)
    return counts | {"from before": len(before.keys() - set(imported.table["run_id"]))}


def _sources_in(path: Path, form: str | None) -> list[tuple[str, Path]]:
    """Find the (format, file or log folder) of a path, several for a folder of several. Raises InputError."""
    if not path.exists():
        beside = [str(file) for file in path.parent.glob("*")]
        raise InputError(f"{path}: no such file or folder{nearest(str(path), beside)}")
    if path.is_file():
        return [_source(path, form)]
    found = _in_folder(path, form)
    for folder in sorted(child for child in path.iterdir() if child.is_dir()) if not found else ():
        found += _in_folder(folder, form)
    if not found:
        holds = listed(sorted(child.name for child in path.iterdir()), 5) or "nothing"
        raise InputError(f"{path}: no results in this folder, which holds {holds}; expected {EXPECTED}")
    return found


def _in_folder(folder: Path, form: str | None) -> list[tuple[str, Path]]:
    """A log folder is one source; else each metrics file, JSON or table in it is one."""
    if form in (None, "open_clip") and open_clip.is_folder(folder):
        return [("open_clip", folder)]
    found = [("big_vision", file) for file in sorted(folder.glob(big_vision.PATTERN))]
    if not found:
        found = [("clip-benchmark", file) for file in sorted(folder.glob("*.json"))]
        found += [_source(file, form) for file in sorted(folder.iterdir()) if file.suffix in TABLES]
    return [each for each in found if form in (None, each[0])]


def _source(file: Path, form: str | None) -> tuple[str, Path]:
    """A file with its format, told from what is in it; of open_clip the log folder."""
    if form == "open_clip" or (form is None and file.name in ("params.txt", "results.jsonl")):
        return "open_clip", file.parent.parent if file.parent.name == "checkpoints" else file.parent
    if form is None and file.suffix in TABLES:
        columns = set(metric_files.read_cells(file)[0])
        theirs = set(metric_files.ABOUT) <= columns and {"task", "model_fullname"} & columns
        form = "clip-benchmark" if theirs else "csv"
    elif form is None and file.suffix == ".json":
        form = "clip-benchmark"  # whose reader says what is wrong with it
    elif form is None:
        if not re.match(r'\s*\{.*"step":', read_text(file)):
            raise InputError(f"{file}: a format that is not known; expected {EXPECTED}, or --format to name it")
        form = "big_vision"
    return form, file


def _name_of(first: Path, found: Sequence[tuple[str, Path]]) -> str:
    """The first file's name, or its folder's where the file's says little: a log, one evaluation of many."""
    if first.is_file() and found:
        kind, path = found[0]
        if kind == "open_clip":
            first = path
        elif kind == "big_vision" or (first.suffix == ".json" and len(found) > 1):
            first = first.resolve().parent
    return slug(first.resolve().name if first.is_dir() else first.stem).strip(".") or "unnamed"


def _with_values(rows: Sequence[Row], values: Mapping[str, Any]) -> tuple[list[Row], list[str], list[str]]:
    """Rows with the given values; those that still lack what a figure needs as problems; and what was overruled."""
    complete, lacking, overruled = [], {}, {}
    for row in rows:
        for key, value in values.items():
            if not is_missing(said := row.values.get(key)) and said != value and (key, said) != ("setup", "released"):
                overruled.setdefault(f"{key} {said} → {value}", []).append(row.where)
        row.values.update(values)
        if missing := tuple(key for key in tables.NEEDED if is_missing(row.values.get(key))):
            lacking.setdefault(missing, []).append(row.where)
        else:
            complete.append(row)
    problems = [
        f"{listed(those)}: {' and '.join(missing)} not said; give {'them' if len(missing) > 1 else 'it'} with --set "
        f"{' '.join(EXAMPLES[key] for key in missing)} (for all rows)"
        for missing, those in lacking.items()
    ]
    return complete, problems, [f"{listed(those)}: {change} (--set)" for change, those in overruled.items()]


def _named(rows: Sequence[Row], name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows with an id each. Seeds that are not said are numbered where rows are alike otherwise, which is noted."""
    alike: dict[tuple[str, ...], int] = {}
    numbered, named = set(), []
    for row in rows:
        number = alike[row.identity] = alike.get(row.identity, -1) + 1
        values = NOT_SAID | {key: value for key, value in row.values.items() if not is_missing(value)}
        if number and "seed" not in values:
            numbered.add(row.where)
        run_id = "-".join([name, *row.identity, *([str(number + 1)] if number else [])])
        named.append({"run_id": run_id, "sweep": name, tables.ORIGIN: name, "seed": number} | values)
    note = f"{listed(sorted(numbered))}: no seed is said; rows that are alike are numbered in their order"
    return named, [note] if numbered else []


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    metrics = sorted(column for column in table.columns if is_metric(column))
    first = [*results.FIRST_COLUMNS, tables.ORIGIN, "source_file"]
    ours = [column for column in OURS if column in table and column not in first]
    others = [column for column in table.columns if column not in (*first, *ours, *metrics)]
    return table.reindex(columns=[*first, *ours, *others, *metrics])


def _joined(known: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The new row; where it is of other files than the known one, on top of what those said."""
    old, new = (str(each.get("source_file", "")).split("; ") for each in (known, row))
    said = {key: value for key, value in row.items() if not is_missing(value)}
    return dict(row) if set(old) <= set(new) else {**known, **said, "source_file": "; ".join(dict.fromkeys(old + new))}


def _as_written(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's cells as a file holds them, to compare."""
    cells = {key: value for key, value in row.items() if not is_missing(value) and value != ""}
    return {key: f"{float(v):.15g}" if isinstance(v, int | float) else str(v) for key, v in cells.items()}
