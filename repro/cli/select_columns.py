"""Columns that a person names: metrics, and what tells series apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from repro.config.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd


def chosen_metrics(table: "pd.DataFrame", names: Sequence[str]) -> "tuple[pd.DataFrame, list[str]]":
    """The table with mean recalls, and the metrics: those named, or one of each data set. Raises InputError."""
    from repro.report.tables import check_metrics, main_metrics, with_mean_recall

    wide = with_mean_recall(table)
    check_metrics(wide, names)
    return wide, list(names) or main_metrics(wide)


def chosen_series(table: "pd.DataFrame", names: Sequence[str]) -> list[str] | None:
    """The columns named with --by, None for all that differs. Raises InputError; warns where unlike runs are mixed."""
    if not names:
        return None
    from repro.results.series import series_columns

    known = [column for column in table.columns if "/" not in column]
    for name in names:
        if name not in known:
            raise InputError(f"--by {name}: no such column{nearest(name, known)}")
    if mixed := [column for column in series_columns(table) if column not in names]:
        click.echo(f"--by: runs that differ in {', '.join(mixed)} are averaged as if they were seeds", err=True)
    return list(dict.fromkeys([*names, "loss"]))
