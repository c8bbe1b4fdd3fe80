"""Results from elsewhere → rows of our table: clip-benchmark, open_clip, big_vision, plain CSV (docs/tables.md).

Each file is read for itself: one that cannot be is a problem in the answer, and the others are imported. What no file
says and a figure needs, the loss and the batch size, has to be given; nothing is guessed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import results
from repro.config.errors import InputError, nearest
from repro.results.importers import big_vision, clip_benchmark, csv_table, formats, names, open_clip
from repro.results.importers.row import OURS, Row, check_column, is_missing, listed, parsed, slug
from repro.results.importers.units import UNITS, in_shares
from repro.results.sources import NEEDED, ORIGIN, PAPER

if TYPE_CHECKING:
    import pandas as pd

SCALE, SETUP = "imported", "unknown"
"""Of rows that do not say theirs."""
EXAMPLES = {"loss": "loss=sigmoid", "batch_size": "batch_size=32k"}


@dataclass(frozen=True)
class Imported:
    """What was read: a table in our shape, what a reader should know of it, and the files that could not be read."""

    name: str
    table: "pd.DataFrame"
    notes: list[str]
    problems: list[str]


@dataclass(frozen=True)
class Written:
    """Rows of the written table by what became of them."""

    file: Path
    added: int
    replaced: int
    unchanged: int
    from_before: int
    left: list[str]
    """Of those from before, the runs that came from the same files: their rows have other ids since."""


def read(
    files: Sequence[Path],
    form: str | None = None,
    name: str | None = None,
    mapping: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    units: str | None = None,
) -> Imported:
    """Rows of all files and folders.

    form: of formats.FORMATS; told from each file where None. name: whose results these are; by the first file's name
    where None. mapping: our column → a CSV's. values: columns of all rows, whatever the files say. units: UNITS.
    Raises InputError for what concerns the whole import, and where no file at all can be read.
    """
    import pandas as pd

    mapping, values = dict(mapping or {}), _checked(values or {})
    csv_table.check_mapping(mapping)
    if units is not None and units not in UNITS:
        raise InputError(f"--units {units}: unknown{nearest(units, UNITS)}")
    found: list[tuple[str, Path]] = []
    notes, problems = [], []
    for path in files:
        try:
            found += formats.units(path, form)
        except InputError as error:
            if form is not None and form not in formats.FORMATS:
                raise
            problems.append(str(error))
    name = _checked_name(name or _name_of(files, found))
    rows: list[Row] = []
    evaluations: list[Row] = []
    for kind, path in dict.fromkeys(found):
        try:
            read_rows, told = _read(kind, path, mapping, values)
            read_rows, converted = in_shares(read_rows, str(path), units)
        except InputError as error:
            problems.append(str(error))
            continue
        (evaluations if kind == "clip-benchmark" else rows).extend(read_rows)
        notes += [*told, *converted]
    together, disagreeing = clip_benchmark.merged(evaluations)
    complete, lacking, changed = _with_values([*rows, *together], values)
    problems += [*disagreeing, *lacking]
    if not complete:
        raise InputError("\n".join(problems))
    table = pd.DataFrame(_named(complete, name, notes := [*notes, *changed]))
    return Imported(name, _ordered(table), notes, problems)


def write(imported: Imported, file: Path) -> Written:
    """Put the rows into the file: they replace those of the same run_id, and others stay. Raises InputError.

    An evaluation of the same model on another data set adds its metrics to the row that is there.
    """
    import pandas as pd

    from repro.results import sources

    before: dict[str, dict[str, Any]] = {}
    if file.is_file():
        old = sources.load(str(file))
        foreign = old[old[ORIGIN] != imported.name] if ORIGIN in old else old
        if len(foreign):
            raise InputError(
                f"{file}: holds rows that are not of the import '{imported.name}', such as "
                f"{foreign['run_id'].iloc[0] if 'run_id' in foreign else 'its first'}; expected another --out or --name"
            )
        before = {row["run_id"]: row for row in old.to_dict("records")}
    after, counts = dict(before), {"added": 0, "replaced": 0, "unchanged": 0}
    for row in imported.table.to_dict("records"):
        known = before.get(row["run_id"])
        after[row["run_id"]] = merged = _merged(known, row) if known else row
        same = known is not None and _said(known) == _said(merged)
        counts["added" if known is None else "unchanged" if same else "replaced"] += 1
    table = _ordered(pd.DataFrame(list(after.values())))
    try:
        results.write_csv(table, file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}") from None
    new = set(imported.table["run_id"])
    stay = [row for run_id, row in before.items() if run_id not in new]
    left = [row["run_id"] for row in stay if row.get("source_file") in set(imported.table["source_file"])]
    return Written(file, **counts, from_before=len(stay), left=left)


def parse_values(pairs: Iterable[str], option: str) -> dict[str, str]:
    """'key=value' of --set and --map. Raises InputError."""
    found: dict[str, str] = {}
    for text in pairs:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            example = "batch_size=32k" if option == "--set" else "imagenet1k/acc1=top1"
            raise InputError(f"{option} '{text}': expected key=value, such as {option} {example}")
        if key in found:
            raise InputError(f"{option} {key}: given twice, as {found[key]} and {value}")
        found[key] = value
    return found


def _read(kind: str, path: Path, mapping: Mapping[str, str], values: Mapping[str, Any]) -> tuple[list[Row], list[str]]:
    if kind == "open_clip":
        return open_clip.read(path)
    if kind == "big_vision":
        return big_vision.read(path)
    return (clip_benchmark.read(path) if kind == "clip-benchmark" else csv_table.read(path, mapping, values)), []


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    for key in values:
        check_column(key, "--set")
    return {key: parsed(key, value, "--set") for key, value in values.items()}


def _checked_name(name: str) -> str:
    if slug(name) != name or name.startswith("."):
        raise InputError(
            f"--name {name}: expected letters, digits and . _ -, such as {slug(name).strip('.') or 'mine'}"
        )
    if name == PAPER:
        raise InputError(f"--name {name}: is the name of the paper's own numbers; expected another")
    return name


def _name_of(files: Sequence[Path], found: Sequence[tuple[str, Path]]) -> str:
    """The first file's name, or its folder's where the file's says little: a log, one evaluation of many."""
    first = files[0]
    if first.is_file() and found:
        kind, path = found[0]
        if kind == "open_clip":
            first = path
        elif kind == "big_vision" or (first.suffix == ".json" and len(found) > 1):
            first = first.resolve().parent
    name = first.resolve().name if first.is_dir() else first.stem
    return slug(name).strip(".") or "unnamed"


