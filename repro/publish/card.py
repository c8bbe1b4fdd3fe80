"""The data card (README.md with the hub's front matter), captions and citations, all computed from the tables."""

import re
from collections.abc import Mapping
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from repro.config.errors import InputError
from repro.config.spec import told_value
from repro.config.sweep import load_sweep
from repro.config.units import format_batch_size, format_bytes, format_examples
from repro.publish.columns import STATUSES, describe
from repro.report import words
from repro.report.markup import markdown_table
from repro.report.words import distinct
from repro.results import tables
from repro.runs.directory import UNFINISHED

TITLE = "Sigmoid against softmax loss in language-image pre-training, batch size by batch size"
PAPER_ENTRY = """\
@inproceedings{zhai2023sigmoid,
  title         = {Sigmoid Loss for Language Image Pre-Training},
  author        = {Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas},
  booktitle     = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year          = {2023},
  eprint        = {2303.15343},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV},
  url           = {https://arxiv.org/abs/2303.15343}
}
"""
PLACES = ("data", "evals", "pretrained", "embeddings", "command", "reason")
"""Columns that may name places of the machine that made them."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (float("inf"), "100K<n<1M"))
Tables = Mapping[str, pd.DataFrame]
FINGERPRINTS = ("data_fingerprint", "model_fingerprint", "pretrained_fingerprint", "warmup_examples")
"""Fields that follow from others, where those are shown."""


def render(tables: Tables, runs: Tables, mark: str) -> str:
    """README.md. tables: all of the folder by name; runs: those with a row a run."""
    places: dict[str, list[str]] = {}
    for name, table in tables.items():
        for column in table:
            places.setdefault(column, []).append(name)
    metrics = [(column, *describe(column)) for column in sorted(places) if "/" in column]
    known = {status for table in tables.values() for status in distinct(table, "status")}
    statuses = [(status, meaning) for status, meaning in STATUSES.items() if status in known]
    together = _together(runs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 Markdown, whose cells are escaped
    )
    return environment.get_template("card.md.j2").render(
        front=yaml.safe_dump(_front_matter(tables), sort_keys=False, allow_unicode=True).strip(),
        mark=mark,
        title=TITLE,
        summary=words.summary(together) if len(together) else "",
        tables=_markdown(_contents(tables, runs)),
        columns=_markdown(_dictionary(places, len(tables))),
        metrics=_markdown(pd.DataFrame(metrics, columns=["column", "unit", "meaning"])),
        statuses=_markdown(pd.DataFrame(statuses, columns=["status", "meaning"])),
        provenance=_markdown(words.provenance(together).drop(columns=["commands", "files"], errors="ignore")),
        limits=words.cautions(together) if len(together) else [],
        citation=bibtex(runs),
        first=next(iter(tables)),
        has_all=bool(runs),
        commands=distinct(together, "command"),
    )


def _together(runs: Tables) -> pd.DataFrame:
    return pd.concat(list(runs.values()), ignore_index=True) if runs else pd.DataFrame()


def _front_matter(tables: Tables) -> dict[str, object]:
    """Front matter for the hub: licence, and a configuration for each table, that of all runs first."""
    rows = sum(len(table) for name, table in tables.items() if name != "all")
    configs = [{"config_name": n, "data_files": f"{n}.csv"} for n in sorted(tables, key=lambda name: name != "all")]
    configs[0]["default"] = True
    return {
        "license": "apache-2.0",
        "pretty_name": TITLE,
        "language": ["en"],
        "tags": ["siglip", "clip", "contrastive-learning", "language-image", "batch-size", "reproduction", "tabular"],
        "size_categories": [next(name for most, name in SIZES if rows < most)],
        "configs": configs,
    }


def title(name: str) -> str:
    """Title of a sweep, and what of the paper it reproduces; the name where its file is not found."""
    try:
        sweep = load_sweep(name)
    except InputError:
        return name
    return f"{sweep.title} ({sweep.reproduces})" if sweep.reproduces else sweep.title


def caption(runs: pd.DataFrame) -> str:
    """Caption of a sweep's table: how much of it there is, and what its numbers are."""
    scales = " and ".join(distinct(runs, "scale"))
    done = int((runs["status"] == "finished").sum())
    spread = " ± standard deviation over seeds" if runs["seed"].nunique() > 1 else ", one seed"
    return f"{done} of {len(runs)} runs finished, {scales} scale; accuracies: mean{spread}. Batch sizes: k = 1,024."


def bibtex(runs: Tables, mark: str = "") -> str:
    """BibTeX entries of these results, and of the paper."""
    together = _together(runs)
    commits = [text[:12] for text in distinct(together, "git_commit")]
    many = f"{len(commits)} commits of the code, which the data card names"
    made_at = many if len(commits) > 3 else ", ".join(commits)
    fields = {
        "title": f"siglip-repro: {TITLE}",
        "author": "{The siglip-repro authors}",
        "year": max((text[:4] for text in distinct(together, "finished_at")), default=""),
        "version": ", ".join(distinct(together, "repro_version")),
        "note": f"Results made at {made_at}" if commits else "",
    }
    fields = {key: value for key, value in fields.items() if value}
    width = max(map(len, fields))
    lines = ",\n".join(f"  {key:<{width}} = {{{value}}}" for key, value in fields.items())
    return f"% {mark}\n" * bool(mark) + f"@misc{{siglip_repro,\n{lines}\n}}\n\n{PAPER_ENTRY}"


def cautions(tables: Tables) -> list[str]:
    """Notes for the person who publishes: columns nobody described, places of their machine."""
    columns = dict.fromkeys(column for table in tables.values() for column in table.columns)
    going = sum(int(table["status"].isin(UNFINISHED).sum()) for table in tables.values() if "spec_hash" in table)
    notes = [f"{going} of the runs not ended yet; publish again when they have"] if going else []
    notes += [f"column '{name}' is not described in the data card" for name in columns if not describe(name)]
    for column in PLACES:
        cells = [cell for table in tables.values() for cell in distinct(table, column)]
        if private := next((cell for cell in cells if re.search(r"(^|[\s='\"])(~|/[\w.-]+/)", cell)), None):
            notes.append(f"column {column} names places of a machine, such as {private[:80]}")
    return notes


def _markdown(table: pd.DataFrame) -> str:
    return markdown_table(table) if len(table) else ""


def _contents(tables: Tables, runs: Tables) -> pd.DataFrame:
    rows = []
    for name, table in sorted(tables.items(), key=lambda item: item[0] != "all"):
        base, _, kind = name.rpartition("-")
        holds = {"evaluations": "accuracy along the way", "curves": "columns of the logs along the way"}.get(kind)
        about = title(name) if name in runs else f"{title(name)}: a measurement"
        about = f"{title(base)}: {holds}" if holds and base in tables else about
        about = "the runs of all sweeps" if name == "all" else about
        rows.append({"table": f"{name}.csv", "rows": len(table), "of": about})
    return pd.DataFrame(rows)


def _dictionary(places: Mapping[str, list[str]], count: int) -> pd.DataFrame:
    rows = []
    for column, names in ((column, names) for column, names in places.items() if "/" not in column):
        unit, meaning = describe(column) or ("", "not described")
        where = ", ".join(names) if len(names) <= 3 else "" if len(names) > count // 2 else f"{len(names)} tables"
        rows.append({"column": column, "unit": unit, "meaning": meaning, "in": where})
    return pd.DataFrame(rows)


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
