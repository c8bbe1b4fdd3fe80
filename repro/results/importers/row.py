"""A row of somebody else's results on its way into our table, and the values of our columns as people write them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.config.errors import InputError, nearest
from repro.config.setups import SETUPS
from repro.config.spec import SCALES, RunSpec
from repro.config.units import parse_batch_size, parse_examples
from repro.loss.registry import LOSSES
from repro.results import FIRST_COLUMNS

RESERVED = ("run_id", "sweep", "origin", "source_file")
"""Columns that an import writes itself."""
MEASURED = (
    *("final_loss", "steps", "ranks", "git_commit", "machine", "gpu", "host", "finished_at"),
    *("repro_version", "torch_version", "open_clip_torch_version", "clip_benchmark_version", "python_version"),
)
OURS = tuple(name for name in dict.fromkeys((*FIRST_COLUMNS, *RunSpec.model_fields, *MEASURED)) if name not in RESERVED)
"""Columns of our table that somebody else's may fill, metrics aside."""
COUNTS = {"batch_size": parse_batch_size, "micro_batch": parse_batch_size}
COUNTS |= {"examples_seen": parse_examples, "warmup_examples": parse_examples}
WHOLE = ("seed", "steps", "ranks")
NUMBERS = (
    *("examples_per_second", "step_seconds", "peak_memory_bytes", "final_logit_scale", "final_logit_bias"),
    *("final_loss", "learning_rate", "weight_decay", "beta1", "beta2", "epsilon", "init_logit_scale"),
    *("init_logit_bias", "grad_clip"),
)
NAMES_OF_LOSSES = {name: kind.name for kind in LOSSES.values() for name in (kind.name, *kind.other_names)}
"""Other names of the two losses; any other loss keeps its own."""
CHOICES = {"setup": (*SETUPS, "unknown"), "scale": (*SCALES, "imported")}
MISSING = ("", "-", "–", "—", "n/a", "na", "nan", "none", "null")


class Said(float):
    """A share of a cell that says its unit itself, as '73.1%' does."""


@dataclass(frozen=True)
class Row:
    """One run of somebody else's.

    values: our columns, <dataset>/<metric> for what goes from 0 to 1, and what is kept under a name of its own.
    where: what messages call it, such as 'bench.csv, row 3'; identity: what tells it from others of the import.
    """

    values: dict[str, Any]
    where: str
    identity: tuple[str, ...] = ()
    theirs: dict[str, str] = field(default_factory=dict)
    """Our column → what the file calls it, where that is something else."""


def slug(text: Any) -> str:
    """As a part of a run's id: letters, digits and . _ - only."""
    return "-".join("".join(c if c.isalnum() or c in "._-" else " " for c in str(text)).split())


def check_column(name: str, option: str) -> None:
    """Raises InputError for a name that is no column of ours to fill, with the nearest."""
    if name in RESERVED:
        raise InputError(f"{option} {name}: the import writes this column itself; its rows go by --name")
    if name not in OURS:
        raise InputError(f"{option} {name}: no column of a results table{nearest(name, OURS)}")


def parsed(column: str, value: Any, where: str) -> Any:
    """A cell of one of our columns. None where it is missing. Raises InputError naming where, column and value."""
    if is_missing(value):
        return None
    text = str(value).strip()
    try:
        if column in COUNTS:
            number = as_number(value)  # a table's 32768.0 is 32k all the same
            count = COUNTS[column](int(number) if number is not None and number == int(number) else text)
            if count < (1 if "batch" in column else 0):
                raise ValueError("expected a positive number")
            return count
        if column in WHOLE:
            return _whole(text)
        if column in NUMBERS:
            return float(text)
    except (ValueError, OverflowError) as error:
        said = str(error) if isinstance(error, InputError) else f"'{text}' is not {_expected(column)}"
        raise InputError(f"{where}: {column}: {said}") from None
    if column in CHOICES and text not in CHOICES[column]:
        raise InputError(f"{where}: {column} '{text}' is unknown{nearest(text, CHOICES[column])}")
    return _loss(text, where) if column == "loss" else (text if isinstance(value, str) else value)


def is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def as_number(value: Any) -> float | None:
    """A finite number, or None for what is no number."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def kept(name: str, prefix: str) -> str:
    """The column of a value that is none of ours: without '/', which only metrics have, and under no name of ours."""
    own = f"{prefix}_{name}" if prefix else name
    own = own.replace("/", "_")
    return f"imported_{own}" if own in OURS or own in RESERVED else own


def read_text(file: Path) -> str:
    """Raises InputError that names the file: not there, not readable, not text, or empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = [path.name for path in file.parent.glob("*")] if file.parent.is_dir() else []
        raise InputError(f"{file}: no such file{nearest(file.name, beside) if beside else ''}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file") from None
    if not text.strip():
        raise InputError(f"{file}: an empty file")
    return text


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file of keys and values. Raises InputError."""
    try:
        values = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected keys and values, found {type(values).__name__}")
    return values


def read_lines(file: Path) -> list[dict[str, Any]]:
    """A file with one JSON object a line; a last line that was cut off is left out. Raises InputError with the line."""
    lines = read_text(file).splitlines()
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines) and found:
                break
            raise InputError(f"{file}, line {number}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{file}, line {number}: expected keys and values, found {type(values).__name__}")
        found.append(values)
    return found


def listed(names: Sequence[str], most: int = 3) -> str:
    """'a, b, c and 4 more', for messages."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _whole(text: str) -> int:
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


def _expected(column: str) -> str:
    return "a whole number" if column in (*COUNTS, *WHOLE) else "a number"


def _loss(text: str, where: str) -> str:
    """Sigmoid or softmax by any of their names; others as they are, but for what is nearly one of the two."""
    known = NAMES_OF_LOSSES
    name = text.lower()
    if name in known:
        return known[name]
    if as_number(text) is not None:
        raise InputError(
            f"{where}: loss '{text}' is a number, not which loss it is; expected sigmoid or softmax. A training loss: "
            "--map final_loss=THEIRS, and --set loss=sigmoid"
        )
    if "the nearest" in (near := nearest(name, known)):
        raise InputError(f"{where}: loss '{text}' is unknown{near}")
    return text
