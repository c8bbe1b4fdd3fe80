"""repro compare: two tables of results, row by row. repro saturation: where growing stops paying, from any table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from repro.cli.options import CommandWithSeveral, Several, chosen_metrics, chosen_series, runs_option
from repro.config.errors import InputError
from repro.config.units import format_batch_size, parse_batch_size

if TYPE_CHECKING:
    import pandas as pd

    from repro.results.stats.comparison import Comparison, Matching
    from repro.results.stats.saturation import Saturation

FOLLOWING = ("data_fingerprint", "model", "scale")


@click.command(cls=CommandWithSeveral)
@click.argument("a")
@click.argument("b")
@click.option("--metric", "metrics", cls=Several, metavar="COLUMN[=COLUMN]", help="A's, and B's where it is another.")
@click.option("--by", cls=Several, metavar="COLUMN", help="What to match on, besides loss and batch size.")
@click.option("--json", "as_json", is_flag=True, help="For machines: everything, as one JSON object.")
@click.option("--csv", "out", type=click.Path(path_type=Path), metavar="FILE", help="Write the pairs, a row each.")
@runs_option
def compare(
    a: str, b: str, metrics: tuple[str, ...], by: tuple[str, ...], as_json: bool, out: Path | None, runs: Path
) -> None:
    """B minus A in points at each batch size, with intervals: ours against others', the paper's, an earlier table.

    A and B are a CSV, paper, one table of it (paper:table-5), or a sweep with runs. Rows match on what both have; what
    that was is said, and which rows have no partner.
    """
    from repro.results.stats import comparison
    from repro.results.tables import load, with_mean_recall

    tables = [with_mean_recall(load(name, runs)) for name in (a, b)]
    pairs = _pairs(tables, (a, b), metrics)
    _check_columns(tables, by)
    found = comparison.matching(*tables, by or None)
    compared = [comparison.compare(*tables, *pair, found) for pair in pairs]
    if out is not None:
        _write(compared, out)
    if as_json:
        click.echo(json.dumps(_plain(a, b, found, compared), indent=1, allow_nan=False))
        return
    _print((a, b), found, compared)
    if out is not None:
        click.echo(f"\n{sum(len(each.rows) for each in compared):,} rows in {out}")


def _pairs(tables: "Sequence[pd.DataFrame]", names: Sequence[str], metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Metrics of A and of B; by default those that both have. Raises InputError."""
    from repro.config.errors import nearest
    from repro.results.tables import main_metrics, metric_columns

    known = [metric_columns(table) for table in tables]
    if metrics:
        pairs = [(metric.partition("=")[0], metric.partition("=")[2] or metric.partition("=")[0]) for metric in metrics]
        for pair in pairs:
            for metric, columns, name, letter in zip(pair, known, names, "AB", strict=True):
                if metric not in columns:
                    raise InputError(f"--metric '{metric}' is no metric of {letter} ({name}){nearest(metric, columns)}")
        return pairs
    main = [main_metrics(table) for table in tables]
    shared = [metric for metric in main[0] if metric in known[1]] or [m for m in main[1] if m in known[0]]
    if not shared:
        first, second = (each[0] if each else "COLUMN" for each in main)
        raise InputError(
            f"no metric in both tables. A ({names[0]}) has {', '.join(main[0]) or 'none'}; B ({names[1]}) has "
            f"{', '.join(main[1]) or 'none'}. Name a pair: --metric {first}={second}"
        )
    return [(metric, metric) for metric in shared]


def _check_columns(tables: "Sequence[pd.DataFrame]", names: Sequence[str]) -> None:
    from repro.config.errors import nearest

    known = [column for column in tables[0].columns if "/" not in column and column in tables[1]]
    for name in names:
        if name not in known:
            raise InputError(f"--by {name}: no column of both tables{nearest(name, known)}")


