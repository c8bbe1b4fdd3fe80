"""Tables of a report: what was found at each batch size, the losses compared, and where every number comes from.

A series is what one line of a figure shows: runs that differ in batch size and seed only. Whatever else differs
between runs splits them into several series, so that unlike runs are never averaged together.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from repro.counts import format_batch_size, format_examples
from repro.data.evalsets import but_languages
from repro.errors import InputError, nearest
from repro.report.written import latex as latex
from repro.report.written import markdown as markdown
from repro.spec import RunSpec

SPLITS = ("setup", "scale", "examples_seen", "model", "data_fingerprint")
"""Fields that always make a series of their own. Others do so where they differ at one loss and batch size."""
MACHINE = ("machine", "gpu")
"""What splits speed and memory as well: they say as much about the machine as about the loss."""
NOT_A_SPLIT = ("format", "seed", "data", "evals")
GREEK = {"beta1": "β1", "beta2": "β2"}
RETRIEVALS = ("image_retrieval_recall", "text_retrieval_recall")
PAPER = "arXiv 2303.15343"
LOSSES = ("sigmoid", "softmax")


def with_mean_recall(table: pd.DataFrame) -> pd.DataFrame:
    """Add <dataset>/mean_recall@K, the mean of image and text retrieval, which sums a retrieval up in one number."""
    added = {}
    for column in table.columns:
        dataset, _, name = column.rpartition("/")
        metric, _, k = name.partition("@")
        other = f"{dataset}/{RETRIEVALS[1]}@{k}"
        if dataset and metric == RETRIEVALS[0] and other in table:
            added[f"{dataset}/mean_recall@{k}"] = (numbers(table[column]) + numbers(table[other])) / 2
    rest = table.drop(columns=list(added), errors="ignore")
    return pd.concat([rest, pd.DataFrame(added, index=table.index)], axis=1) if added else table


def metric_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if "/" in column]


def main_metrics(table: pd.DataFrame) -> list[str]:
    """One column for each data set: its accuracy, else its mean recall at 1 (at 5 where there is no other).

    Of a data set in several languages their mean.
    """
    columns = but_languages(metric_columns(table))
    chosen = []
    for dataset in dict.fromkeys(column.rpartition("/")[0] for column in columns):
        metrics = [column for column in columns if column.rpartition("/")[0] == dataset]
        wanted = ("acc1", "mean_recall@1", f"{RETRIEVALS[0]}@1", "mean_recall@5", f"{RETRIEVALS[0]}@5")
        found = [f"{dataset}/{name}" for name in wanted if f"{dataset}/{name}" in metrics]
        chosen.append((found or metrics)[0])
    return chosen


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
    for column in RunSpec.model_fields:
        if column not in runs or column in (*NOT_A_SPLIT, *within, *always) or _is_constant(runs[column]):
            continue
        cells = runs.groupby([*within, *columns], dropna=False)[column]
        if (cells.nunique(dropna=False) > 1).any():
            columns.append(column)
    return columns


def _is_constant(column: pd.Series) -> bool:
    """Of most columns of most tables: told at once, where counting in groups takes long."""
    return column.nunique(dropna=False) <= 1


def series_label(values: dict[str, object]) -> str:
    """{'setup': 'siglip', 'examples_seen': 3e9, 'learning_rate': 1e-3} → 'siglip, 3B, learning rate 0.001'."""
    return ", ".join(_label(column, value) for column, value in values.items())


def _label(column: str, value: object) -> str:
    if column == "examples_seen" and not pd.isna(value):
        return format_examples(float(value))
    if column == "data_fingerprint":
        return f"data {str(value)[:8]}"
    if column in (*SPLITS, *MACHINE):
        return str(value)
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


def split_placed(table: pd.DataFrame, by: Sequence[str]) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """The runs that have a place in a figure, split; one part without any where no run has."""
    runs = placed(table)
    return split(runs, by) if len(runs) else [({}, runs)]


def part_of(table: pd.DataFrame, key: Mapping[str, object]) -> pd.DataFrame:
    """The rows that have these values."""
    for column, value in key.items():
        table = table[table[column].isna() if pd.isna(value) else table[column] == value]
    return table


def summarise(
    table: pd.DataFrame, value: str, by: Sequence[str] = (), within: Sequence[str] = ("loss", "batch_size")
) -> pd.DataFrame:
    """One row for each series, loss and batch size: seeds, mean, std, and the 95 % interval of the mean (low, high).

    within: other columns in the place of loss and batch size.
    The interval is Student's t over seeds; with one seed std, low and high are NaN.
    """
    from scipy.special import stdtrit

    needed = {"loss", "batch_size", "status", value, *by, *within}
    runs = finished(table[[column for column in table.columns if column in needed]])  # others would be copied in vain
    runs = runs.assign(**{value: numbers(runs[value])}).dropna(subset=[value])
    groups = runs.groupby([*by, *within], dropna=False)[value]
    found = groups.agg(seeds="count", mean="mean", std="std").reset_index()
    with np.errstate(invalid="ignore"):
        half = stdtrit(found["seeds"] - 1, 0.975) * found["std"] / np.sqrt(found["seeds"])
    return found.assign(low=found["mean"] - half, high=found["mean"] + half)


def is_evaluated_on(runs: pd.DataFrame, metric: str, metrics: Sequence[str]) -> bool:
    """Whether these runs were to have the metric: not where they have others and none of them has it."""
    done = finished(runs)
    return done[metric].notna().any() or not done[list(metrics)].notna().any(axis=None)


def results(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Tidy numbers in percent: one row for each metric, series, loss and batch size that has a result."""
    by = series_columns(table)
    parts = [summarise(table, metric, by).assign(metric=metric) for metric in metrics]
    columns = ["metric", *by, "loss", "batch_size", "seeds"]
    found = pd.concat(parts) if parts else pd.DataFrame(columns=[*columns, "mean", "std", "low", "high"])
    for name in ("mean", "std", "low", "high"):
        found[f"{name}_percent"] = 100 * found[name]
        columns.append(f"{name}_percent")
    return found[columns].reset_index(drop=True)


