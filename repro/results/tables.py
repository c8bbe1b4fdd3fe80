"""Any table of results in one shape: a sweep's runs, a CSV file (ours, or in the paper's long form), the paper.

One row a run, metrics as columns <dataset>/<metric> from 0 to 1, whatever the source; `origin` says whose the row is:
empty for runs of this project, 'paper' for published numbers, otherwise the name under which they were imported.

And its series, of which the report draws lines and stats asks where they stop growing, and its metrics.
A series is what one line of a figure shows: runs that differ in batch size and seed only. Whatever else differs splits
runs into several series, so that unlike runs are never averaged together.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from repro.config.errors import InputError, nearest
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size, format_examples
from repro.data.eval_sets import but_languages

PAPER = "paper"
ORIGIN = "origin"
LONG = ("source", "dataset", "metric", "value")
"""Columns that tell the long form: one number a row."""
METRICS = {"zeroshot_top1": "acc1", "10shot_top1": "10shot_acc1"}
"""The paper's words for metrics → clip-benchmark's, which are ours."""
NEEDED = ("loss", "batch_size")
RETRIEVALS = ("image_retrieval_recall", "text_retrieval_recall")
LOSSES = ("sigmoid", "softmax")
SPLITS = (ORIGIN, "setup", "scale", "examples_seen", "model", "data_fingerprint")
"""Fields that always make a series of their own. Others do so where they differ at one loss and batch size."""
MACHINE = ("machine", "gpu")
"""Columns that split speed and memory as well: they say as much about the machine as about the loss."""
NOT_A_SPLIT = ("format", "seed", "data", "evals")
ROWS_APART = ("source", "examples_seen_at", "image_tower", "text_tower", "patches", "chips", "days")
ROWS_APART += ("init_bias", "init_log_temperature", "note")
"""Columns that are no field of a run and tell rows apart: of published tables, and of evaluations on the way."""
DRAW = "draw"
AMOUNTS = {"examples_seen": "{}", "examples_seen_at": "at {}"}
GREEK = {"beta1": "β1", "beta2": "β2"}


def placed(table: pd.DataFrame) -> pd.DataFrame:
    """Runs that have a place in a figure: those whose loss and batch size are known."""
    if not {"loss", "batch_size"} <= set(table.columns):
        return table[:0].assign(loss="", batch_size=0)
    sizes = numbers(table["batch_size"]).to_numpy()
    known = table["loss"].notna().to_numpy() & (sizes > 0) & np.isfinite(sizes)
    return table[known].assign(batch_size=sizes[known].astype(int))


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """Published tables have no status: each of their rows is a result."""
    runs = placed(table)
    return runs[runs["status"] == "finished"] if "status" in runs else runs


def series_columns(
    table: pd.DataFrame, also: Iterable[str] = (), within: Sequence[str] = ("loss", "batch_size")
) -> list[str]:
    """The columns that tell this table's series apart; none where runs differ in `within` and the seed only.

    within: what places a run in the figure: its line's columns, and that of its horizontal axis.
    """
    runs = placed(table)
    always = [column for column in (*SPLITS, *also) if column in runs and column not in within]
    columns = [column for column in always if runs[column].nunique(dropna=False) > 1]
    for column in (ROWS_APART[0], *RunSpec.model_fields, *ROWS_APART[1:]):
        if column not in runs or column in (*NOT_A_SPLIT, *within, *always):
            continue
        if runs[column].nunique(dropna=False) <= 1:  # told at once, where counting in groups takes long
            continue
        cells = runs.groupby([*within, *columns], dropna=False)[column]
        if (cells.nunique(dropna=False) > 1).any():
            columns.append(column)
    return columns


def series_label(values: dict[str, object]) -> str:
    """{'setup': 'siglip', 'examples_seen': 3e9, 'learning_rate': 1e-3} → 'siglip, 3B, learning rate 0.001'."""
    return ", ".join(filter(None, (_label(column, value) for column, value in values.items())))


def _label(column: str, value: object) -> str:
    unknown = pd.isna(value) or value == ""
    if column in AMOUNTS and not unknown:
        return AMOUNTS[column].format(format_examples(float(value)))
    if column == ORIGIN:
        return "ours" if unknown else str(value)
    if column in ("loss", *SPLITS, *MACHINE):
        shown = f"data {str(value)[:8]}" if column == "data_fingerprint" else str(value)
        return "" if unknown else shown
    name = GREEK.get(column, column.replace("_", " "))
    if pd.isna(value):
        return f"no {name}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def split(table: pd.DataFrame, by: Sequence[str]) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """One part of the table for each combination of values; the whole of it where `by` is empty."""
    if not len(by):
        return [({}, table)]
    groups = table.groupby(list(by), dropna=False, sort=True)
    return [(dict(zip(by, key, strict=True)), part) for key, part in groups]


def part_of(table: pd.DataFrame, key: Mapping[str, object]) -> pd.DataFrame:
    """The rows that have these values."""
    for column, value in key.items():
        table = table[table[column].isna() if pd.isna(value) else table[column] == value]
    return table


def summarise(
    table: pd.DataFrame, value: str, by: Sequence[str] = (), within: Sequence[str] = ("loss", "batch_size")
) -> pd.DataFrame:
    """One row for each series, loss and batch size: seeds, mean, std, and the 95 % interval of the mean (low, high).

    Rows of the same seed are averaged first: they are one draw, not two.
    within: other columns in the place of loss and batch size. The interval is Student's t over seeds; with one seed
    std, low and high are NaN.
    """
    from scipy.special import stdtrit

    needed = {"loss", "batch_size", "seed", "status", value, *by, *within}
    runs = finished(table[[column for column in table.columns if column in needed]])  # others would be copied in vain
    runs = runs.assign(**{value: numbers(runs[value]), DRAW: draws(runs)}).dropna(subset=[value])
    means = runs.groupby([*by, *within, DRAW], dropna=False)[value].mean().reset_index()
    groups = means.groupby([*by, *within], dropna=False)[value]
    found = groups.agg(seeds="count", mean="mean", std="std").reset_index()
    with np.errstate(invalid="ignore"):
        half = stdtrit(found["seeds"] - 1, 0.975) * found["std"] / np.sqrt(found["seeds"])
    return found.assign(low=found["mean"] - half, high=found["mean"] + half)


def draws(runs: pd.DataFrame) -> pd.Series:
    """Each row's seed; of a row that does not say its seed a number of its own, below zero."""
    unknown = pd.Series(-1.0 - np.arange(len(runs)), runs.index)
    return numbers(runs["seed"]).fillna(unknown) if "seed" in runs else unknown


