"""A sweep's table as papers print it: a row for each series, loss and batch size, means over seeds, in percent."""

import pandas as pd

from repro.config.spec import told_value
from repro.config.units import format_batch_size, format_bytes, format_examples
from repro.results import tables

FINGERPRINTS = ("data_fingerprint", "model_fingerprint", "pretrained_fingerprint", "warmup_examples")
"""Fields that follow from others, where those are shown."""


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Texts; a head breaks at its line feed. Runs without a result are counted by status in the last column."""
    runs = tables.placed(tables.with_mean_recall(runs))
    metrics = [m for m in tables.main_metrics(runs) if tables.numbers(tables.finished(runs)[m]).notna().any()]
    by = tables.series_columns(runs)
    # Columns that say more than the ones before them: the data's fingerprint says nothing beside the setup.
    shown: list[str] = []
    for column in sorted(by, key=lambda name: name in FINGERPRINTS):
        groups = runs.groupby(shown, dropna=False)[column].nunique(dropna=False) if shown else None
        if groups is None or (groups > 1).any():
            shown.append(column)
    rows = []
    for key, part in tables.split(runs, [*by, "loss", "batch_size"]):
        done = part[part["status"] == "finished"]
        row = {name.replace("_", " "): _cell(name, key[name]) for name in shown}
        row |= {"loss": key["loss"], "batch size": format_batch_size(key["batch_size"]), "seeds": str(len(done))}
        for metric in metrics:
            row["\n".join(tables.metric_title(metric)) + " (%)"] = _mean(100 * tables.numbers(done[metric]))
        speed, memory = (tables.numbers(done[name]) for name in ("examples_per_second", "peak_memory_bytes"))
        row["examples/s"] = f"{speed.median():,.0f}" if speed.notna().any() else ""
        row["peak\nmemory"] = format_bytes(memory.max()) if memory.notna().any() else ""
        others = tables.missing(part, metrics[0]) if metrics else part["status"].value_counts().to_dict()
        row["without result"] = ", ".join(f"{n} {status}" for status, n in others.items() if status != "finished")
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "").any()]


def measurement(table: pd.DataFrame) -> pd.DataFrame:
    """A table of measurements: the columns in which its rows differ, as texts."""
    differing = [column for column in table.columns if table[column].nunique(dropna=False) > 1 and column != "reason"]
    cells = {column: [_cell(column, value) for value in table[column]] for column in differing}
    return pd.DataFrame({column.replace("_", " ").replace(" bytes", ""): texts for column, texts in cells.items()})


def _cell(name: str, value: object) -> str:
    if value is None or value != value:
        return "none"
    if name.endswith("_bytes"):
        return format_bytes(float(value))
    if name in ("batch_size", "local_batch", "micro_batch"):
        return format_batch_size(int(value))
    return format_examples(float(value)) if name == "examples_seen" else told_value(name, value)


def _mean(values: pd.Series) -> str:
    values = values.dropna()
    spread = f" ± {values.std():.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}" if len(values) else ""
