"""Metrics of a table of runs: which there are, which sum a data set up, how they are called.

Beside them stands what repro.results.series says of a table's series, so that the report takes both from here.
"""

from collections.abc import Sequence

import pandas as pd

from repro.config.errors import InputError, nearest
from repro.data.eval_sets import but_languages
from repro.results.series import (
    MACHINE,
    finished,
    lacks,
    missing,
    numbers,
    part_of,
    placed,
    series_columns,
    series_label,
    signed,
    split,
    summarise,
)

__all__ = ["MACHINE", "finished", "lacks", "missing", "numbers", "part_of", "placed", "series_columns", "series_label"]
__all__ += ["signed", "split", "summarise"]

RETRIEVALS = ("image_retrieval_recall", "text_retrieval_recall")
LOSSES = ("sigmoid", "softmax")


def with_mean_recall(table: pd.DataFrame) -> pd.DataFrame:
    """Add <dataset>/mean_recall@K, the mean of image and text retrieval, which sums a retrieval up in one number."""
    added = {}
    for column in table.columns:
        dataset, _, name = column.rpartition("/")
        metric, _, k = name.partition("@")
        other = f"{dataset}/{RETRIEVALS[1]}@{k}"
        name = f"{dataset}/mean_recall@{k}"
        if dataset and metric == RETRIEVALS[0] and other in table and name not in table:
            added[name] = (numbers(table[column]) + numbers(table[other])) / 2
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1) if added else table


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


def is_evaluated_on(runs: pd.DataFrame, metric: str, metrics: Sequence[str]) -> bool:
    """Whether these runs were to have the metric: not where they have others and none of them has it."""
    done = finished(runs)
    return done[metric].notna().any() or not done[list(metrics)].notna().any(axis=None)


def values_of(runs: pd.DataFrame, column: str) -> list[object]:
    return sorted({v for v in runs[column].dropna() if v != ""}) if column in runs else []