def _print(names: Sequence[str], found: "Matching", compared: "Sequence[Comparison]") -> None:
    from rich.console import Console

    from repro.cli.compare import comparison_table

    click.echo(f"A: {names[0]}\nB: {names[1]}\nMatched on {', '.join(_read(c) for c in found.columns)}.")
    if found.apart:
        told = [f"{_read(name)} (A {_told(name, a)}; B {_told(name, b)})" for name, (a, b) in found.apart.items()]
        click.echo(f"They differ in {', '.join(told)}.")
    for each in compared:
        metrics = each.metric_a if each.metric_a == each.metric_b else f"{each.metric_a} of A, {each.metric_b} of B"
        click.echo(f"\n{metrics}")
        by = list(each.rows.columns[: each.rows.columns.get_loc("a_percent")])
        if len(each.rows):
            Console().print(comparison_table(each.rows, by))
            click.echo(f"Noise: {'; '.join(each.rows['noise_source'].unique())}.")
        else:
            click.echo("no row has a partner")
        for letter, alone in (("A", each.only_a), ("B", each.only_b)):
            if len(alone):
                click.echo(f"Only in {letter}: {_alone(alone)}.")


def _alone(rows: "pd.DataFrame", most: int = 6) -> str:
    """'siglip, softmax at 32 and 64': rows without a partner, by series."""
    from repro.cli.compare import labels
    from repro.results.tables import batch_sizes, split

    parts = split(rows, [column for column in rows.columns if column != "batch_size"])
    told = [
        f"{label} at {batch_sizes(sorted({int(size) for size in part['batch_size']}))}"
        for (_, part), label in zip(parts[:most], labels([series for series, _ in parts])[:most], strict=True)
    ]
    return "; ".join(told) + (f"; and {len(parts) - most} more series" if len(parts) > most else "")


def _read(column: str) -> str:
    return column.replace("_", " ")


def _told(column: str, values: Sequence[object], most: int = 4) -> str:
    from repro.cli.compare import value_of

    return ", ".join(value_of(column, value) for value in values[:most]) + (" …" if len(values) > most else "")


def _plain(a: str, b: str, found: "Matching", compared: "Sequence[Comparison]") -> dict:
    from repro.cli.compare import records

    apart = {name: {"a": list(first), "b": list(second)} for name, (first, second) in found.apart.items()}
    metrics = [
        {
            "metric_a": each.metric_a,
            "metric_b": each.metric_b,
            "rows": records(each.rows),
            "only_a": records(each.only_a),
            "only_b": records(each.only_b),
        }
        for each in compared
    ]
    return {"a": a, "b": b, "matched_on": list(found.columns), "apart": apart, "metrics": metrics}


def _write(compared: "Sequence[Comparison]", out: Path) -> None:
    import pandas as pd

    from repro.results import write_csv

    parts = [each.rows.assign(metric_a=each.metric_a, metric_b=each.metric_b) for each in compared]
    write_csv(pd.concat(parts, ignore_index=True), out)


def saturation_table(found: "Sequence[Saturation]") -> Table:
    """A row for each series: peak, saturation point with its interval, margin and noise."""
    shown = _table()
    shown.add_column("series", overflow="fold", min_width=16)
    for column in ("peak", "%", "saturates", "95 %", "margin", "noise"):
        shown.add_column(column, justify="right", no_wrap=True)
    for each, label in zip(found, labels([each.series for each in found]), strict=True):
        noise = "?" if each.noise_points is None else f"{each.noise_points:.2f}"
        shown.add_row(
            label,
            format_batch_size(each.peak),
            f"{each.peak_percent:.1f}",
            _place(each),
            _interval(each),
            f"{each.margin_points:.2f}",
            noise,
        )
    return shown