def _with_values(rows: Sequence[Row], values: Mapping[str, Any]) -> tuple[list[Row], list[str], list[str]]:
    """Rows with the given values; those that still lack what a figure needs as problems; and what was overruled."""
    complete, lacking, overruled = [], {}, {}
    for row in rows:
        for key, value in values.items():
            if not is_missing(said := row.values.get(key)) and said != value and (key, said) != ("setup", "released"):
                overruled.setdefault((key, str(said), str(value)), []).append(row.where)
        row = replace(row, values={**row.values, **values})
        if missing := tuple(key for key in NEEDED if is_missing(row.values.get(key))):
            lacking.setdefault(missing, []).append(row)
        else:
            complete.append(row)
    problems = [
        f"{listed([row.where for row in those])}: {' and '.join(missing)} not said; give "
        f"{'them' if len(missing) > 1 else 'it'} with --set {' '.join(EXAMPLES[key] for key in missing)} (for all rows)"
        for missing, those in lacking.items()
    ]
    notes = [f"{listed(those)}: {key} {old} → {new} (--set)" for (key, old, new), those in overruled.items()]
    return complete, problems, notes


def _named(rows: Sequence[Row], name: str, notes: list[str]) -> list[dict[str, Any]]:
    """Rows with an id each. Seeds that are not said are numbered where rows are alike otherwise."""
    alike: dict[tuple[str, ...], int] = {}
    counted, named = set(), []
    for row in rows:
        number = alike[row.identity] = alike.get(row.identity, -1) + 1
        values = {"setup": SETUP, "scale": SCALE, "status": "finished", "reason": ""}
        values |= {key: value for key, value in row.values.items() if not is_missing(value)}
        if "seed" not in values:
            values["seed"] = number
            counted |= {row.where} if number else set()
        run_id = "-".join([name, *row.identity, *([str(number + 1)] if number else [])])
        named.append({"run_id": run_id, "sweep": name, ORIGIN: name, **values})
    if counted:
        notes.append(f"{listed(sorted(counted))}: no seed is said; rows that are alike are numbered in their order")
    return named


def _ordered(table: "pd.DataFrame") -> "pd.DataFrame":
    metrics = sorted(column for column in table.columns if names.is_metric(column))
    first = [*results.FIRST_COLUMNS, ORIGIN, "source_file"]
    ours = [column for column in OURS if column in table and column not in first]
    others = [column for column in table.columns if column not in (*first, *ours, *metrics)]
    return table.reindex(columns=[*first, *ours, *others, *metrics])


def _merged(known: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The new row; where it is of other files than the known one, on top of what those said."""
    sources = [str(each.get("source_file", "")).split("; ") for each in (known, row)]
    if set(sources[0]) <= set(sources[1]):
        return dict(row)
    both = {**known, **{key: value for key, value in row.items() if not is_missing(value)}}
    return both | {"source_file": "; ".join(dict.fromkeys([*sources[0], *sources[1]]))}


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    """A row's cells as a file holds them, to compare."""
    cells = {key: value for key, value in row.items() if not is_missing(value) and value != ""}
    return {key: f"{float(v):.15g}" if isinstance(v, int | float) else str(v) for key, v in cells.items()}
