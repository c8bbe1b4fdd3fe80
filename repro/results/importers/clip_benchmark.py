"""clip-benchmark's results: the JSON of `clip_benchmark eval`, a file a model and data set, and the CSV of `build`.

Files of the same model and weights make one row. What they do not say is what training was: the loss, the batch size.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repro.config.errors import InputError
from repro.data.eval_sets import language_means
from repro.results.importers import csv_table, names
from repro.results.importers.row import Row, as_number, kept, read_object, slug

NEEDED = ("dataset", "model", "pretrained")
DETAILS = ("weight_decay", "epochs", "seed", "fewshot_k", "normalized", "classnames", "templates", "model_fullname")
"""Of the linear probe's training, or of the evaluation: not of the model that is evaluated."""


def is_result(values: Any) -> bool:
    return isinstance(values, dict) and "dataset" in values and isinstance(values.get("metrics"), dict)


def is_table(columns: Sequence[str]) -> bool:
    return {"dataset", "model", "pretrained"} <= set(columns) and bool({"task", "model_fullname"} & set(columns))


def read(file: Path) -> list[Row]:
    """A row for each evaluation in the file. Raises InputError."""
    if file.suffix == ".json":
        values = read_object(file)
        if not is_result(values):
            raise InputError(
                f"{file}: expected clip-benchmark's keys dataset, model, pretrained and metrics; found "
                f"{', '.join(list(values)[:6]) or 'none'}"
            )
        return [_row({**values, "metrics": values["metrics"]}, file.name)]
    columns, lines = csv_table.read_cells(file)
    if missing := [name for name in NEEDED if name not in columns]:
        raise InputError(f"{file}: no column '{missing[0]}'; expected the CSV of clip_benchmark build, or --format csv")
    rows = []
    for number, line in lines:
        about = {key: line[key] for key in (*NEEDED, "task", "language") if line.get(key)}
        metrics = {key: value for key, value in line.items() if key not in about}
        rows.append(_row({**about, "metrics": metrics}, f"{file.name}, row {number}", file.name))
    return rows


def merged(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """One row for each model and weights, with the means over languages; and of which files two disagree.

    Of an evaluation that stands in two files with different numbers the first is taken.
    """
    together: dict[tuple[str, ...], list[Row]] = {}
    problems = []
    for row in rows:
        others = together.setdefault(row.identity, [])
        clash = [(c, other) for other in others for c in row.values if _differ(c, row.values, other.values)]
        if clash:
            column, other = clash[0]
            numbers = f"{row.values[column]:g}, and {other.values[column]:g} in {other.where}"
            problems.append(f"{row.where}: {column} of {' '.join(row.identity)} is {numbers}; expected one of the two")
        else:
            others.append(row)
    return [_together(those) for those in together.values()], problems


def _together(rows: Sequence[Row]) -> Row:
    values = {name: value for row in rows for name, value in row.values.items()}
    sources = list(dict.fromkeys(row.values["source_file"] for row in rows))
    values |= language_means({c: v for c, v in values.items() if names.is_metric(c) and v is not None})
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return replace(rows[0], values=values | {"source_file": "; ".join(sources)}, where=f"{rows[0].where}{more}")


def _differ(column: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    known = other.get(column)
    return names.is_metric(column) and known is not None and one[column] is not None and known != one[column]


def _row(result: Mapping[str, Any], where: str, source: str | None = None) -> Row:
    about = {name: str(result.get(name) or "") for name in NEEDED}
    if not about["dataset"]:
        raise InputError(f"{where}: no dataset is named")
    dataset = names.dataset(about["dataset"], _language(result.get("language")))
    shots = as_number(result["metrics"].get("fewshot_k"))
    values: dict[str, Any] = {"setup": "released", **_without_places(about["model"], about["pretrained"])}
    for metric, value in result["metrics"].items():
        number = csv_table.metric(value, f"{where}: {metric}") if names.is_accuracy(metric) else as_number(value)
        if number is None or metric in DETAILS:
            continue
        if metric.startswith("lp_") and shots and shots > 0:
            metric = f"lp_{shots:.0f}shot_{metric.removeprefix('lp_')}"
        own = f"{dataset}/{metric}" if names.is_accuracy(metric) else kept(f"{dataset}_{metric}", "")
        values[own] = number
    if not any(names.is_metric(column) for column in values):
        raise InputError(f"{where}: no metric from 0 to 1, such as acc1 or image_retrieval_recall@5")
    values["source_file"] = source or where
    return Row(values, where, tuple(filter(None, (slug(values["model"]), slug(values["pretrained"])))))


def _without_places(model: str, pretrained: str) -> dict[str, str]:
    """Names of models and weights as they are; of folders and files on somebody's machine their last parts."""
    folder = model.removeprefix("local-dir:").rstrip("/")
    if folder != model or model.startswith("/"):
        model = "/".join(Path(folder).parts[-2:])
    return {"model": model, "pretrained": Path(pretrained).name if pretrained.startswith(("/", ".")) else pretrained}


def _language(value: Any) -> str:
    """A JSON's language; a CSV holds the list that the command was given as text: ['en'] or [en]."""
    if isinstance(value, str) and value.startswith("["):
        value = re.findall(r"[\w-]+", value)
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else "-".join(map(str, value))
    return str(value or "en")
