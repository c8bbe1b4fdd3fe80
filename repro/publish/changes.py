"""What would change in a folder to publish: files by name, tables by run and column."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

KEYS = ("run_id", "examples_seen_at")
"""Columns that say which row a row is."""
SHOWN = 5
"""Of added, removed and changed rows each, and of a row's changed columns."""


@dataclass(frozen=True)
class Change:
    """One file. rows: ids added, removed, and changed with {column: (old, new)}; None where it is no table of runs."""

    file: str
    what: str
    """new, updated or unchanged."""
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    columns_added: list[str] = field(default_factory=list)
    columns_removed: list[str] = field(default_factory=list)

    def lines(self, rows: bool = True) -> Iterator[str]:
        """The change for a reader: one line for the file, and a few rows of each kind."""
        counts = {"added": len(self.added), "removed": len(self.removed), "changed": len(self.changed)}
        told = [f"{count:,} {'row' if count == 1 else 'rows'} {what}" for what, count in counts.items() if count]
        told += [f"columns added: {_few(self.columns_added)}"] if self.columns_added else []
        told += [f"columns removed: {_few(self.columns_removed)}"] if self.columns_removed else []
        yield f"{self.what:<9} {self.file}" + (f": {', '.join(told)}" if told else "")
        if not rows:
            return
        for sign, found in (("+", self.added), ("-", self.removed)):
            yield from (f"  {sign} {row}" for row in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"  {sign} … and {len(found) - SHOWN:,} more"
        for row, columns in list(self.changed.items())[:SHOWN]:
            first = sorted(columns, key=lambda column: (column not in ("status", "reason"), "/" not in column))
            pairs = [f"{c} {columns[c][0] or 'empty'} → {columns[c][1] or 'empty'}" for c in first]
            yield f"  ~ {row}: {_few(pairs)}"
        if len(self.changed) > SHOWN:
            yield f"  ~ … and {len(self.changed) - SHOWN:,} more"


def told(changes: Sequence[Change], repeated: str = "all.csv") -> Iterator[str]:
    """All changes for a reader: tables with their rows, other files together. repeated: whose rows stand elsewhere."""
    for change in changes:
        if change.file.endswith(".csv"):
            yield from change.lines(rows=change.file != repeated)
    for what in ("new", "updated"):
        others = [change.file for change in changes if change.what == what and not change.file.endswith(".csv")]
        folders = dict.fromkeys(name.rpartition("/")[0] for name in others)
        for folder in folders:
            names = [name for name in others if name.rpartition("/")[0] == folder]
            yield f"{what:<9} {f'{folder}/: {len(names)} files' if folder and len(names) > 2 else ', '.join(names)}"


def compare(file: str, old: str | None, new: str) -> Change:
    """old, new: the file's texts; None where it is not there."""
    if old is None:
        return Change(file, "new")
    if old == new:
        return Change(file, "unchanged")
    before, after = (_rows(text) if file.endswith(".csv") else None for text in (old, new))
    if before is None or after is None:
        return Change(file, "updated")
    columns = [list(next(iter(rows.values()), {})) for rows in (before, after)]
    shared = [column for column in columns[1] if column in columns[0]]
    changed = {}
    for key in (key for key in after if key in before):
        differing = {c: (before[key][c], after[key][c]) for c in shared if before[key][c] != after[key][c]}
        if differing:
            changed[key] = differing
    return Change(
        file,
        "updated",
        added=[key for key in after if key not in before],
        removed=[key for key in before if key not in after],
        changed=changed,
        columns_added=[column for column in columns[1] if column not in columns[0]] if before else [],
        columns_removed=[column for column in columns[0] if column not in columns[1]] if after else [],
    )


def _rows(text: str) -> dict[str, Mapping[str, str]] | None:
    """Rows by what they are of, as their cells stand in the file; None for a table of anything but runs."""
    reader = csv.DictReader(io.StringIO(text))
    if KEYS[0] not in (reader.fieldnames or ()):
        return None
    found: dict[str, Mapping[str, str]] = {}
    for row in reader:
        key = " at ".join(row[name] for name in KEYS if row.get(name))
        number = 2
        while key in found:  # a table that holds a run twice
            key, number = f"{key.partition(' (')[0]} ({number})", number + 1
        found[key] = {column: cell or "" for column, cell in row.items() if column is not None}
    return found


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
