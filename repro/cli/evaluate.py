"""repro eval: clip-benchmark's numbers of a run or of any open_clip checkpoint."""

import os
import sys
from pathlib import Path

import click

from repro.cli.options import CommandWithSeveral, Several, runs_option


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
    from repro.cli.run import print_result
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
