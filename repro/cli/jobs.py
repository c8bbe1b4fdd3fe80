"""The options that say where and how runs are carried out, shared by the commands that start some."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import LONGEST_SECONDS, TIMEOUT_HELP, Number, Several

if TYPE_CHECKING:
    from repro.config.cluster import ClusterProfile
    from repro.config.layout import JobGroup
    from repro.config.spec import RunSpec
    from repro.launch import Cell

OPTIONS = [
    click.option("--executor", help="local (processes), inline (this process) or slurm.  [default: local]"),
    click.option("--cluster", metavar="NAME", help="slurm: profile of the cluster, by name or YAML file."),
    click.option(
        "--job", "job", cls=Several, paths=True, metavar="KEY=VALUE", help="slurm: change the profile's keys."
    ),
    click.option("--array-parallelism", type=click.IntRange(1), help="slurm: jobs of an array that run at a time."),
    click.option("--local-batch", metavar="N", help="slurm: examples a rank holds at most.  [default: the recipe's]"),
    click.option(
        "--jobs", type=click.IntRange(1), help="local: runs side by side.  [default: cores ÷ threads of a run]"
    ),
    click.option("--ranks", type=click.IntRange(1), help="local: processes of each run.  [default: 1]"),
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
EXECUTORS = ("local", "inline", "slurm")
DEFAULTS = {"executor": "local", "workers": 0, "checkpoint_seconds": 300.0, "ranks": 1, "timeout": 600.0}
KEPT = ("sweep", "cluster", "job", "array_parallelism", "local_batch", "jobs", "ranks", "restarts", "auto_micro_batch")
"""Besides DEFAULTS: what `repro retry` takes from the launch before, where it is not given."""
OF_EXECUTORS = {
    "job": ("slurm",),
    "array_parallelism": ("slurm",),
    "local_batch": ("slurm",),
    "jobs": ("local",),
    "ranks": ("local",),
}
"""Options that the other executors would pass over in silence."""


def job_options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def chosen(options: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options given, completed by those of the launch before, and by the defaults. Raises InputError."""
    from repro.config.errors import InputError, nearest

    given = {key: options[key] for key in (*DEFAULTS, *KEPT) if options.get(key) not in (None, ())}
    kept = {key: value for key, value in (before or {}).items() if key in (*DEFAULTS, *KEPT)}
    values = dict.fromkeys(KEPT) | DEFAULTS | kept | given
    if values["executor"] not in EXECUTORS:
        raise InputError(f"unknown executor '{values['executor']}'{nearest(values['executor'], EXECUTORS)}")
    if values["executor"] == "slurm" and not values["cluster"]:
        raise InputError("--executor slurm needs --cluster NAME: a profile that says what a job asks of the cluster")
    if values["executor"] != "slurm" and values["cluster"]:
        raise InputError(f"--cluster {values['cluster']} is for --executor slurm; the executor is {values['executor']}")
    for key in OF_EXECUTORS:
        if key in given and values["executor"] not in OF_EXECUTORS[key]:
            raise InputError(
                f"--{key.replace('_', '-')} is for --executor {' or '.join(OF_EXECUTORS[key])}; "
                f"the executor is {values['executor']}"
            )
    return values


def profile_of(values: dict[str, Any]) -> "ClusterProfile":
    """Raises InputError."""
    from repro.config.cluster import load_profile

    settings = list(values["job"] or ())
    if values["array_parallelism"]:
        settings.append(f"array_parallelism={values['array_parallelism']}")
    if values["restarts"] is not None:
        settings.append(f"requeue={values['restarts']}")
    if values["auto_micro_batch"] is not None:
        settings.append(f"auto_micro_batch={str(values['auto_micro_batch']).lower()}")
    return load_profile(values["cluster"], settings)


def check_jobs(specs: "list[RunSpec]", values: dict[str, Any]) -> None:
    """That every run can be dealt to ranks, and fits them. Raises InputError."""
    if values["executor"] == "slurm":
        from repro.estimate.needs import check_memory

        check_memory(plan(specs, values), profile_of(values))
        return
    for spec in specs:
        spec.check_ranks(values["ranks"])


def plan(specs: "list[RunSpec]", values: dict[str, Any], profile: "ClusterProfile | None" = None) -> "list[JobGroup]":
    """The arrays of jobs that these runs make. Raises InputError."""
    from repro.config.layout import plan_jobs
    from repro.config.sweep import load_sweep, local_batches

    most = local_batches(load_sweep(values["sweep"]), specs, values["local_batch"])
    return plan_jobs(specs, most, profile or profile_of(values))


