"""Inputs of a report: run directories or tables of results, imported tables, benchmarks, the paper.

A table that cannot be read is left out with a warning (a run directory: a row that says so); none stops a report.
"""

import functools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from repro import results
from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.sweep import Sweep, list_sweeps, load_sweep
from repro.results import tables
from repro.results.tables import ORIGIN, PAPER

logger = logging.getLogger(__name__)

MOST_LOGS = 1000
"""Runs whose training curves a page holds; of more none, since reading them takes too long."""
LOGGED = ("loss", "gradient_norm", "update_norm", "logit_scale", "logit_bias", "positive_logit", "negative_logit")
BESIDE = ("evaluations", "curves")
"""`repro collect` writes these beside a table: results/<sweep>-evaluations.csv and -curves.csv."""
ROW = (ORIGIN, "sweep", "run_id", "examples_seen_at")
"""Columns that tell the rows of a table apart, whichever of them it has."""
TEXTS = ("run_id", "sweep", "setup", "scale", "reason", ORIGIN)
MEASURED = ("step_seconds", "steps", "ranks", "machine", "gpu", "examples_per_second", "peak_memory_bytes")
NEEDED = dict.fromkeys((*RunSpec.model_fields, *MEASURED), np.nan) | dict.fromkeys((*TEXTS, "status"), "")
"""Columns that exhibits count on, and what stands in a table that lacks them."""
NUMBERS = (
    *("batch_size", "micro_batch", "examples_seen", "seed", "threads", "ranks", "steps", "step_seconds"),
    *("learning_rate", "weight_decay", "image_weight_decay", "beta1", "beta2", "token_bottleneck"),
    *("image_learning_rate_multiplier", "text_learning_rate_multiplier", "init_logit_scale", "init_logit_bias"),
    *("negatives_share", "corruption_probability"),
)
DEFAULTS = {"negatives": "all", "negatives_share": 1.0, "corruption": "none", "corruption_probability": 0.0}
"""For rows of an older version, which lack these."""


@dataclass(frozen=True)
class Inputs:
    """Tables that a report is made from; each but `runs` and `published` may be empty.

    runs: of all sweeps, one a row; rows of other origin have its name in the column `origin`. evaluations: accuracy
    during training (repro.results.load_evaluations). curves: columns of the logs that belong to a sweep's result
    (load_curves); logs: more of them, for the page's view of a single run. published: the paper's numbers, one a row.
    bench: tables of results/bench by name. metrics: those to draw, () for each data set's main one.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    curves: pd.DataFrame
    published: pd.DataFrame
    bench: Mapping[str, pd.DataFrame]
    logs: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: tuple[str, ...] = ()

    @functools.cached_property
    def all(self) -> pd.DataFrame:
        """Every row with the columns that exhibits count on, and numbers where numbers belong."""
        runs = self.runs.reset_index(drop=True)
        columns = dict(runs.items())
        columns |= {name: pd.Series(value, runs.index) for name, value in NEEDED.items() if name not in runs}
        columns |= {name: tables.numbers(columns[name]) for name in NUMBERS}
        columns |= {name: columns[name].fillna("").astype(str) for name in TEXTS}
        columns |= {name: columns[name].fillna(value) for name, value in DEFAULTS.items()}
        columns["status"] = columns["status"].fillna("finished").replace("", "finished").astype(str)
        return pd.DataFrame(columns)

    @functools.cached_property
    def ours(self) -> pd.DataFrame:
        return _without_empty_metrics(self.all[self.all["origin"] == ""])

    @functools.cached_property
    def imported(self) -> pd.DataFrame:
        return _without_empty_metrics(self.all[~self.all["origin"].isin(["", PAPER])])

    @functools.cached_property
    def origins(self) -> tuple[str, ...]:
        """Names of the imported series, in the order of their colours."""
        return tuple(sorted(self.imported["origin"].unique()))

    @functools.cached_property
    def paper(self) -> pd.DataFrame:
        """The paper's numbers as runs, metrics from 0 to 1; `source` is the table."""
        return tables.with_mean_recall(tables.published_runs(self.published))

    def paper_table(self, source: str) -> pd.DataFrame:
        """One of the paper's tables, with those columns only that it has."""
        return _without_empty_metrics(self.paper[self.paper["source"] == source])

    def paper_curves(self, source: str) -> pd.DataFrame:
        """One of the paper's tables without rows that have a note: in table 9 the model that was scaled up."""
        table = self.paper_table(source)
        return table[table["note"].isna()] if "note" in table else table

    @functools.cached_property
    def sweeps(self) -> dict[str, Sweep | None]:
        """The files of our runs' sweeps, by name; None where there is none (any more)."""
        return {name: _sweep(name) for name in sorted(self.ours["sweep"].unique())}

    def of(self, *exhibits: str) -> pd.DataFrame:
        """Our runs of the sweeps that reproduce any of these: 'figure 2', 'table 4', 'section 4.3'."""
        return _without_empty_metrics(self.ours[self.ours["sweep"].isin(self.sweeps_of(*exhibits))])

    def sweeps_of(self, *exhibits: str) -> list[str]:
        wanted = set(exhibits)
        return [name for name, sweep in self.sweeps.items() if sweep and reproduced(sweep.reproduces) & wanted]

    def claim(self, *exhibits: str) -> str:
        """The paper's claim, in the words of the sweep's file."""
        claims = (self.sweeps[name].claim for name in self.sweeps_of(*exhibits))
        return " ".join(" ".join(dict.fromkeys(claims)).split())


