"""repro run: one spec in the foreground, under torchrun on many ranks. repro eval: its numbers, or a checkpoint's."""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from repro.cli.options import LONGEST_SECONDS, TIMEOUT_HELP, CommandWithSeveral, Number, Several, runs_option


@click.command()
@click.argument("spec_file", metavar="SPEC.json", type=click.Path(path_type=Path))
@click.option("--sweep", default="single", show_default=True, help="Name to file the run under, in the runs folder.")
@runs_option
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Data workers of each rank.")
@click.option("--checkpoint-seconds", type=Number(0), default=300.0, show_default=True, help="Between two checkpoints.")
@click.option("--timeout", type=Number(1, LONGEST_SECONDS), default=600.0, show_default=True, help=TIMEOUT_HELP)
def run(spec_file: Path, sweep: str, runs: Path, timeout: float, **options: Any) -> None:
    """Train and evaluate the run that SPEC.json describes.

    A spec.json inside a run directory is run there. On several ranks:
    torchrun --nproc-per-node 2 --no-python repro run SPEC.json
    """
    from repro.config.errors import InputError, Interrupted
    from repro.launch.prepare import prepare_run

    cell = prepare_run(spec_file, runs, sweep)
    spec = cell.spec
    first, alone = int(os.environ.get("RANK", 0)) == 0, int(os.environ.get("WORLD_SIZE", 1)) == 1
    if cell.state() == "finished":
        click.echo(f"{cell.directory.path} is finished; nothing to do.") if first else None
        return

    from repro.runs.execute import run as run_one
    from repro.runs.liveness import leave
    from repro.train.loop import Options

    os.environ.setdefault("TQDM_DISABLE", "1")
    click.echo(f"{spec.run_id}: {spec.steps:,} steps, in {cell.directory.path}") if first else None
    try:
        result = run_one(spec, cell.directory, Options(timeout_seconds=timeout, **options))
    except Interrupted as stopped:
        click.echo(f"{stopped}; typed again, the command goes on.", err=True)
        leave(130)
    except Exception as error:
        if alone:
            raise
        click.echo(str(error), err=True) if isinstance(error, InputError) else traceback.print_exc()
        leave(2 if isinstance(error, InputError) else 1)  # its peers are stuck in the group: it cannot leave it
    if first:
        print_result(result)
    sys.exit(0 if result["status"] == "finished" else 1)


def print_result(result: dict) -> None:
    reason = f": {result['reason']}" if result.get("reason") else ""
    click.echo(f"{result['status']}{reason}")
    if result.get("examples_per_second"):
        click.echo(f"{result['examples_per_second']:,.0f} examples/s")
    for name, value in result.get("metrics", {}).items():
        click.echo(f"{name}  {value:.4f}")


@click.command("eval", cls=CommandWithSeveral)
@click.argument("target", metavar="RUN|CHECKPOINT")
@click.option("--eval", "evals", cls=Several, paths=True, metavar="DIR|NAME", help="Default: the run's own.")
@click.option("--model", help="The checkpoint's model, where no open_clip_config.json lies beside it.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the JSON of a checkpoint that is no run.")
@runs_option
def evaluate(target: str, evals: tuple[str, ...], model: str | None, out: Path | None, runs: Path) -> None:
    """Evaluate a run (its id or directory), or an open_clip checkpoint (a file or local-dir folder).

    A run's results are renewed; of a checkpoint the metrics are printed.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    from repro.config.errors import EvaluationFailed, InputError
    from repro.config.files import CorruptRun
    from repro.data.eval_sets import WORLDS, check_eval, parts, split_shots
    from repro.runs.directory import find_run

    for name in dict.fromkeys(part for given in evals if split_shots(given)[0] not in WORLDS for part in parts(given)):
        check_eval(name)
    directory = find_run(target, runs)
    try:
        if directory is not None:
            from repro.runs.execute import evaluate_again

            print_result(evaluate_again(directory, evals))
        else:
            from repro.evaluate import evaluate_checkpoint

            print_result({"status": "evaluated", "metrics": evaluate_checkpoint(Path(target), evals, model, out)})
    except CorruptRun as error:
        raise InputError(str(error)) from None
    except EvaluationFailed as error:
        print_result({"status": "failed", "reason": str(error), "metrics": error.metrics})
        sys.exit(1)
