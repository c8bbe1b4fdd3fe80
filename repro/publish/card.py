"""The data card (README.md with the hub's front matter), captions and citations: all told from the tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from repro.config.errors import InputError
from repro.config.sweep import load_sweep
from repro.config.units import format_batch_size, format_examples
from repro.publish import columns
from repro.report import words
from repro.report.written import markdown as markdown_table
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
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def render(tables: Mapping[str, pd.DataFrame], runs: Mapping[str, pd.DataFrame], mark: str) -> str:
    """README.md. tables: all of the folder by name; runs: those with a row a run."""
    named = {
        column: [n for n, table in tables.items() if column in table] for table in tables.values() for column in table
    }
    statuses = {str(status) for table in tables.values() if "status" in table for status in table["status"].dropna()}
    together = pd.concat(list(runs.values()), ignore_index=True) if runs else pd.DataFrame()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 Markdown, whose cells written.markdown escapes
    )
    return environment.get_template("card.md.j2").render(
        front=yaml.safe_dump(front_matter(tables), sort_keys=False, allow_unicode=True).strip(),
        mark=mark,
        title=TITLE,
        summary=words.summary(together) if len(together) else "",
        tables=markdown(_contents(tables, runs)),
        columns=markdown(_dictionary(named, len(tables))),
        metrics=markdown(_metrics(named)),
        statuses=markdown(
            pd.DataFrame([{"status": s, "meaning": text} for s, text in columns.STATUSES.items() if s in statuses])
        ),
        provenance=markdown(_provenance(runs)),
        versions=_versions(together),
        limits=words.cautions(together) if len(together) else [],
        citation=bibtex(runs),
        first=next(iter(tables)),
        has_all=bool(runs),
        commands=_distinct(together, "command"),
    )


def front_matter(tables: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """What the hub reads: licence, and a configuration for each table, that of all runs first."""
    rows = sum(len(table) for name, table in tables.items() if name != "all")
    configs = [{"config_name": n, "data_files": f"{n}.csv"} for n in sorted(tables, key=lambda name: name != "all")]
    configs[0]["default"] = True
    return {
        "license": "apache-2.0",
        "pretty_name": TITLE,
        "language": ["en"],
        "tags": ["siglip", "clip", "contrastive-learning", "language-image", "batch-size", "reproduction", "tabular"],
        "size_categories": [next((name for most, name in SIZES if rows < most), "1M<n<10M")],
        "configs": configs,
    }


def title(name: str) -> str:
    """Of a sweep, and what of the paper it reproduces; the name where its file is not found."""
    try:
        sweep = load_sweep(name)
    except InputError:
        return name
    return f"{sweep.title} ({sweep.reproduces})" if sweep.reproduces else sweep.title


def caption(runs: pd.DataFrame) -> str:
    """What a reader of a sweep's table has to know: how much of it there is, and what its numbers are."""
    scales = " and ".join(sorted(map(str, runs["scale"].dropna().unique())))
    done = int((runs["status"] == "finished").sum())
    spread = " ± standard deviation over seeds" if runs["seed"].nunique() > 1 else ", one seed"
    return f"{done} of {len(runs)} runs finished, {scales} scale; accuracies: mean{spread}. Batch sizes: k = 1,024."


def bibtex(runs: Mapping[str, pd.DataFrame], mark: str = "") -> str:
    """How to cite these results, and the paper."""
    together = pd.concat(list(runs.values()), ignore_index=True) if runs else pd.DataFrame()
    years = [text[:4] for text in _distinct(together, "finished_at")]
    commits = [text[:12] for text in _distinct(together, "git_commit")]
    made_at = (
        ", ".join(commits) if len(commits) <= 3 else f"{len(commits)} commits of the code, which the data card names"
    )
    fields = {"title": f"siglip-repro: {TITLE}", "author": "{The siglip-repro authors}"}
    fields |= {"year": max(years)} if years else {}
    fields |= (
        {"version": ", ".join(_distinct(together, "repro_version"))} if _distinct(together, "repro_version") else {}
    )
    fields |= {"note": f"Results made at {made_at}"} if commits else {}
    width = max(map(len, fields))
    lines = ",\n".join(f"  {key:<{width}} = {{{value}}}" for key, value in fields.items())
    first = f"% {mark}\n" if mark else ""
    return f"{first}@misc{{siglip_repro,\n{lines}\n}}\n\n{PAPER_ENTRY}"