def reproduced(text: str) -> set[str]:
    """'figures 2, 3 and 8, tables 2' → {'figure 2', 'figure 3', 'figure 8', 'table 2'}."""
    exhibits, kind = set(), ""
    for word, number in re.findall(r"(figure|table|section)s?|(\d+(?:\.\d+)?)", text):
        kind = word or kind
        if number and kind:
            exhibits.add(f"{kind} {number}")
    return exhibits


def read(
    names: Sequence[str] = (),
    runs: Path = Path("runs"),
    tables_folder: Path = Path("results"),
    metrics: Sequence[str] = (),
) -> Inputs:
    """Read sweeps with runs or CSV files of `repro collect`; no names means every sweep. Raises InputError.

    Tables in tables_folder/imported (repro import) and bench (repro bench) join whatever is named. A run that several
    of them hold counts once, as the first of them has it.
    """
    files = _tables_of_runs([name for name in names if name.endswith(".csv")], tables_folder)
    sweeps = [results.choose_sweep(runs, name) for name in names if not name.endswith(".csv")]
    if not names:
        sweeps = sorted(results.sweeps(runs))
        results.choose_sweep(runs, None)  # says how to make some, where there are none
    parts = [results.load(runs)] if not names else [results.load(runs, sweep) for sweep in sweeps]
    parts += [tables.load(file) for file in files]
    parts += _imported(tables_folder / "imported", files)
    table = tables.with_mean_recall(_distinct_rows(parts))
    tables.check_metrics(table, metrics)
    beside = {kind: [_read_csv(_place_beside(name, kind)) for name in files] for kind in BESIDE}
    evaluations = [results.load_evaluations(runs, sweep) for sweep in sweeps]
    kept = {sweep: file.curves for sweep in sweeps if (file := _sweep(sweep)) and file.curves}
    curves = [results.load_curves(runs, sweep, columns) for sweep, columns in kept.items()]
    few = sum(map(len, parts)) <= MOST_LOGS
    return Inputs(
        runs=table,
        evaluations=tables.with_mean_recall(_distinct_rows([*evaluations, *beside["evaluations"]])),
        curves=_distinct_rows([*curves, *beside["curves"]]),
        logs=_distinct_rows([results.load_curves(runs, sweep, LOGGED) for sweep in sweeps if few]),
        published=results.published(),
        bench=_benchmarks(tables_folder),
        metrics=tuple(metrics),
    )


