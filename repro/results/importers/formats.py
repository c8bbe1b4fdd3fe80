"""Which format a file or folder is in, told from what is in it; and what a folder of several holds."""

import json
from pathlib import Path

from repro.config.errors import InputError, nearest
from repro.results.importers import big_vision, clip_benchmark, csv_table, open_clip
from repro.results.importers.row import listed, read_text

FORMATS = ("clip-benchmark", "open_clip", "big_vision", "csv")
EXPECTED = (
    "clip-benchmark's JSON or CSV, a log folder of open_clip (params.txt, checkpoints/results.jsonl), big_vision's "
    "big_vision_metrics.txt, or a CSV with a column a metric"
)
TABLES = (".csv", ".tsv")


def units(path: Path, form: str | None = None) -> list[tuple[str, Path]]:
    """What a path stands for: (format, file or log folder), several for a folder of several. Raises InputError."""
    if form is not None and form not in FORMATS:
        raise InputError(f"--format {form}: unknown{nearest(form, FORMATS)}")
    if not path.exists():
        beside = [str(file) for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file or folder{nearest(str(path), beside) if beside else ''}")
    if path.is_file():
        return [_unit(path, form)]
    if (path / "spec.json").is_file():
        raise InputError(
            f"{path}: is a run of this project, which repro collect makes a row of; its evaluations are in evals/"
        )
    found = _in_folder(path, form)
    for folder in sorted(child for child in path.iterdir() if child.is_dir()) if not found else ():
        found += _in_folder(folder, form)
    if not found:
        holds = listed(sorted(child.name for child in path.iterdir()), 5) or "nothing"
        raise InputError(f"{path}: no results in this folder, which holds {holds}; expected {EXPECTED}")
    return found


def _in_folder(folder: Path, form: str | None) -> list[tuple[str, Path]]:
    """A log folder is one unit; else each metrics file, JSON or table in it is one."""
    if form in (None, "open_clip") and open_clip.is_folder(folder):
        return [("open_clip", folder)]
    found = [("big_vision", file) for file in sorted(folder.glob(big_vision.PATTERN))]
    if not found:
        found = [("clip-benchmark", file) for file in sorted(folder.glob("*.json"))]
        found += [_unit(file, form) for file in sorted(folder.iterdir()) if file.suffix in TABLES]
    return [unit for unit in found if form in (None, unit[0])]


def _unit(file: Path, form: str | None) -> tuple[str, Path]:
    form = form or _detected(file)
    if form == "open_clip":
        folder = file.parent.parent if file.parent.name == "checkpoints" else file.parent
        if not open_clip.is_folder(folder):
            raise InputError(
                f"{file}: not in a log folder of open_clip; expected params.txt or checkpoints/results.jsonl"
            )
        return form, folder
    return form, file


def _detected(file: Path) -> str:
    if file.name == "params.txt" or file.name == "results.jsonl":
        return "open_clip"
    text = read_text(file)
    if file.suffix in TABLES:
        return "clip-benchmark" if clip_benchmark.is_table(csv_table.read_cells(file)[0]) else "csv"
    if file.suffix == ".json":
        return "clip-benchmark"  # whose reader says what is wrong with it
    first = text.lstrip().splitlines()[0]
    try:
        values = json.loads(first)
    except json.JSONDecodeError:
        values = None
    if isinstance(values, dict) and "step" in values:
        return "big_vision"
    if isinstance(values, dict) and "epoch" in values:
        raise InputError(
            f"{file}: looks like open_clip's results.jsonl out of its folder; expected the whole log folder"
        )
    raise InputError(
        f"{file}: a format that is not known; expected {EXPECTED}. Name it with --format {'|'.join(FORMATS)}"
    )
