"""Our columns as others fill them: names of data sets and metrics, values as people write them, percent or from 0 to 1.

Every reader of a format makes `Row`s with what this file offers; nothing is guessed. A metric whose values are all at
most 1 is read as it is, one whose values are all above 1 is percent; what has both, or says percent and looks
otherwise, is refused with both readings, and --units decides.
"""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.config.errors import InputError, nearest
from repro.config.setups import SETUPS
from repro.config.spec import SCALES, RunSpec
from repro.config.units import parse_batch_size, parse_examples
from repro.data.eval_sets import MULTILINGUAL
from repro.data.named_sets import BY_OTHER_NAME
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
NAMES_OF_LOSSES = {name: kind.name for kind in LOSSES.values() for name in (kind.name, *kind.other_names)}
"""Other names of the two losses; any other loss keeps its own."""
CHOICES = {"setup": (*SETUPS, "unknown"), "scale": (*SCALES, "imported")}
MISSING = ("", "-", "–", "—", "n/a", "na", "nan", "none", "null")
UNITS = ("share", "percent")
ACCURACY = re.compile(
    r"(lp_)?(\d+shot_)?acc\d*|\w*recall@\d+|(lp_)?mean_per_class_recall|mean_average_precision|\w+_acc(uracy)?|accuracy"
)


@dataclass(frozen=True)
class Row:
    """One imported run.

    values: our columns, <dataset>/<metric> for what goes from 0 to 1, and what is kept under a name of its own.
    where: what messages call it, such as 'bench.csv, row 3'; identity: what tells it from others of the import;
    theirs: our column → what the file calls it, where that is something else.
    """

    values: dict[str, Any]
    where: str
    identity: tuple[str, ...] = ()
    theirs: Mapping[str, str] = field(default_factory=dict)

    def named(self, column: str) -> str:
        theirs = self.theirs.get(column, column)
        return f"{self.where}: {column}" + ("" if theirs == column else f" (column '{theirs}')")


def is_accuracy(metric: str) -> bool:
    """Whether a metric goes from 0 to 1, as accuracies and recalls do; ranks, losses and captions' scores do not."""
    return ACCURACY.fullmatch(metric) is not None


def is_metric(column: str) -> bool:
    """Whether a column is a metric as our table names them: <dataset>/<metric>."""
    dataset, _, metric = column.rpartition("/")
    return bool(dataset) and is_accuracy(metric)


def dataset_name(name: str, language: str = "en") -> str:
    """'wds/vtab/cifar100' → 'vtab_cifar100'; of a set in several languages the language too: 'crossmodal3600_de'."""
    name = re.sub("[/:]", "_", name.removeprefix("wds/"))
    name = BY_OTHER_NAME.get(name.lower(), name)
    told = language != "en" or name in MULTILINGUAL
    return f"{name}_{language}" if told and not name.endswith(f"_{language}") else name


def metric_name(key: str, patterns: Sequence[tuple[str, Callable[[re.Match], str]]]) -> str | None:
    """The column of a metric by another project's name, None for what is none. patterns: a format's, and our names."""
    matches = ((re.fullmatch(pattern, key), name) for pattern, name in patterns)
    return next((name(match) for match, name in matches if match), None)


def slug(text: Any) -> str:
    """As a part of a run's id: letters, digits and . _ - only."""
    return "-".join("".join(c if c.isalnum() or c in "._-" else " " for c in str(text)).split())


def check_column(name: str, option: str) -> None:
    """Raises InputError for a name that is no column of ours to fill, with the nearest; --map also takes metrics."""
    if name not in OURS and not (option == "--map" and (name == "run_id" or is_metric(name))):
        why = "no metric from 0 to 1, such as imagenet1k/acc1" if "/" in name else "no column that an import can fill"
        raise InputError(f"{option} {name}: {why}{nearest(name, OURS)}")


