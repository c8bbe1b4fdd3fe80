"""A sweep that is a measurement: the command of `repro bench` that its file names, with the file's options."""

import shlex
from typing import TYPE_CHECKING, Any

import click

from repro.config.errors import InputError, nearest

if TYPE_CHECKING:
    from repro.config.sweep import Sweep

NOT_FOR_THESE = ("batch_size", "seed", "setup", "examples", "data", "evals", "executor", "ranks", "detach")
"""Options of `repro sweep` that are about runs."""


def measure(sweep: "Sweep", options: dict[str, Any], dry_run: bool) -> None:
    """Measure, or say what would be measured. The table goes to results/<sweep>.csv. Raises InputError."""
    from repro.cli.bench import bench
    from repro.config.reading import split_setting

    name, given = sweep.bench(options["scale"])
    where = f"{sweep.file}: scales.{options['scale']}.bench"
    if name not in bench.commands:
        raise InputError(f"{where}: unknown command '{name}'{nearest(name, bench.commands)}")
    for option in NOT_FOR_THESE:
        if options[option]:
            raise InputError(
                f"--{option.replace('_', '-')} is for sweeps of runs, and '{sweep.name}' is a measurement; "
                f"change it with --loss and --set OPTION=VALUE, of the options of repro bench {name}"
            )
    given = given | {"loss": list(options["loss"])} if options["loss"] else given
    for text in options["settings"]:
        key, value = split_setting(text, "--set", "memory=2GB")
        given = given | {key.replace("_", "-"): value}
    arguments: list[str] = []
    for option, value in ({"out": f"results/{sweep.name}.csv"} | given).items():
        arguments += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    click.echo(f"{sweep.title}: repro bench {name} {shlex.join(arguments)}")
    if dry_run:
        click.echo("nothing was measured (--dry-run).")
        return
    try:
        bench.commands[name].main(arguments, prog_name=f"repro bench {name}", standalone_mode=False)
    except click.UsageError as error:
        raise InputError(f"{where}.{name}: {error.format_message()}") from None