def as_the_cluster_allows(profile: "ClusterProfile") -> "ClusterProfile":
    """The profile with arrays no larger than the cluster takes. Raises SchedulerError where it does not answer."""
    from repro.launch.scheduler import largest_array

    return profile.model_copy(update={"max_array_size": min(profile.max_array_size, largest_array())})


def start(cells: "list[Cell]", values: dict[str, Any], retry: bool, detach: bool, runs: Path) -> int:
    """Start what is missing, by the chosen executor; returns the command's exit code."""
    if values["executor"] == "slurm":
        return _submit(cells, values, retry, runs)
    if detach:
        return _detach(cells, runs)
    return _run_here(cells, values, retry, runs)


def _submit(cells: "list[Cell]", values: dict[str, Any], retry: bool, runs: Path) -> int:
    from repro.launch import JobSettings, submit
    from repro.launch.scheduler import options_left_out

    profile = profile_of(values)
    if warning := profile.too_short():
        _say(warning)
    if left_out := options_left_out():
        _say(f"not used: {', '.join(left_out)}; the cluster's profile and --job say what a job asks for")
    settings = JobSettings(
        workers=values["workers"],
        checkpoint_seconds=values["checkpoint_seconds"],
        timeout_seconds=values["timeout"],
        restarts=profile.requeue,
        auto_micro_batch=profile.auto_micro_batch,
    )

    def arrays(specs: "list[RunSpec]") -> "list[JobGroup]":
        return plan(specs, values, as_the_cluster_allows(profile))

    submitted = submit(cells, profile, arrays, settings, values, retry, _say)
    count = sum(len(group.runs) for group in submitted)
    _say_what_is_left_alone(len(cells) - count, cells)
    for group in submitted:
        click.echo(f"Submitted job {group.job_id} ({group.name}): {len(group.runs)} runs")
    click.echo(f"\nNext: repro status {cells[0].sweep}{_where(runs)} --watch")
    return 0


def _run_here(cells: "list[Cell]", values: dict[str, Any], retry: bool, runs: Path) -> int:
    from rich.console import Console

    from repro.cli.progress import Progress, glance, sentence
    from repro.cli.tables import print_results
    from repro.launch import JobSettings, default_jobs, launch, needs_a_job, states

    console = Console()
    to_do = [cell for cell, state, _ in states(cells) if needs_a_job(state, retry)]
    _say_what_is_left_alone(len(cells) - len(to_do), cells)
    threads = max((cell.spec.threads for cell in to_do), default=1)
    jobs = values["jobs"] or default_jobs(threads, values["ranks"])
    if to_do:
        click.echo(f"{len(to_do)} runs to do, {jobs} at a time; Ctrl-C stops, typed again goes on.")
    settings = JobSettings(
        workers=values["workers"],
        checkpoint_seconds=values["checkpoint_seconds"],
        timeout_seconds=values["timeout"],
        ranks=values["ranks"],
        restarts=values["restarts"] or 0,
        auto_micro_batch=bool(values["auto_micro_batch"]),
    )
    try:
        with Progress(cells, console) as progress:
            launch(cells, settings, values["executor"], jobs, retry, progress.update, progress.say)
    except KeyboardInterrupt:
        left = sum(cell.state() != "finished" for cell in cells)
        click.echo(f"Stopped; {left} of {len(cells)} runs are not finished. Typed again, the command goes on.")
        return 130
    print_results(cells, console)
    unfinished = [cell for cell in cells if cell.state() != "finished"]
    for cell in unfinished:
        click.echo(sentence(glance(cell)), err=True)
    click.echo(f"\nNext: repro report {cells[0].sweep}{_where(runs)}")
    return 1 if unfinished else 0


def _where(runs: Path) -> str:
    """The option that the next command needs to find these runs."""
    return "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"


def _detach(cells: "list[Cell]", runs: Path) -> int:
    """The same command again, in a session of its own, which outlives the terminal."""
    from repro.launch.records import FOLDER, new_token

    folder = cells[0].directory.path.parent
    log = folder / FOLDER / f"{new_token()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "repro", *(argument for argument in sys.argv[1:] if argument != "--detach")]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603  this very command
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    click.echo(f"Detached as process {process.pid}; it writes to {log}")
    named = f"{folder.name}{_where(runs)}"
    click.echo(f"\nNext: repro status {named} --watch, or repro cancel {named}")
    return 0


def _say_what_is_left_alone(count: int, cells: "list[Cell]") -> None:
    if count:
        found = {cell.state() for cell in cells}
        failed = found - {"finished", "running", "queued", "pending", "interrupted", "cancelled", "corrupt"}
        again = "; --retry runs failed ones again" if failed else ""
        click.echo(f"{count} of {len(cells)} runs are done or under way and not run again{again}.")


def _say(text: str) -> None:
    click.echo(text, err=True)