def _tables_of_runs(named: Sequence[str], folder: Path) -> Sequence[str]:
    """Leave out of results/*.csv what joins anyway: measurements and tables beside others. All, where nothing is left.

    (Then the person gets the message that these are no runs.)
    """
    joining = {_place_beside(name, kind).resolve() for name in named for kind in BESIDE}
    joining |= {file.resolve() for file, _ in _measurements(folder)}
    return [name for name in named if Path(name).resolve() not in joining] or named


def _benchmarks(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of `repro bench` by name; a sweep that is a measurement joins under its command's name."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for file, name in [*_measurements(folder), *((file, file.stem) for file in sorted(folder.glob("bench/*.csv")))]:
        parts.setdefault(name, []).append(_read_csv(file))
    return {name: table for name, each in parts.items() if len(table := _joined(each))}


def _measurements(folder: Path) -> list[tuple[Path, str]]:
    """(file, command) of the sweeps that are measurements."""
    measured = {(sweep.name, bench[0]) for sweep in list_sweeps() for s in sweep.scales if (bench := sweep.bench(s))}
    return [(folder / f"{name}.csv", command) for name, command in sorted(measured)]


def _joined(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _distinct_rows(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table with the columns of all, and each row of the first part that has it."""
    parts = [part for part in parts if len(part)]
    table = _joined(parts)
    if "run_id" not in table:
        return table
    part = pd.Series([number for number, each in enumerate(parts) for _ in range(len(each))], table.index)
    first = part.groupby([table[column] for column in ROW if column in table], dropna=False).transform("min")
    return table[(part == first) | table["run_id"].isna()].reset_index(drop=True)


def _imported(folder: Path, named: Sequence[str]) -> list[pd.DataFrame]:
    """The folder's tables but those that are named; rows that do not say their origin go by the file's name."""
    imported = []
    known = {Path(name).resolve() for name in named}
    for file in (file for file in sorted(folder.glob("*.csv")) if file.resolve() not in known):
        try:
            table = tables.load(str(file))
        except InputError as error:
            logger.warning("%s: left out of the report: %s", file, str(error).removeprefix(f"{file}: "))
            continue
        origin = table[ORIGIN].fillna(file.stem) if ORIGIN in table else file.stem
        imported.append(table.assign(**{ORIGIN: origin}))
    return imported


def _place_beside(name: str, kind: str) -> Path:
    return Path(name).with_name(f"{Path(name).stem}-{kind}.csv")


def _read_csv(file: Path) -> pd.DataFrame:
    """Empty where there is no such file, or none that can be read."""
    try:
        return pd.read_csv(file, low_memory=False) if file.exists() else pd.DataFrame()
    except (OSError, ValueError) as error:
        logger.warning("%s: left out of the report: %s", file, error)
        return pd.DataFrame()


def _sweep(name: str) -> Sweep | None:
    """A sweep's file; None for a sweep of one's own, whose file is elsewhere."""
    try:
        return load_sweep(name)
    except InputError:
        return None


def _without_empty_metrics(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out metrics that none of these rows has: other sweeps' data sets."""
    return table.drop(columns=[c for c in table.columns if "/" in c and not table[c].notna().any()])


@functools.cache
def declared() -> dict[str, dict[str, dict]]:
    """The paper's claims and exhibits, as paper.yaml declares them."""
    return yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text())


def stem(name: object) -> str:
    """Any name as a part of a file's name: what is no letter, digit, - or _ becomes -."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in str(name)) or "runs"


def name_and_title(inputs: Inputs, names: Sequence[str]) -> tuple[str, str]:
    """A report's folder: the sweep or table that was named, where it is one; else the scale of its runs, or 'all'."""
    scales = sorted(set(inputs.ours["scale"]))
    name = stem(scales[0] or "all") if len(scales) == 1 else "all"
    title = f"{name} scale" if name != "all" else name
    if len(names) == 1:
        name = title = Path(names[0]).name.removesuffix(".csv")
    return name, f"SigLIP, reproduced: {title}"
