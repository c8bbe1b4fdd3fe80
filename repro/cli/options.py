"""Options as people type them: several values after one option, with commas, or the option repeated."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


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
"""Of an option, about eleven days: what process groups count milliseconds in does not hold twice as many."""
TIMEOUT_HELP = "Seconds that ranks wait for one that trains no further."


def runs_option(command: Any) -> Any:
    return click.option(
        "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of all runs."
    )(command)


def joined(values: Sequence[str]) -> str:
    return ", ".join(values)