def is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def as_number(value: Any) -> float | None:
    """A finite number, or None for what is no number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def extra_column(name: str, prefix: str = "") -> str:
    """Name the column of a value outside our columns: without '/', which only metrics have, and no name of ours."""
    own = f"{prefix}_{name}".removeprefix("_").replace("/", "_")
    return f"imported_{own}" if own in OURS or own in RESERVED else own


def parsed(column: str, value: Any, where: str) -> Any:
    """A cell of one of our columns. None where it is missing. Raises InputError naming where, column and value."""
    if is_missing(value):
        return None
    text, parse = str(value).strip(), PARSERS.get(column)
    if column == "loss":
        return _loss(text, where)
    if text not in CHOICES.get(column, (text,)):
        raise InputError(f"{where}: {column} '{text}' is unknown{nearest(text, CHOICES[column])}")
    try:
        return parse(text) if parse else text if isinstance(value, str) else value
    except (ValueError, OverflowError) as error:
        kind = "a number" if parse is float else "a whole number"
        said = str(error) if isinstance(error, InputError) else f"'{text}' is not {kind}"
        raise InputError(f"{where}: {column}: {said}") from None


def _whole(text: str) -> int:
    number = float(text)
    if number != int(number):
        raise ValueError
    return int(number)


def _count(parse: Callable[[str | int], int], least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        number = as_number(text)  # a table's 32768.0 is 32k all the same
        found = parse(int(number) if number is not None and number == int(number) else text)
        if found < least:
            raise ValueError
        return found

    return count


PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("batch_size", "micro_batch"), _count(parse_batch_size, 1)),
    **dict.fromkeys(("examples_seen", "warmup_examples"), _count(parse_examples, 0)),
    **dict.fromkeys(("seed", "steps", "ranks"), _whole),
    **dict.fromkeys(("examples_per_second", "step_seconds", "peak_memory_bytes", "final_logit_scale"), float),
    **dict.fromkeys(("final_logit_bias", "final_loss", "learning_rate", "weight_decay", "beta1", "beta2"), float),
    **dict.fromkeys(("epsilon", "init_logit_scale", "init_logit_bias", "grad_clip"), float),
}


def _loss(text: str, where: str) -> str:
    """Sigmoid or softmax by any of their names; others as they are, but for what is nearly one of the two."""
    if (name := text.lower()) in NAMES_OF_LOSSES:
        return NAMES_OF_LOSSES[name]
    if as_number(text) is not None:
        raise InputError(
            f"{where}: loss '{text}' is a number, not which loss it is; expected sigmoid or softmax. A training loss: "
            "--map final_loss=THEIRS, and --set loss=sigmoid"
        )
    if "the nearest" in (near := nearest(name, NAMES_OF_LOSSES)):
        raise InputError(f"{where}: loss '{text}' is unknown{near}")
    return text


def in_shares(rows: Sequence[Row], file: str, units: str | None = None) -> list[str]:
    """Turn the metrics of one file's rows, as they were written, into numbers from 0 to 1; '73.1%' is 0.731 always.

    Returns what a reader should know of it. Raises InputError.
    """
    percent: dict[str, list[float]] = {}
    for column in dict.fromkeys(column for row in rows for column in row.values if is_metric(column)):
        plain = []
        for row in (row for row in rows if column in row.values):
            number, says_percent = _metric(row, column)
            row.values[column] = _share(number) if says_percent else number
            plain += [row] if number is not None and not says_percent else []
        if _is_percent(column, plain, units):
            percent[column] = [row.values[column] for row in plain]
            for row in plain:
                row.values[column] = _share(row.values[column])
    numbers = [number for each in percent.values() for number in each] or [0.0]
    span = f"{min(numbers):g} to {max(numbers):g}"
    return [f"{file}: {listed(percent)} in percent ({span}): divided by 100"] if percent else []


def _metric(row: Row, column: str) -> tuple[float | None, bool]:
    """A cell of a metric as it is written, and whether it says percent itself."""
    if is_missing(row.values[column]):
        return None, False
    text = str(row.values[column]).strip()
    number = as_number(text.removesuffix("%"))
    if number is None or not 0 <= number <= 100:
        raise InputError(f"{row.named(column)} is '{text}'; expected a number from 0 to 1, or 0 to 100 in percent")
    return number, text.endswith("%")


def _share(percent: float) -> float:
    """73.1 → 0.731, and not 0.7309999999999999."""
    return float(f"{percent / 100:.15g}")


def _is_percent(column: str, rows: Sequence[Row], units: str | None) -> bool:
    above = [row for row in rows if row.values[column] > 1]
    below = [row for row in rows if 0 < row.values[column] <= 1]
    says_percent = any(re.search(r"percent|pct|%", row.theirs.get(column, column)) for row in rows)
    if units == "percent" or (units is None and above and not below):
        return True
    if above or (units is None and below and says_percent):
        row = (below or above)[0]
        other = f"{above[0].where} has {above[0].values[column]:g}" if above else "its name says percent"
        choice = "expected --units percent" if units else "say which with --units percent or --units share"
        raise InputError(f"{row.named(column)} is {row.values[column]:g}, but {other}; {choice}")
    return False


def read_text(file: Path) -> str:
    """Raises InputError that names the file: not readable, not text, or empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    if not text.strip():
        raise InputError(f"{file}: an empty file")
    return text


def read_lines(file: Path) -> list[dict[str, Any]]:
    """A file with one JSON object a line; a last line that was cut off is left out. Raises InputError."""
    *lines, last = (line for line in read_text(file).splitlines() if line.strip())
    try:
        found = [json.loads(line) for line in lines]
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(last))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: not JSON lines: {error}") from None
    return [values for values in found if isinstance(values, dict)]


def listed(names: Iterable[str], most: int = 3) -> str:
    """'a, b, c and 4 more', for messages."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
