"""Evaluations without the training they belong to: clip-benchmark's JSON and CSV, and any CSV with a row a run.

clip-benchmark's JSON (`eval`) holds one model and data set, a row of its CSV (`build`) as well; those of the same model
and weights make one row. A plain CSV has one row a run, with columns by our names or by --map. What such files do not
say is what training was: the loss, the batch size.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.config.errors import InputError, nearest
from repro.config.files import read_object
from repro.data.eval_sets import language_means
from repro.results.importers.cells import (
    OURS,
    Row,
    as_number,
    dataset_name,
    extra_column,
    is_accuracy,
    is_metric,
    is_missing,
    parsed,
    read_text,
    slug,
)
from repro.results.tables import LONG

ABOUT = ("dataset", "model", "pretrained")
"""Keys of every evaluation of clip-benchmark."""
DETAILS = ("weight_decay", "epochs", "seed", "fewshot_k", "normalized", "classnames", "templates", "model_fullname")
"""Keys about the linear probe's training or the evaluation, not about the model that is evaluated."""
IDENTITY = {"model": "", "pretrained": "", "loss": "", "batch_size": "bs", "examples_seen": "", "learning_rate": "lr"}
IDENTITY |= {"seed": "s"}
"""Columns that make a row's id, where the file has no run_id, and what stands before each."""


def read_clip_benchmark(file: Path) -> tuple[list[Row], list[str]]:
    """A row for each evaluation in the file. Raises InputError."""
    if file.suffix == ".json":
        values = read_object(file)
        if "dataset" not in values or not isinstance(values.get("metrics"), dict):
            keys = ", ".join(list(values)[:6]) or "none"
            raise InputError(f"{file}: expected clip-benchmark's keys {', '.join(ABOUT)} and metrics; found {keys}")
        return [_evaluation(values, values["metrics"], file.name, file.name)], []
    lines = read_cells(file)
    if missing := [name for name in ABOUT if name not in lines[0]]:
        raise InputError(f"{file}: no column '{missing[0]}'; expected the CSV of clip_benchmark build, or --format csv")
    rows = []
    for number, line in enumerate(lines, 1):
        about = {key: line[key] for key in (*ABOUT, "task", "language") if line.get(key)}
        metrics = {key: value for key, value in line.items() if key not in about}
        rows.append(_evaluation(about, metrics, f"{file.name}, row {number}", file.name))
    return rows, []


def _evaluation(about: Mapping[str, Any], metrics: Mapping[str, Any], where: str, source: str) -> Row:
    dataset, model, pretrained = (str(about.get(name) or "") for name in ABOUT)
    if not dataset:
        raise InputError(f"{where}: no dataset is named")
    language = about.get("language")
    if isinstance(language, str) and language.startswith("["):  # the list that the command was given, as text
        language = re.findall(r"[\w-]+", language)
    language = "-".join(map(str, language)) if isinstance(language, list) else str(language or "en")
    folder = model.removeprefix("local-dir:").rstrip("/")
    if folder != model or model.startswith("/"):  # on somebody's machine: its last parts
        model = "/".join(Path(folder).parts[-2:])
    pretrained = Path(pretrained).name if pretrained.startswith(("/", ".")) else pretrained
    dataset, shots = dataset_name(dataset, language), as_number(metrics.get("fewshot_k"))
    values: dict[str, Any] = {"setup": "released", "model": model, "pretrained": pretrained}
    for metric, value in metrics.items():
        if metric in DETAILS or is_missing(value) or (as_number(value) is None and not is_accuracy(metric)):
            continue
        if metric.startswith("lp_") and shots and shots > 0:
            metric = f"lp_{shots:.0f}shot_{metric.removeprefix('lp_')}"
        values[f"{dataset}/{metric}" if is_accuracy(metric) else extra_column(f"{dataset}_{metric}")] = (
            value if is_accuracy(metric) else as_number(value)
        )
    if not any(is_metric(column) for column in values):
        raise InputError(f"{where}: no metric from 0 to 1, such as acc1 or image_retrieval_recall@5")
    return Row(values | {"source_file": source}, where, tuple(filter(None, (slug(model), slug(pretrained)))))