def signed(number: float) -> str:
    """+0.5, −1.6: with the sign that print uses."""
    return f"{number:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def batch_sizes(sizes: Sequence[int]) -> str:
    """16k, 32k and 64k."""
    names = [format_batch_size(size) for size in sizes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def lacks(runs: pd.DataFrame, value: str) -> pd.Series:
    """Whether each run has no number: it did not finish, or finished without one."""
    return (runs["status"] != "finished") | numbers(runs[value]).isna()


def missing(runs: pd.DataFrame, value: str) -> dict[str, int]:
    """Why runs have no number, and how many: their status, or 'no value' where they finished without one."""
    lacking = runs[lacks(runs, value)]
    return lacking["status"].replace("finished", "no value").value_counts().sort_index().to_dict()


def numbers(column: pd.Series) -> pd.Series:
    """Floats; NaN where a broken run left something else."""
    return pd.to_numeric(column, errors="coerce").astype(float)


def with_mean_recall(table: pd.DataFrame) -> pd.DataFrame:
    """Add <dataset>/mean_recall@K, the mean of image and text retrieval, which sums a retrieval up in one number."""
    added = {}
    for column in table.columns:
        dataset, _, name = column.rpartition("/")
        metric, _, k = name.partition("@")
        other, mean = f"{dataset}/{RETRIEVALS[1]}@{k}", f"{dataset}/mean_recall@{k}"
        if dataset and metric == RETRIEVALS[0] and other in table and mean not in table:
            added[mean] = (numbers(table[column]) + numbers(table[other])) / 2
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1) if added else table


def metric_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if "/" in column]


def main_metrics(table: pd.DataFrame) -> list[str]:
    """One column for each data set: its accuracy, else its mean recall at 1 (at 5 where there is no other).

    Of a data set in several languages their mean.
    """
    chosen: dict[str, str] = {}
    wanted = ("acc1", "mean_recall@1", f"{RETRIEVALS[0]}@1", "mean_recall@5", f"{RETRIEVALS[0]}@5")
    columns = but_languages(metric_columns(table))
    for dataset in dict.fromkeys(column.rpartition("/")[0] for column in columns):
        names = [column.rpartition("/")[2] for column in columns if column.rpartition("/")[0] == dataset]
        chosen[dataset] = next((name for name in wanted if name in names), names[0])
    return [f"{dataset}/{name}" for dataset, name in chosen.items()]


