"""python -m repro is the command repro."""

from typing import NoReturn

from repro.cli import main
from repro.runs.signals import whole_program


def command() -> NoReturn:
    """The console script."""
    with whole_program():
        main(prog_name="repro")


if __name__ == "__main__":
    command()