def merged(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """One row for each model and weights, with the means over languages; and of which files two disagree.

    Of an evaluation that stands in two files with different numbers the first is taken.
    """
    together: dict[tuple[str, ...], list[Row]] = {}
    problems = []
    for row in rows:
        others = together.setdefault(row.identity, [])
        metrics = {c: value for c, value in row.values.items() if is_metric(c)}
        clash = [(c, o) for o in others for c in metrics if o.values.get(c) not in (None, metrics[c])]
        if clash:
            column, other = clash[0]
            numbers = f"{metrics[column]:g}, and {other.values[column]:g} in {other.where}"
            problems.append(f"{row.where}: {column} of {' '.join(row.identity)} is {numbers}; expected one of the two")
        else:
            others.append(row)
    found = []
    for alike in together.values():
        values = {name: value for row in alike for name, value in row.values.items()}
        values |= language_means({column: value for column, value in values.items() if is_metric(column)})
        values["source_file"] = "; ".join(dict.fromkeys(row.values["source_file"] for row in alike))
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        found.append(replace(alike[0], values=values, where=f"{alike[0].where}{more}"))
    return found, problems


def read_cells(file: Path) -> list[dict[str, str]]:
    """Cells of each row by column, as text. Commas, semicolons or tabs between. Raises InputError."""
    text = read_text(file)
    between = max(",;\t", key=text.lstrip().splitlines()[0].count)
    lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text), delimiter=between)]
    header, *rows = (line for line in lines if any(line))
    header = [name or "unnamed" for name in header]  # a table's index, as pandas writes it
    if twice := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{file}: two columns are called '{twice[0]}'")
    if not rows:
        raise InputError(f"{file}: no rows under its header")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise InputError(f"{file}, row {number}: {len(row)} cells under {len(header)} columns")
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_csv(file: Path, mapping: Mapping[str, str], given: Mapping[str, Any]) -> tuple[list[Row], list[str]]:
    """mapping: our column → theirs; given: what --set says of all rows, which tells them from another file's.

    Columns that are neither mapped nor ours are kept. Raises InputError.
    """
    lines = read_cells(file)
    columns = list(lines[0])
    if set(LONG) <= set(columns):
        raise InputError(f"{file}: is in the paper's form, one number a row, which needs no import: name it as it is")
    for name, theirs in mapping.items():
        if theirs not in columns:
            raise InputError(f"{file}: --map {name}={theirs}: no column '{theirs}'{nearest(theirs, columns)}")
    unmapped = [column for column in columns if column not in mapping.values()]
    theirs = {_own_name(column, mapping): column for column in unmapped} | dict(mapping)
    if not any(map(is_metric, theirs)):
        raise InputError(
            f"{file}: no column is a metric; expected one named like imagenet1k/acc1, or --map imagenet1k/acc1=THEIRS "
            f"with one of its columns: {', '.join(columns[:12])}"
        )
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"{file.name}, row {number}"
        values = {name: _cell(name, line[column], where) for name, column in theirs.items()}
        run_id = values.pop("run_id", None)
        told = {name: v for name in IDENTITY if (v := {**values, **given}.get(name)) not in (None, "")}
        identity = tuple(f"{IDENTITY[name]}{slug(f'{v:g}' if isinstance(v, float) else v)}" for name, v in told.items())
        identity = (slug(run_id),) if run_id else identity
        rows.append(Row(values | {"source_file": file.name}, where, identity, theirs))
    return rows, []


def _own_name(column: str, mapping: Mapping[str, str]) -> str:
    """The name here of a column that is not mapped."""
    if column in mapping:  # one of our names, which another column was given
        return extra_column(column, "imported")
    return column if column in OURS or column == "run_id" or is_metric(column) else extra_column(column)


def _cell(name: str, text: str, where: str) -> Any:
    if name in OURS:
        return parsed(name, text, where)
    if name == "run_id" or is_metric(name):
        return text
    number = as_number(text)
    return None if is_missing(text) else text if number is None else number
