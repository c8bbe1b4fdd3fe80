"""Percent or from 0 to 1? Told from the values of each column, and never guessed: 0.731 and 73.1 are the same accuracy.

A column whose values are all at most 1 is read as it is, one whose values are all above 1 is percent. What has both, or
says percent and looks otherwise, is refused with both readings; --units decides.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from repro.config.errors import InputError
from repro.results.importers.names import is_metric
from repro.results.importers.row import Row, Said, listed

UNITS = ("share", "percent")
_SAYS_PERCENT = re.compile(r"percent|pct|%")


def in_shares(rows: Sequence[Row], file: str, units: str | None = None) -> tuple[list[Row], list[str]]:
    """The rows of one file with all metrics from 0 to 1, and what a reader should know of it. Raises InputError."""
    columns = list(dict.fromkeys(column for row in rows for column in row.values if is_metric(column)))
    percent, shares = [], []
    for column in columns:
        (percent if _is_percent(column, rows, units) else shares).append(column)
    if not percent:
        return list(rows), []
    converted = [
        replace(row, values={c: _divided(v) if c in percent else v for c, v in row.values.items()}) for row in rows
    ]
    low, high = _range(rows, percent)
    notes = [f"{file}: {listed(percent)} in percent ({low:g} to {high:g}): divided by 100"]
    if shares:
        low, high = _range(rows, shares)
        notes.append(
            f"{file}: {listed(shares)} from 0 to 1 ({low:g} to {high:g}): read as they are; else --units percent"
        )
    return converted, notes


def _is_percent(column: str, rows: Sequence[Row], units: str | None) -> bool:
    held = [
        (row, value) for row in rows if (value := row.values.get(column)) is not None and not isinstance(value, Said)
    ]
    for row, value in held:
        if value < 0 or value > 100:
            raise InputError(
                f"{row.where}: {_named(column, row)} is {value:g}; expected 0 to 1, or 0 to 100 in percent"
            )
    above = [(row, value) for row, value in held if value > 1]
    below = [(row, value) for row, value in held if 0 < value <= 1]
    if units == "share" and above:
        row, value = above[0]
        raise InputError(
            f"{row.where}: {_named(column, row)} is {value:g}; --units share goes to 1. Expected --units percent"
        )
    if units is not None:
        return units == "percent"
    says_percent = any(_SAYS_PERCENT.search(row.theirs.get(column, column)) for row, _ in held)
    if below and (above or says_percent):
        row, value = below[0]
        other = f"{above[0][0].where} has {above[0][1]:g}" if above else "its name says percent"
        choice = "mend the file, or --units percent" if above else "say which with --units percent or --units share"
        raise InputError(
            f"{row.where}: {_named(column, row)} is {value:g}, but {other}: it reads as {100 * value:g} % from 0 to 1, "
            f"and as {value:g} % in percent; {choice}"
        )
    return bool(above)


def _named(column: str, row: Row) -> str:
    theirs = row.theirs.get(column, column)
    return column if theirs == column else f"{column} (column '{theirs}')"


def _divided(value: float | None) -> float | None:
    """73.1 → 0.731, and not 0.7309999999999999."""
    return value if value is None or isinstance(value, Said) else float(f"{value / 100:.15g}")


def _range(rows: Sequence[Row], columns: Sequence[str]) -> tuple[float, float]:
    values = [v for row in rows for c in columns if (v := row.values.get(c)) is not None and not isinstance(v, Said)]
    return min(values, default=0.0), max(values, default=0.0)
