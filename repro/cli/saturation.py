"""repro saturation: where growing the batch stops paying, from any table of results."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from repro.cli.options import CommandWithSeveral, Several, runs_option

if TYPE_CHECKING:
    import pandas as pd

    from repro.results.stats.saturation import Saturation


@click.command(cls=CommandWithSeveral)
@click.argument("table")
@click.option("--metric", "metrics", cls=Several, metavar="COLUMN", help="Metrics.  [default: each data set's]")
@click.option("--by", cls=Several, metavar="COLUMN", help="What tells series apart.  [default: all that differs]")
@click.option(
    "--margin", type=float, metavar="POINTS", help="What counts as no loss.  [default: 0.5, or twice a mean's noise]"
)
@click.option("--reference", default="32k", show_default=True, help="Batch size that larger ones are held against.")
@click.option("--json", "as_json", is_flag=True, help="For machines: everything, as one JSON object.")
@runs_option
def saturation(
    table: str,
    metrics: tuple[str, ...],
    by: tuple[str, ...],
    margin: float | None,
    reference: str,
    as_json: bool,
    runs: Path,
) -> None:
    """Where does growing the batch stop paying? Peak, saturation point and what lies beyond, with intervals.

    TABLE is a CSV (results/batch-size.csv), paper, one table of it (paper:table-5), or a sweep with runs. Where
    --reference is not in a series, its saturation point takes its place. docs/saturation.md explains the methods.
    """
    from repro.config.errors import InputError
    from repro.config.units import parse_batch_size

    if margin is not None and not margin > 0:
        raise InputError(f"--margin {margin:g}: expected more than 0 points, such as 0.5")
    base = parse_batch_size(reference)
    from repro.cli.select import chosen_metrics, chosen_series
    from repro.results import sources
    from repro.results.stats.comparison import compare_losses
    from repro.results.stats.saturation import analyse

    loaded, metrics = chosen_metrics(sources.load(table, runs), metrics)
    columns = chosen_series(loaded, by)
    found = [each for metric in metrics for each in analyse(loaded, metric, columns, margin, base)]
    if not found:
        raise InputError(f"{table}: no finished run has a batch size and one of {', '.join(metrics) or 'the metrics'}")
    losses = {metric: compare_losses(loaded, metric, columns) for metric in metrics}
    if as_json:
        from repro.cli.compare import records

        rows = [{"metric": metric, **row} for metric, each in losses.items() for row in records(each)]
        answer = {"table": table, "saturation": [each.as_dict() for each in found], "losses": rows}
        click.echo(json.dumps(answer, indent=1, allow_nan=False))
        return
    for metric in metrics:
        _print([each for each in found if each.metric == metric], metric, losses[metric])


def _print(found: "list[Saturation]", metric: str, losses: "pd.DataFrame") -> None:
    from rich.console import Console

    from repro.cli.compare import labels, saturation_table
    from repro.results.stats.comparison import PAIR, in_words
    from repro.results.tables import metric_title, split

    curves = [each for each in found if len(each.sizes) > 1]
    if found:
        click.echo(f"{', '.join(metric_title(metric))}  ({metric})")
    if curves:
        Console().print(saturation_table(curves))
    for each, label in zip(curves, labels([each.series for each in curves]), strict=True):
        click.echo(f"\n{label}: {each.conclusion}.")
    if len(found) > len(curves):
        several = f"{len(found) - len(curves)} series have" if len(found) - len(curves) > 1 else "1 series has"
        click.echo(f"\n{several} one batch size only: nothing to say of growth.")
    by = list(losses.columns[: losses.columns.get_loc("batch_size")])
    for (a, b), pair in losses.groupby(list(PAIR), sort=False):
        compared = split(pair, by)
        for (_, rows), label in zip(compared, labels([series for series, _ in compared]), strict=True):
            click.echo(f"\n{a} − {b}{f', {label}' if label else ''}: {in_words(rows)}.")
    if found:
        click.echo("")
