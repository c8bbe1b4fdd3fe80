"""Metrics of a table of runs: which there are, which sums a data set up, how they are called.

Beside them stand the functions of repro.results.series, so that the report takes both from here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from repro.config.errors import InputError, nearest
from repro.data.eval_sets import but_languages
from repro.results.series import MACHINE as MACHINE
from repro.results.series import finished, numbers
from repro.results.series import lacks as lacks
from repro.results.series import missing as missing
from repro.results.series import part_of as part_of
from repro.results.series import placed as placed
from repro.results.series import series_columns as series_columns
from repro.results.series import series_label as series_label
from repro.results.series import signed as signed
from repro.results.series import split as split
from repro.results.series import summarise as summarise

RETRIEVALS = ("image_retrieval_recall", "text_retrieval_recall")
LOSSES = ("sigmoid", "softmax")


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
