"""results/ as a folder to publish: tables as CSV, Markdown and LaTeX, how to cite them, and a data card; to the hub.

Files are a function of the tables alone, so that publishing twice changes nothing. Files of others in the folder are
left alone: a file in the place of one of ours that carries no mark of ours is refused.
"""

import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from repro import results
from repro.config.errors import InputError, nearest
from repro.config.files import write_text
from repro.data.network import retried
from repro.publish import card
from repro.report import markup

MARK = "written by repro publish"
NEEDS = "needs booktabs, graphicx, longtable, multirow"
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")
"""The hub's. It is the hub's own business (HF_TOKEN, or its login): a file that holds one is not sent."""
ALL = "all"
"""The table of the runs of all sweeps, all.csv."""
KINDS = ("-evaluations", "-curves")
RUNS, RESULTS = Path("runs"), Path("results")


@dataclass(frozen=True)
class Publication:
    """A folder to publish: every file's text, by its name below the folder, and the one that it replaces."""

    folder: Path
    files: dict[str, str]
    before: dict[str, str | None]
    sources: list[str]
    """Which tables were rebuilt, and which are as they were."""
    notes: list[str]

    @property
    def changed(self) -> list[str]:
        return [name for name, text in sorted(self.files.items()) if self.before[name] != text]

    def changes(self) -> Iterator[str]:
        """A line for each file that changes; git diff shows which rows."""
        for name in self.changed:
            old, new = (set((text or "").splitlines()) for text in (self.before[name], self.files[name]))
            state = "new" if self.before[name] is None else "updated"
            yield f"{state:<9} {name}: {len(new - old):,} lines added, {len(old - new):,} removed"


def prepare(folder: Path, runs: Path, sweeps: Sequence[str] = ()) -> Publication:
    """Texts that publishing would write: tables of runs/ where it has the sweep, and those already in the folder.

    sweeps: whose tables are rebuilt from their runs; all that have any by default. Raises InputError.
    """
    texts, sources = _tables(folder, runs, sweeps)
    try:
        tables = {name: pd.read_csv(io.StringIO(text), low_memory=False) for name, text in texts.items()}
    except ValueError as error:
        raise InputError(f"{folder}: a table cannot be read as CSV: {error}") from None
    first = set(results.FIRST_COLUMNS)
    of_runs = {name: t for name, t in tables.items() if not name.endswith(KINDS) and first <= set(t.columns)}
    files = {f"{name}.csv": text for name, text in texts.items()}
    notes = card.cautions(tables)
    files |= _readable(tables, of_runs)
    if of_runs:
        tables[ALL] = _together(texts[name] for name in of_runs)
        files[f"{ALL}.csv"] = _csv(tables[ALL])
    files["citation.bib"] = card.bibtex(of_runs, MARK)
    files["README.md"] = card.render(tables, of_runs, MARK)
    return Publication(folder, files, {name: _existing(folder / name) for name in files}, sources, notes)


def write(publication: Publication) -> None:
    """Write what changes, each file in one piece. Raises InputError."""
    for name in publication.changed:
        try:
            write_text(publication.folder / name, publication.files[name])
        except OSError as error:
            raise InputError(f"{publication.folder / name}: cannot be written: {error.strerror}") from None


def _tables(folder: Path, runs: Path, sweeps: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """CSV texts by name: those of sweeps with runs rebuilt, others as they are in the folder; and which is which."""
    if not runs.is_dir() and runs != RUNS:
        raise InputError(f"--runs {runs}: no such folder; expected that of all runs, or none for tables as they are")
    with_runs = results.sweeps(runs)
    source = folder if with_runs or any(folder.glob("*.csv")) else RESULTS
    files = {file.stem: _existing(file) for file in sorted(source.glob("*.csv")) if file.stem != ALL}
    known = {*with_runs, *(name for name in files if not name.endswith(KINDS))}
    for name in sweeps:
        if name not in known:
            raise InputError(f"no runs of a sweep '{name}' in {runs}, no table of it in {folder}{nearest(name, known)}")
    rebuilt = sorted(name for name in with_runs if not sweeps or name in sweeps)
    kept = {n: text for n, text in files.items() if n not in {r + kind for r in rebuilt for kind in ("", *KINDS)}}
    new = {name + kind: _csv(t) for name in rebuilt for kind, t in results.tables_of(runs, name).items()}
    if not kept | new:
        raise InputError(
            f"nothing to publish: no runs in {runs}, and no tables in {folder}; make some with: repro sweep batch-size "
            "--loss sigmoid softmax"
        )
    sources = [f"rebuilt from {runs}: {', '.join(rebuilt)}"] if rebuilt else []
    sources += [f"as they are in {source}: {', '.join(kept)}"] if kept else []
    return dict(sorted((kept | new).items())), sources


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


def _together(texts: Iterator[str]) -> pd.DataFrame:
    """The runs of all sweeps, cells as they stand in the tables."""
    parts = [pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False) for text in texts]
    table = pd.concat(parts, ignore_index=True).fillna("")
    return table[sorted(table.columns, key=lambda column: ("/" in column, column if "/" in column else ""))]


def _readable(tables: card.Tables, of_runs: card.Tables) -> dict[str, str]:
    """tables/<name>.md and .tex of each sweep and each measurement."""
    files = {}
    for name, table in tables.items():
        shown = card.summary(table) if name in of_runs else card.measurement(table)
        if name.endswith(KINDS) or shown.empty:
            continue
        caption = f"{card.title(name)}. {card.caption(table)}" if name in of_runs else f"{card.title(name)}."
        files[f"tables/{name}.md"] = f"<!-- {MARK} -->\n{caption}\n\n{markup.markdown_table(shown)}"
        files[f"tables/{name}.tex"] = f"% {MARK}; {NEEDS}\n" + markup.latex_table(shown, caption, f"tab:{name}")
    return files


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def check_name(repo: str) -> None:
    """Raises InputError for what is no name of a repository."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1 and all(repo.split("/"))
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(f"--repo {repo}: expected USER/NAME of letters, digits and . _ -, such as ada/siglip-results")


def push(repo: str, folder: Path, files: Sequence[str]) -> str:
    """Send these files of the folder to a data set repository of the Hugging Face hub, in one commit.

    Returns the commit's address. Raises InputError, whatever went wrong.
    """
    from huggingface_hub import HfApi, get_token

    if not (token := get_token()):
        raise InputError(f"--repo {repo}: no token of the hub; expected one in HF_TOKEN, or from: hf auth login")
    for content, name in ((file.read_bytes(), file) for file in map(folder.joinpath, files)):
        if token.encode() in content or TOKEN.search(content):
            raise InputError(
                f"{name}: holds a token of the hub, so nothing is sent; expected it removed (and the token "
                "revoked, where others may have seen it). Tables hold the command lines of their runs"
            )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)

    def send() -> str:
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        message = {"commit_message": "Publish results", "repo_type": "dataset"}
        return api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(files), **message).commit_url

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns where nothing has changed
    try:
        return retried(f"--repo {repo}", send)
    except (OSError, ValueError) as error:
        response = getattr(error, "response", None)
        refused = ""
        if response is not None:  # requests' answers that refuse are false
            refused = f" (HTTP {response.status_code}); expected a token that may write there"
        text = " ".join(str(error).replace(token, "…").split())[:400]
        raise InputError(f"--repo {repo}: {text}{refused}") from None
