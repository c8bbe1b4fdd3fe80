"""Any table of results in one shape: a sweep's runs, a CSV file (ours, or in the paper's long form), the paper.

One row a run, metrics as columns <dataset>/<metric> from 0 to 1, whatever the source; `origin` says whose the row is:
empty for runs of this project, 'paper' for published numbers, otherwise the name under which they were imported.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from repro.config.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

PAPER = "paper"
ORIGIN = "origin"
LONG = ("source", "dataset", "metric", "value")
"""Columns that tell the long form: one number a row."""
METRICS = {"zeroshot_top1": "acc1", "10shot_top1": "10shot_acc1"}
"""The paper's words for metrics → clip-benchmark's, which are ours."""
NEEDED = ("loss", "batch_size")


def load(name: str, runs: Path | str = "runs") -> "pd.DataFrame":
    """The table that `name` means: a CSV file, 'paper' or one table of it ('paper:table-5'), or a sweep with runs.

    Raises InputError that names what was expected, and the nearest.
    """
    import pandas as pd

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


def as_runs(table: "pd.DataFrame", name: str) -> "pd.DataFrame":
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


def _with_numbers(table: "pd.DataFrame", name: str) -> "pd.DataFrame":
    """Numbers where the long form has numbers. Raises InputError naming the file, the row and what stands there."""
    import pandas as pd

    found = {c: pd.to_numeric(table[c], errors="coerce") for c in ("value", "std") if c in table}
    for column, values in found.items():
        if len(wrong := table[column][values.isna() & table[column].notna()]):
            expected = "expected a number in percent, such as 73.4"
            raise InputError(f"{name}, row {wrong.index[0] + 1}: {column} is '{wrong.iloc[0]}'; {expected}")
    return table.assign(**found)


def published_runs(published: "pd.DataFrame", origin: str = PAPER) -> "pd.DataFrame":
    """Numbers in the paper's form, one a row and in percent, as runs: what was measured on the same one makes a row.

    origin: whose they are. published_std (0 to 1) and published_seeds say what is said of the spread (table 7).
    """
    import pandas as pd

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
