"""Options as people type them: several values after one option, with commas, or the option repeated. And which runs a
command means: a sweep's name, or runs by id, a part of one that names it alone, or directory.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.config.errors import InputError, nearest
from repro.config.setups import SETUPS
from repro.loss.registry import LOSSES

if TYPE_CHECKING:
    import pandas as pd

    from repro.launch import Cell


class Several(click.Option):
    """--loss sigmoid softmax = --loss sigmoid,softmax = --loss sigmoid --loss softmax. Paths keep their commas."""

    def __init__(self, *args: Any, paths: bool = False, **kwargs: Any):
        super().__init__(*args, multiple=True, **kwargs)
        self.paths = paths

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        values = super().process_value(ctx, value)
        return values if self.paths else tuple(part for text in values for part in text.split(",") if part)


class CommandWithSeveral(click.Command):
    """Gives each further value after a Several option its own copy of the option, which is what click reads."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        several = {name for p in self.params if isinstance(p, Several) for name in p.opts}
        spelled_out: list[str] = []
        current = None
        for position, argument in enumerate(args):
            if argument.startswith("-") and len(argument) > 1:
                name, equals, _ = argument.partition("=")
                current = name if name in several and not equals else None
                spelled_out.append(argument)
            elif current is not None and args[position - 1] != current:
                spelled_out += [current, argument]
            else:
                spelled_out.append(argument)
        return super().parse_args(ctx, spelled_out)


class Number(click.FloatRange):
    """A number in a range. 'nan' and 'inf' are refused: click lets them pass, and nothing after it expects them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


LONGEST_SECONDS = 1e6
"""Largest value of an option, about eleven days: the milliseconds of process groups do not hold twice as many."""

AXES = {"loss": "loss", "batch_size": "batch_size", "seed": "seed", "setup": "setup", "examples": "examples_seen"}
"""Options that are axes → fields of the spec."""
SPEC_OPTIONS = [
    click.option("--loss", cls=Several, help=", ".join(LOSSES) + "."),
    click.option("--batch-size", cls=Several, help="Global batch sizes: 512 1k 32k (k = 1,024)."),
    click.option("--seed", cls=Several, help="Seeds: 0 1 2."),
    click.option("--setup", cls=Several, help=", ".join(SETUPS) + "."),
    click.option("--examples", cls=Several, help="Training lengths: 65k 3B (k = 1,000)."),
    click.option("--scale", default="laptop", show_default=True, help="laptop, gpu or paper."),
    click.option(
        "--set", "settings", cls=Several, paths=True, metavar="KEY=VALUE", help="Any other field of the spec."
    ),
    click.option("--data", metavar="PATTERN", help="Shards: 'cc12m/{00000..01242}.tar', pipe: or http(s): URLs."),
    click.option(
        "--eval", "evals", cls=Several, paths=True, metavar="DIR|NAME", help="clip-benchmark folders or names."
    ),
]
"""They choose the runs of a sweep: of `repro sweep` and `repro plan`."""

TIMEOUT_HELP = "Seconds that ranks wait for one that trains no further."
CLUSTER_OPTIONS = [
    click.option("--cluster", metavar="NAME", help="slurm: profile of the cluster, by name or YAML file."),
    click.option("--job", cls=Several, paths=True, metavar="KEY=VALUE", help="slurm: change the profile's keys."),
    click.option("--local-batch", metavar="N", help="slurm: examples a rank holds at most.  [default: the recipe's]"),
]
HERE_OPTIONS = [
    click.option(
        "--jobs", type=click.IntRange(1), help="local: runs side by side.  [default: cores ÷ threads of a run]"
    ),
    click.option("--ranks", type=click.IntRange(1), help="local: processes of each run.  [default: 1]"),
]
JOB_OPTIONS = [
    click.option("--executor", help="local (processes), inline (this process) or slurm.  [default: local]"),
    *CLUSTER_OPTIONS,
    click.option("--array-parallelism", type=click.IntRange(1), help="slurm: jobs of an array that run at a time."),
    *HERE_OPTIONS,
    click.option("--detach", is_flag=True, help="local: go on in the background when the terminal closes."),
    click.option("--workers", type=click.IntRange(0), help="Data workers of each rank.  [default: 0]"),
    click.option("--checkpoint-seconds", type=Number(0), help="Between two checkpoints of a run.  [default: 300]"),
    click.option(
        "--restarts", type=click.IntRange(0), help="Starts again after a rank died.  [default: 0; slurm: profile]"
    ),
    click.option("--timeout", type=Number(1, LONGEST_SECONDS), help=f"{TIMEOUT_HELP}  [default: 600]"),
    click.option(
        "--auto-micro-batch/--no-auto-micro-batch", default=None, help="Out of memory: halve the micro-batch."
    ),
]
"""They say where and how runs are carried out (launch.prepare.Options)."""


def with_options(*options: Any) -> Callable[[Any], Any]:
    """A decorator that adds options, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def runs_option(command: Any) -> Any:
    return click.option(
        "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of all runs."
    )(command)