def check_metrics(table: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Raises InputError for a metric that is no column, naming the nearest one."""
    known = metric_columns(table)
    for metric in metrics:
        if metric not in known:
            end = nearest(metric, known) or "; no run has been evaluated yet"
            raise InputError(f"--metric '{metric}' is no metric of these runs{end}")


def metric_title(metric: str) -> tuple[str, str]:
    """'wds_shapes_objects/acc1' → ('shapes_objects', 'top-1 accuracy')."""
    dataset, _, name = metric.rpartition("/")
    name = {"acc1": "top-1 accuracy", "acc5": "top-5 accuracy"}.get(name, name.replace("_", " "))
    return dataset.removeprefix("wds_"), name.replace("mean recall", "mean image and text recall")


def is_evaluated_on(runs: pd.DataFrame, metric: str, metrics: Sequence[str]) -> bool:
    """Tell whether these runs were to have the metric: not where they have others and none of them has it."""
    done = finished(runs)
    return done[metric].notna().any() or not done[list(metrics)].notna().any(axis=None)


def column(runs: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers; NaN where the table lacks it."""
    return numbers(runs[name]) if name in runs else pd.Series(np.nan, runs.index)


def values_of(runs: pd.DataFrame, column: str) -> list[object]:
    return sorted({v for v in runs[column].dropna() if v != ""}) if column in runs else []


def load(name: str, runs: Path | str = "runs") -> pd.DataFrame:
    """The table that `name` means: a CSV file, 'paper' or one table of it ('paper:table-5'), or a sweep with runs.

    Raises InputError that names what was expected, and the nearest.
    """
    from repro import results

    base, _, source = name.partition(":")
    if base == PAPER:
        published = results.published()
        known = list(published["source"].unique())
        if source and source not in known:
            raise InputError(f"{name}: the paper has no '{source}'{nearest(source, known)}")
        return published_runs(published[published["source"] == source] if source else published)
    if name.endswith(".csv"):
        try:
            table = pd.read_csv(name, low_memory=False)
        except FileNotFoundError:
            beside = [str(file) for file in Path(name).parent.glob("*.csv")]
            raise InputError(f"{name}: no such file{nearest(name, beside)}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{name}: cannot be read as a CSV table: {error}") from None
        return as_runs(table, name)
    return results.load(runs, results.choose_sweep(runs, name))


def as_runs(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A CSV's table in the shape of runs. Raises InputError naming the file and the columns that it lacks."""
    if set(LONG) <= set(table.columns):
        stem = Path(name).stem
        return published_runs(_with_numbers(table, name), stem if stem != PAPER else Path(name).name)
    missing = [column for column in NEEDED if column not in table]
    if missing or not any("/" in column for column in table.columns):
        lacks = f"no column '{missing[0]}'{nearest(missing[0], list(table.columns))}" if missing else "no metric"
        raise InputError(
            f"{name}: {lacks}; expected a table of repro collect (loss, batch_size, metrics named <dataset>/<metric>), "
            "or one in the paper's form (source, dataset, metric, value). For others: repro import"
        )
    if "status" not in table:
        table = table.assign(status="finished", reason="")
    return table.dropna(axis=1, how="all").reindex(columns=list(table.columns))


def _with_numbers(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Numbers where the long form has numbers. Raises InputError naming the file, the row and what stands there."""
    found = {c: pd.to_numeric(table[c], errors="coerce") for c in ("value", "std") if c in table}
    for column, values in found.items():
        if len(wrong := table[column][values.isna() & table[column].notna()]):
            expected = "expected a number in percent, such as 73.4"
            raise InputError(f"{name}, row {wrong.index[0] + 1}: {column} is '{wrong.iloc[0]}'; {expected}")
    return table.assign(**found)


def published_runs(published: pd.DataFrame, origin: str = PAPER) -> pd.DataFrame:
    """Numbers in the paper's form, one a row and in percent, as runs: what was measured on the same one makes a row.

    origin: whose they are. published_std (0 to 1) and published_seeds say what is said of the spread (table 7).
    """
    numbers = published.assign(column=[_column(row) for row in published.to_dict("records")])
    apart = [c for c in numbers.columns if c not in ("dataset", "language", "metric", "value", "std", "column")]
    rows = []
    for key, group in numbers.groupby(apart, dropna=False, sort=False):
        own = dict(zip(apart, key, strict=True))
        row = {"run_id": _name(own, origin), "sweep": own["source"], "scale": "published", "status": "finished"}
        row |= {"reason": "", ORIGIN: origin, "seed": 0, **own, "published_seeds": own.get("seeds")}
        row["published_std"] = group["std"].iloc[0] / 100 if "std" in group else None
        rows.append(row | dict(zip(group["column"], group["value"] / 100, strict=True)))
    return pd.DataFrame(rows).drop(columns="seeds", errors="ignore")


def _column(number: dict) -> str:
    """imagenet1k, zeroshot_top1_percent → imagenet1k/acc1; a language goes to the set's name, 'avg' as the mean."""
    metric = str(number["metric"]).removesuffix("_percent")
    language = number.get("language")
    dataset = number["dataset"]
    if isinstance(language, str):
        dataset = f"{dataset}_{'mean' if language == 'avg' else language}"
    return f"{dataset}/{METRICS.get(metric, metric)}"


def _name(own: dict, origin: str) -> str:
    """paper-table-5-sigmoid-32768-3e9: what tells this row from others of its origin, to be read."""
    apart = ("loss", "batch_size", "examples_seen", "model", "image_tower", "patches", "init_bias")
    apart += ("chips", "days", "init_log_temperature", "learning_rate", "weight_decay", "optimizer", "seed", "note")
    values = [value for name in apart if (value := own.get(name)) is not None and value == value]
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return "-".join([origin, str(own["source"]), *words]).replace(" ", "-").replace(",", "")
