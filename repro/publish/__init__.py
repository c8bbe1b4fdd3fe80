"""results/ as a folder to publish: tables as CSV, Markdown and LaTeX, how to cite them, and a data card.

What is written is a function of the tables alone, so that publishing twice changes nothing. Files of others in the
folder are left alone: a file in the place of one of ours that carries no mark of ours is refused.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro import results
from repro.config.errors import InputError, nearest
from repro.config.files import write_text
from repro.publish.changes import Change, compare

if TYPE_CHECKING:
    import pandas as pd

MARK = "written by repro publish"
ALL = "all"
"""The table of the runs of all sweeps, all.csv."""
KINDS = ("-evaluations", "-curves")
RUNS, RESULTS = Path("runs"), Path("results")


@dataclass(frozen=True)
class Publication:
    """A folder to publish: every file's text, by its name below the folder, and what of it would change."""

    folder: Path
    files: dict[str, str]
    changes: list[Change]
    sources: list[str]
    """Which tables were rebuilt, and which are as they were."""
    notes: list[str]

    @property
    def changed(self) -> list[Change]:
        return [change for change in self.changes if change.what != "unchanged"]


def prepare(folder: Path, runs: Path, sweeps: Sequence[str] = ()) -> Publication:
    """What publishing would write: tables of runs/ where it has the sweep, and those already in the folder.

    sweeps: whose tables are rebuilt from their runs; all that have any by default. Raises InputError.
    """
    from repro.publish import card

    texts, sources = _tables(folder, runs, sweeps)
    tables = {name: _read(text, folder / f"{name}.csv") for name, text in texts.items()}
    runs_tables = {name: table for name, table in tables.items() if _is_runs(name, table)}
    files = {f"{name}.csv": text for name, text in texts.items()}
    if runs_tables:
        tables[ALL] = _together(runs_tables, texts)
        files[f"{ALL}.csv"] = _csv(tables[ALL])
    files |= _readable(tables, runs_tables)
    files["citation.bib"] = card.bibtex(runs_tables, MARK)
    files["README.md"] = card.render(tables, runs_tables, MARK)
    changes = [compare(name, _existing(folder / name), text) for name, text in sorted(files.items())]
    return Publication(folder, files, changes, sources, card.cautions({n: t for n, t in tables.items() if n != ALL}))


def write(publication: Publication) -> None:
    """Write what changes, each file in one piece. Raises InputError."""
    for change in publication.changed:
        file = publication.folder / change.file
        try:
            write_text(file, publication.files[change.file])
        except OSError as error:
            raise InputError(f"{file}: cannot be written: {error.strerror}") from None


def _tables(folder: Path, runs: Path, sweeps: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """CSV texts by name: those of sweeps with runs rebuilt, others as they are in the folder; and which is which."""
    if not runs.is_dir() and runs != RUNS:
        raise InputError(
            f"--runs {runs}: no such folder; expected the folder of all runs, or none for tables as they are"
        )
    with_runs = results.sweeps(runs)
    found, source = _in_folder(folder), folder
    if not found and not with_runs and folder != RESULTS:
        found, source = _in_folder(RESULTS), RESULTS
    known = {*with_runs, *(name for name in found if not name.endswith(KINDS))}
    for name in sweeps:
        if name not in known:
            raise InputError(f"no runs of a sweep '{name}' in {runs}, no table of it in {folder}{nearest(name, known)}")
    anew = sorted(name for name in with_runs if not sweeps or name in sweeps)
    for name in anew:
        for kind in KINDS:
            found.pop(name + kind, None)
    as_they_are = sorted(found.keys() - set(anew))
    for name in anew:
        found |= {name + kind: _csv(table) for kind, table in results.tables_of(runs, name).items()}
    if not found:
        raise InputError(
            f"nothing to publish: no runs in {runs}, and no tables in {folder}; make some with: repro sweep batch-size "
            "--loss sigmoid softmax"
        )
    sources = [f"rebuilt from {runs}: {', '.join(anew)}"] if anew else []
    sources += [f"as they are in {source}: {', '.join(as_they_are)}"] if as_they_are else []
    return dict(sorted(found.items())), sources


def _in_folder(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    return {file.stem: text for file in files if file.stem != ALL and (text := _existing(file)) is not None}


def _existing(file: Path) -> str | None:
    """The file's text. Raises InputError for a file of somebody else in the place of one of ours."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    if file.suffix != ".csv" and MARK not in text:
        raise InputError(
            f"{file}: was not written by this command, and is left as it is; move it, or name another --out"
        )
    return text


def _read(text: str, file: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(io.StringIO(text), low_memory=False)
    except ValueError as error:
        raise InputError(f"{file}: cannot be read as a CSV table: {error}") from None


def _is_runs(name: str, table: "pd.DataFrame") -> bool:
    return not name.endswith(KINDS) and set(results.FIRST_COLUMNS) <= set(table.columns)


def _together(tables: "Mapping[str, pd.DataFrame]", texts: Mapping[str, str]) -> "pd.DataFrame":
    """The runs of all sweeps, cells as they stand in the tables."""
    import pandas as pd

    parts = [pd.read_csv(io.StringIO(texts[name]), dtype=str, keep_default_na=False) for name in tables]
    columns = list(dict.fromkeys(column for part in parts for column in part.columns))
    metrics = sorted(column for column in columns if "/" in column)
    others = [column for column in columns if column not in metrics]
    return pd.concat(parts, ignore_index=True).reindex(columns=[*others, *metrics]).fillna("")


def _readable(tables: "Mapping[str, pd.DataFrame]", runs: "Mapping[str, pd.DataFrame]") -> dict[str, str]:
    """tables/<name>.md and .tex of each sweep and each measurement."""
    from repro.publish import card, latex
    from repro.publish import tables as summaries

    files = {}
    for name, table in tables.items():
        if name == ALL or name.endswith(KINDS):
            continue
        shown = summaries.summary(table) if name in runs else summaries.measurement(table)
        if shown.empty:
            continue
        title = card.title(name)
        caption = f"{title}. {card.caption(table)}" if name in runs else f"{title}."
        heads, rows = list(shown.columns), [list(map(str, row)) for row in shown.itertuples(index=False)]
        files[f"tables/{name}.tex"] = latex.table(
            heads, rows, caption, f"tab:{re.sub(r'[^A-Za-z0-9-]', '-', name)}", MARK
        )
        files[f"tables/{name}.md"] = f"<!-- {MARK} -->\n{caption}\n\n{card.markdown(shown)}"
    return files


def _csv(table: "pd.DataFrame") -> str:
    return table.to_csv(index=False, lineterminator="\n")