def comparison_table(rows: "pd.DataFrame", by: Sequence[str]) -> Table:
    """A row for each pair: what tells the pairs apart, both percents, the difference and its interval."""
    from repro.results.tables import series_label, signed

    named = [name for name in by if name != "batch_size"]
    told = [name for name in _telling(rows[list(by)].to_dict("records")) if name in named]
    told = [name for name in told if rows[name].nunique(dropna=False) > 1] or named[:1]
    shown = _table()
    shown.add_column("pair", overflow="fold", min_width=14)
    for column in ("batch size", "A %", "B %", "B − A", "95 %", "seeds"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("ahead", no_wrap=True)
    for row in rows.to_dict("records"):
        interval = (
            f"{signed(row['low_points'])} to {signed(row['high_points'])}" if is_known(row["low_points"]) else "–"
        )
        numbers = (f"{row['a_percent']:.1f}", f"{row['b_percent']:.1f}", signed(row["difference_points"]))
        pair = series_label(known({name.removesuffix("_a").removesuffix("_b"): row[name] for name in told}))
        size = format_batch_size(int(row["batch_size"]))
        shown.add_row(pair, size, *numbers, interval, str(row["seeds"]), row["verdict"])
    return shown


def value_of(column: str, value: Any) -> str:
    """A column's value as people write it, without the column's name."""
    from repro.results.tables import series_label

    if not is_known(value):
        return ""
    if column == "batch_size":
        return format_batch_size(int(value))
    return series_label({column: value}).removeprefix(f"{column.replace('_', ' ')} ").removeprefix(f"{column} ")


def labels(found: Sequence[dict[str, Any]]) -> list[str]:
    """Each series by what tells it from the others."""
    from repro.results.tables import series_label

    kept = _telling(found)
    return [series_label(known({name: series[name] for name in kept})) for series in found]


def _telling(found: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of these rows without those that follow from the others, such as the model of a setup."""
    kept = list(found[0]) if found else []
    for column in FOLLOWING:
        fewer = [name for name in kept if name != column]
        if len({tuple(str(row[name]) for name in fewer) for row in found}) == len(found):
            kept = fewer
    return kept


def known(series: dict[str, Any]) -> dict[str, Any]:
    """Without what a series does not have, such as a published row's learning rate."""
    return {name: value for name, value in series.items() if is_known(value)}


def is_known(value: Any) -> bool:
    return value is not None and value == value


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows for JSON: what is not known is null."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def _place(each: "Saturation") -> str:
    if each.point is None:
        return f"≥ {format_batch_size(each.sizes[-1])}"
    return f"{'≤ ' if each.point == each.sizes[0] else ''}{format_batch_size(each.point)}"


def _interval(each: "Saturation") -> str:
    if each.low is None:
        return "–"
    below = "≤ " if each.low == each.sizes[0] else ""
    if each.high is None:
        return f"from {below}{format_batch_size(each.low)}"
    if each.low == each.high:
        return f"{below}{format_batch_size(each.low)}"
    return f"{below}{format_batch_size(each.low)} to {format_batch_size(each.high)}"


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
    if margin is not None and not margin > 0:
        raise InputError(f"--margin {margin:g}: expected more than 0 points, such as 0.5")
    base = parse_batch_size(reference)
    from repro.results.stats.comparison import compare_losses
    from repro.results.stats.saturation import analyse
    from repro.results.tables import load

    loaded, metrics = chosen_metrics(load(table, runs), metrics)
    columns = chosen_series(loaded, by)
    found = [each for metric in metrics for each in analyse(loaded, metric, columns, margin, base)]
    if not found:
        raise InputError(f"{table}: no finished run has a batch size and one of {', '.join(metrics) or 'the metrics'}")
    losses = {metric: compare_losses(loaded, metric, columns) for metric in metrics}
    if as_json:
        rows = [{"metric": metric, **row} for metric, each in losses.items() for row in records(each)]
        answer = {"table": table, "saturation": [each.as_dict() for each in found], "losses": rows}
        click.echo(json.dumps(answer, indent=1, allow_nan=False))
        return
    for metric in metrics:
        _print_saturation([each for each in found if each.metric == metric], metric, losses[metric])


def _print_saturation(found: "list[Saturation]", metric: str, losses: "pd.DataFrame") -> None:
    from rich.console import Console

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