def cautions(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What the person who publishes should look at first: columns nobody described, places of their machine."""
    every = [column for table in tables.values() for column in table.columns]
    going = sum(int(table["status"].isin(UNFINISHED).sum()) for table in tables.values() if "spec_hash" in table)
    notes = [f"{going} of the runs not ended yet; publish again when they have"] if going else []
    notes += [f"column '{name}' is not described in the data card" for name in columns.undescribed(every)]
    for column in PLACES:
        cells = [str(cell) for table in tables.values() if column in table for cell in table[column].dropna().unique()]
        if private := next((cell for cell in cells if re.search(r"(^|[\s='\"])(~|/[\w.-]+/)", cell)), None):
            notes.append(f"column {column} names places of a machine, such as {private[:80]}")
    return notes


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table; heads in one line."""
    return markdown_table(table.rename(columns=lambda name: str(name).replace("\n", " "))) if len(table) else ""


def _contents(tables: Mapping[str, pd.DataFrame], runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rows = []
    for name, table in sorted(tables.items(), key=lambda item: item[0] != "all"):
        base, _, kind = name.rpartition("-")
        holds = {"evaluations": "accuracy along the way", "curves": "columns of the logs along the way"}.get(kind)
        if name == "all":
            about = "the runs of all sweeps"
        elif holds and base in tables:
            about = f"{title(base)}: {holds}"
        else:
            about = title(name) if name in runs else f"{title(name)}: a measurement"
        rows.append({"table": f"{name}.csv", "rows": len(table), "of": about})
    return pd.DataFrame(rows)


def _dictionary(named: Mapping[str, Sequence[str]], count: int) -> pd.DataFrame:
    rows = []
    for column, tables in named.items():
        if "/" in column:
            continue
        unit, meaning = columns.describe(column) or ("", "not described")
        where = ", ".join(tables) if len(tables) <= 3 else "" if len(tables) > count // 2 else f"{len(tables)} tables"
        rows.append({"column": column, "unit": unit, "meaning": meaning, "in": where})
    return pd.DataFrame(rows)


def _metrics(named: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    metrics = sorted(column for column in named if "/" in column)
    rows = []
    for column in metrics:
        unit, meaning = columns.describe(column) or ("", "")
        rows.append({"column": column, "unit": unit, "meaning": meaning})
    return pd.DataFrame(rows)


def _provenance(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a sweep: where its numbers come from."""
    rows = []
    for name, table in runs.items():
        dirty = table.get("git_dirty", pd.Series(dtype=object)).astype(str).eq("True").any()
        sizes = [format_batch_size(int(size)) for size in sorted(table["batch_size"].dropna().unique())]
        lengths = [format_examples(float(count)) for count in sorted(table["examples_seen"].dropna().unique())]
        commits = ", ".join(text[:12] for text in _distinct(table, "git_commit"))
        rows.append(
            {
                "sweep": name,
                "runs": len(table),
                "finished": int((table["status"] == "finished").sum()),
                "batch sizes": ", ".join(sizes),
                "examples seen": ", ".join(lengths),
                "seeds": ", ".join(f"{float(seed):.0f}" for seed in sorted(table["seed"].dropna().unique())),
                "commit": commits + (" (with uncommitted changes)" if dirty else ""),
                "machine": ", ".join([*_distinct(table, "machine"), *_distinct(table, "gpu")]),
                "data fingerprint": ", ".join(_distinct(table, "data_fingerprint")),
                "model": ", ".join(_distinct(table, "model")),
                "last run finished": max(_distinct(table, "finished_at"), default=""),
            }
        )
    return pd.DataFrame(rows)


def _versions(table: pd.DataFrame) -> str:
    found = {c: _distinct(table, c) for c in table.columns if c.endswith("_version")}
    return ", ".join(f"{c.removesuffix('_version')} {' and '.join(values)}" for c, values in found.items() if values)


def _distinct(table: pd.DataFrame, column: str) -> list[str]:
    return sorted({str(value) for value in table[column].dropna() if value != ""}) if column in table else []