def results_by_batch_size(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The paper's layout, to be read: batch sizes down, losses across. A cell says '34.1 ± 0.4', or what became of it.

    Columns: (metric and series, loss or 'difference'). ± is the standard deviation over seeds; the difference is
    sigmoid minus softmax in points, with its interval where there is one.
    """
    runs = placed(table)
    by = series_columns(table)
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for metric in metrics:
        for key, part in split(runs, by):
            if not is_evaluated_on(part, metric, metrics):
                continue
            head = ", ".join(filter(None, [*metric_title(metric), series_label(key)]))
            found = summarise(part, metric).set_index(["loss", "batch_size"])
            for (loss, size), group in part.groupby(["loss", "batch_size"]):
                number = found.loc[(loss, size)] if (loss, size) in found.index else None
                cells.setdefault((head, loss), {})[size] = _cell(number, group, metric)
            for row in differences(part, [metric]).itertuples():
                cells.setdefault((head, "difference"), {})[row.batch_size] = _difference(row)
    layout = pd.DataFrame(cells, index=sorted(runs["batch_size"].unique())).fillna("")
    layout.index = pd.Index([format_batch_size(int(size)) for size in layout.index], name="batch size")
    return layout


def _cell(number: pd.Series | None, group: pd.DataFrame, metric: str) -> str:
    parts = []
    if number is not None:
        parts.append(f"{100 * number['mean']:.1f}")
        if number["seeds"] > 1:
            parts[0] += f" ± {100 * number['std']:.1f}"
    parts += [f"{count} {name}" if len(group) > 1 else name for name, count in missing(group, metric).items()]
    return "; ".join(parts)


def _difference(row: object) -> str:
    interval = f" ({signed(row.low_points)} to {signed(row.high_points)})" if row.seeds > 1 else ""
    return signed(row.difference_points) + interval


def signed(number: float) -> str:
    """+0.5, −1.6: with the sign that print uses."""
    return f"{number:+.1f}".replace("-", "−")


def lacks(runs: pd.DataFrame, value: str) -> pd.Series:
    """Whether each run has no number: it did not finish, or finished without one."""
    return (runs["status"] != "finished") | numbers(runs[value]).isna()


def missing(runs: pd.DataFrame, value: str) -> dict[str, int]:
    """Why runs have no number, and how many: their status, or 'no value' where they finished without one."""
    lacking = runs[lacks(runs, value)]
    return lacking["status"].replace("finished", "no value").value_counts().sort_index().to_dict()


def best(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """For each series and loss: the batch size of best mean, and whether the grid ends there."""
    by = series_columns(table)
    rows = []
    for key, part in split(summarise(table, metric, by), [*by, "loss"]):
        row = part.loc[part["mean"].idxmax()]
        sizes = part["batch_size"]
        at_edge = len(sizes) > 1 and row["batch_size"] in (sizes.min(), sizes.max())
        rows.append({**key, **row[["batch_size", "mean", "seeds"]], "at_edge": at_edge})
    return pd.DataFrame(rows, columns=[*by, "loss", "batch_size", "mean", "seeds", "at_edge"])


def differences(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Sigmoid minus softmax in points at each batch size, over the seeds that both losses have.

    low and high: 95 % interval (Student's t) of the mean paired difference; NaN with one seed.
    """
    by = series_columns(table)
    parts = []
    for metric in metrics:
        runs = finished(table)
        runs = runs.assign(percent=100 * numbers(runs[metric])).dropna(subset=["percent"])
        losses = [runs[runs["loss"] == loss] for loss in LOSSES]
        pairs = losses[0].merge(losses[1], on=[*by, "batch_size", "seed"], suffixes=("_sigmoid", "_softmax"))
        pairs = pairs.assign(loss="", status="finished", points=pairs["percent_sigmoid"] - pairs["percent_softmax"])
        found = summarise(pairs, "points", by).drop(columns="loss").rename(columns={"mean": "difference"})
        means = pairs.groupby([*by, "batch_size"], dropna=False)[["percent_sigmoid", "percent_softmax"]].mean()
        parts.append(means.reset_index().merge(found, on=[*by, "batch_size"]).assign(metric=metric))
    renamed = {"percent_sigmoid": "sigmoid_percent", "percent_softmax": "softmax_percent"}
    renamed |= {name: f"{name}_points" for name in ("difference", "std", "low", "high")}
    columns = [
        "metric",
        *by,
        "batch_size",
        "sigmoid_percent",
        "softmax_percent",
        "difference_points",
        "seeds",
    ]
    columns += ["std_points", "low_points", "high_points"]
    found = pd.concat(parts).rename(columns=renamed) if parts else pd.DataFrame(columns=columns)
    return found[columns].reset_index(drop=True)


def provenance(table: pd.DataFrame, curves: Sequence[tuple[str, pd.DataFrame]] = ()) -> pd.DataFrame:
    """Where every series comes from: a row for each of ours, then one for each of the paper's (title, rows)."""
    by, rows = series_columns(table, MACHINE), []
    fields = ["setup", "scale", *(column for column in by if column not in ("setup", "scale"))]
    for key, part in split(placed(table), [*fields, "loss"]):
        loss = key.pop("loss")
        done = int((part["status"] == "finished").sum())
        dirty = part.get("git_dirty", pd.Series(dtype=object)).eq(True).any()
        rows.append(
            {
                "series": f"ours, {series_label(key)}, {loss}",
                "source": f"{len(part)} runs, {done} finished",
                "commit": _distinct(part, "git_commit", 12) + (" (with uncommitted changes)" if dirty else ""),
                "versions": ", ".join(_versions(part)),
                "machine": _distinct(part, "machine"),
                "gpu": _distinct(part, "gpu"),
                "data": _distinct(part, "data"),
                "data fingerprint": _distinct(part, "data_fingerprint"),
                "model": _distinct(part, "model"),
                "seeds": _distinct(part, "seed"),
                "last run finished": str(max(values_of(part, "finished_at"), default="")),
                "spec hashes": _distinct(part, "spec_hash"),
            }
        )
    for title, published in curves:
        for loss, part in published.groupby("loss"):
            number = ", ".join(source.replace("-", " ") for source in part["source"].unique())
            lengths = ", ".join(format_examples(count) for count in sorted(part["examples_seen"].unique()))
            source = f"{PAPER}, {number}; results/paper/published.csv, {len(part)} numbers"
            rows.append({"series": f"{title}, {loss} at {lengths} examples", "source": source})
    return pd.DataFrame(rows).fillna("")


def _versions(runs: pd.DataFrame) -> list[str]:
    """'torch 2.9.0' for each package that the runs name, several versions after one another."""
    columns = [column for column in runs.columns if column.endswith("_version")]
    return [f"{c.removesuffix('_version')} {_distinct(runs, c)}" for c in columns if _distinct(runs, c)]


def _distinct(runs: pd.DataFrame, column: str, length: int | None = None) -> str:
    return ", ".join(dict.fromkeys(str(value)[:length] for value in values_of(runs, column)))


def values_of(runs: pd.DataFrame, column: str) -> list[object]:
    return sorted({v for v in runs[column].dropna() if v != ""}) if column in runs else []


def numbers(column: pd.Series) -> pd.Series:
    """Floats; NaN where a broken run left something else."""
    return pd.to_numeric(column, errors="coerce").astype(float)
