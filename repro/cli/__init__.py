"""The command `repro`. Commands import what they need when they run, so that --help and mistakes answer at once."""

import importlib
from typing import Any

import click

from repro.config.errors import InputError

SECTIONS = {
    "From a sweep to its report": {
        "plan": ("repro.cli.plan:plan", "Predict FLOPs, memory, time and disk of a sweep, before it starts."),
        "sweep": ("repro.cli.sweep:sweep", "Expand a sweep into runs and run what is missing; alone, list the sweeps."),
        "status": ("repro.cli.status:status", "Show every run of a sweep: state, progress, speed, reason."),
        "logs": ("repro.cli.status:logs", "Show what a run logged and printed; -f follows it."),
        "cancel": ("repro.cli.sweep:cancel", "Stop the runs of a sweep, or some; each leaves a checkpoint."),
        "retry": ("repro.cli.sweep:retry", "Run failed runs again."),
        "collect": ("repro.cli.results:collect", "Write the results table, results/<sweep>.csv."),
        "report": ("repro.cli.results:report", "Draw the figures beside the paper's and write the page."),
    },
    "From results": {
        "saturation": ("repro.cli.compare:saturation", "Say where growing the batch stops paying, and how surely."),
        "compare": ("repro.cli.compare:compare", "Compare two tables row by row: ours, others', the paper's."),
        "import": (
            "repro.cli.results:import_",
            "Make results of others rows of a table: clip-benchmark, open_clip, CSV.",
        ),
        "publish": ("repro.cli.results:publish", "Write results/ as a data set: tables, LaTeX, data card; push it."),
    },
    "One run": {
        "run": ("repro.cli.run:run", "Run one spec in the foreground, also under torchrun."),
        "eval": ("repro.cli.run:evaluate", "Evaluate a run or a checkpoint with clip-benchmark."),
    },
    "Data": {
        "data": ("repro.cli.data:data", "Make the embedded world; check your own shards; embed their images."),
    },
    "Measure": {
        "bench": ("repro.cli.bench:bench", "Measure the losses beside others, and all of it on a GPU."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class MistakesNamed(click.Group):
    """Commands whose users' mistakes (InputError) are a message and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            message = click.ClickException(str(error))
            message.exit_code = 2
            raise message from None


class Repro(MistakesNamed):
    """Commands by sections, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            from repro.config.errors import nearest

            ctx.fail(f"unknown command '{args[0]}'{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in entries.items()])


@click.command(
    cls=Repro,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with: repro sweep batch-size --loss sigmoid softmax, then: repro report",
)
@click.version_option(package_name="siglip-repro")
def main() -> None:
    """How the sigmoid and the softmax loss behave as the batch grows: accuracy, speed, memory, beside the paper's."""
