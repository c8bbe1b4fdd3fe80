"""A plain CSV: one row a run, columns by our names or by --map."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.config.errors import InputError, nearest
from repro.results.importers import names
from repro.results.importers.row import (
    OURS,
    Row,
    Said,
    as_number,
    check_column,
    is_missing,
    kept,
    parsed,
    read_text,
    slug,
)
from repro.results.sources import LONG

TOLD = ("model", "pretrained", "loss", "batch_size", "examples_seen", "learning_rate", "seed")
"""What a row's id is made of, where the file has no run_id."""


def read_cells(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns, and each row's number (the first below the header is 1) and cells. Commas, semicolons or tabs between.

    Raises InputError for a row that has more or fewer cells than the header.
    """
    text = read_text(file)
    header = text.lstrip().splitlines()[0]
    between = max(",;\t", key=header.count)
    try:
        lines = [
            line for line in csv.reader(io.StringIO(text), delimiter=between, strict=True) if any(map(str.strip, line))
        ]
    except csv.Error as error:
        raise InputError(f"{file}: cannot be read as a CSV table: {error}") from None
    columns = [name.strip() or "unnamed" for name in lines[0]]  # a table's index, as pandas writes it
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise InputError(f"{file}: two columns are called '{twice[0]}'")
    rows = []
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(columns):
            raise InputError(f"{file}, row {number}: {len(line)} cells under {len(columns)} columns")
        rows.append((number, dict(zip(columns, map(str.strip, line), strict=True))))
    if not rows:
        raise InputError(f"{file}: no rows under its header")
    return columns, rows


def read(file: Path, mapping: Mapping[str, str] | None = None, given: Mapping[str, Any] | None = None) -> list[Row]:
    """mapping: our column → theirs; given: what --set says of all rows, which tells them from another file's.

    Columns that are neither mapped nor ours are kept. Raises InputError.
    """
    columns, lines = read_cells(file)
    if set(LONG) <= set(columns):
        raise InputError(f"{file}: is in the paper's form, one number a row, which needs no import: name it as it is")
    own = _own_names(columns, mapping or {}, file)
    if not any(names.is_metric(name) for name in own.values()):
        raise InputError(
            f"{file}: no column is a metric; expected one named like imagenet1k/acc1, or --map imagenet1k/acc1=THEIRS "
            f"with one of its columns: {', '.join(columns[:12])}"
        )
    rows = [_row(line, own, f"{file.name}, row {number}", file.name) for number, line in lines]
    return [row if row.identity else replace(row, identity=_identity({**row.values, **(given or {})})) for row in rows]


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raises InputError for a name on our side that is neither a column nor a metric."""
    for name in mapping:
        if "/" in name and not names.is_metric(name):
            raise InputError(
                f"--map {name}: no metric from 0 to 1; expected <dataset>/<metric> such as imagenet1k/acc1 or "
                "mscoco_captions/image_retrieval_recall@5"
            )
        if "/" not in name and name != "run_id":
            check_column(name, "--map")


def metric(value: Any, where: str) -> float | None:
    """A cell of a metric: a number, or '73.1%', which is 0.731 whatever the column's unit. Raises InputError."""
    if is_missing(value):
        return None
    text = str(value).strip()
    number = as_number(text.removesuffix("%"))
    if text.endswith("%") and number is not None:
        if not 0 <= number <= 100:
            raise InputError(f"{where} is {text}; expected 0 % to 100 %")
        return Said(f"{number / 100:.15g}")
    if number is None:
        hint = "; expected a point before the decimals" if as_number(text.replace(",", ".")) is not None else ""
        raise InputError(f"{where} is '{text}', which is no number{hint}")
    return number


def _own_names(columns: Sequence[str], mapping: Mapping[str, str], file: Path) -> dict[str, str]:
    """Their column → ours."""
    for name, theirs in mapping.items():
        if theirs not in columns:
            raise InputError(f"{file}: --map {name}={theirs}: no column '{theirs}'{nearest(theirs, columns)}")
    mapped: dict[str, str] = {}
    for name, theirs in mapping.items():
        if theirs in mapped:
            raise InputError(f"{file}: --map: column '{theirs}' is mapped to both {mapped[theirs]} and {name}")
        mapped[theirs] = name
    own = {}
    for column in columns:
        if column in mapped:
            own[column] = mapped[column]
        elif column in mapping:  # one of our names, which another column was given
            own[column] = kept(column, "imported")
        elif column in OURS or column == "run_id" or names.is_metric(column):
            own[column] = column
        else:
            own[column] = kept(column, "")
    return own


def _row(line: Mapping[str, str], own: Mapping[str, str], where: str, source: str) -> Row:
    values: dict[str, Any] = {}
    for theirs, name in own.items():
        if names.is_metric(name):
            called = name if theirs == name else f"{name} (column '{theirs}')"
            values[name] = metric(line[theirs], f"{where}: {called}")
        elif name in OURS:
            values[name] = parsed(name, line[theirs], where)
        elif name != "run_id":
            number = as_number(line[theirs])
            values[name] = None if is_missing(line[theirs]) else line[theirs] if number is None else number
    given = next((line[theirs] for theirs, name in own.items() if name == "run_id" and line[theirs]), None)
    identity = (slug(given),) if given else ()
    return Row({**values, "source_file": source}, where, identity, {name: theirs for theirs, name in own.items()})


def _identity(values: Mapping[str, Any]) -> tuple[str, ...]:
    told = {name: values[name] for name in TOLD if values.get(name) not in (None, "")}
    words = {"batch_size": "bs", "seed": "s", "learning_rate": "lr"}
    return tuple(f"{words.get(name, '')}{slug(f'{v:g}' if isinstance(v, float) else v)}" for name, v in told.items())