def overrides(options: dict[str, Any]) -> Any:
    """Changes that SPEC_OPTIONS make to a sweep, as sweep.Overrides. Raises InputError."""
    from repro.config.sweep import Overrides, parse_setting
    from repro.data.eval_sets import WORLDS

    axes = {field: list(options[option]) for option, field in AXES.items() if options[option]}
    values = dict(parse_setting(text) for text in options["settings"])
    if options["data"]:
        values["data"] = options["data"]
        if options["data"].partition(":")[0] not in WORLDS:
            values["evals"] = ()
        elif options["scale"] != "laptop":
            values["evals"] = ("shapes",)
    if options["evals"]:
        values["evals"] = options["evals"]
    return Overrides(axes, values)


def select(targets: Sequence[str], runs: Path) -> "dict[str, list[Cell]]":
    """Sweep → its chosen runs. No target: the most recent sweep. Raises InputError with the nearest name."""
    from repro import results
    from repro.cli.status import read_cells
    from repro.launch import Cell

    found: dict[str, dict[str, Cell]] = {}
    sweeps = results.sweeps(runs)
    for target in targets or [results.choose_sweep(runs, None)]:
        cells = read_cells(runs, target)[0] if target in sweeps else [one_run(target, runs)]
        for cell in cells:
            found.setdefault(cell.sweep, {}).setdefault(cell.directory.path.name, cell)
    return {sweep: list(cells.values()) for sweep, cells in found.items()}


def one_run(target: str, runs: Path) -> "Cell":
    """Raises InputError, with the nearest, where no run or more than one is meant."""
    from repro.config.files import CorruptRun
    from repro.launch import Cell
    from repro.runs.directory import find_run, run_directories

    directory = find_run(target, runs)
    if directory is None:
        every = run_directories(runs)
        meant = [one for one in every if target in one.path.name]
        if len(meant) != 1:
            names = [one.path.name for one in every]
            several = f": {len(meant)} runs have it in their names, first {meant[0].path.name}" if meant else ""
            raise InputError(f"no run '{target}' in {runs}{several or nearest(target, names)}")
        directory = meant[0]
    try:
        return Cell(directory.read_spec(), directory)
    except CorruptRun as error:
        raise InputError(str(error)) from None


def chosen_metrics(table: "pd.DataFrame", names: Sequence[str]) -> "tuple[pd.DataFrame, list[str]]":
    """The table with mean recalls, and the metrics: those named, or one of each data set. Raises InputError."""
    from repro.results.tables import check_metrics, main_metrics, with_mean_recall

    wide = with_mean_recall(table)
    check_metrics(wide, names)
    return wide, list(names) or main_metrics(wide)


def chosen_series(table: "pd.DataFrame", names: Sequence[str]) -> list[str] | None:
    """The columns named with --by, None for all that differs. Raises InputError; warns where unlike runs are mixed."""
    if not names:
        return None
    from repro.results.tables import series_columns

    known = [column for column in table.columns if "/" not in column]
    for name in names:
        if name not in known:
            raise InputError(f"--by {name}: no such column{nearest(name, known)}")
    if mixed := [column for column in series_columns(table) if column not in names]:
        click.echo(f"--by: runs that differ in {', '.join(mixed)} are averaged as if they were seeds", err=True)
    return list(dict.fromkeys([*names, "loss"]))
