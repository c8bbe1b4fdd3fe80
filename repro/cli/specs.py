"""The options that choose the runs of a sweep, shared by `repro sweep` and `repro plan`."""

from typing import Any

import click

from repro.cli.options import Several
from repro.config.setups import SETUPS
from repro.loss.registry import LOSSES

AXES = {"loss": "loss", "batch_size": "batch_size", "seed": "seed", "setup": "setup", "examples": "examples_seen"}
"""Options that are axes → fields of the spec."""
OPTIONS = [
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


def spec_options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def overrides(options: dict[str, Any]) -> Any:
    """What these options change of a sweep, as sweep.Overrides. Raises InputError."""
    from repro.config.sweep import Overrides, parse_setting

    axes = {field: list(options[option]) for option, field in AXES.items() if options[option]}
    values = dict(parse_setting(text) for text in options["settings"])
    if options["data"]:
        values |= {"data": options["data"], "evals": ()}
    if options["evals"]:
        values["evals"] = options["evals"]
    return Overrides(axes, values)
