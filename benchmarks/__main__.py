"""Benchmarks of the project itself, from a checkout: python -m benchmarks NAME [OPTIONS].

They measure whole commands, runs beside open_clip's trainer, what checkpoints cost, and the statistics;
results go to results/bench/. The losses beside their peers, and a GPU, are measured by `repro bench`.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli import MistakesNamed
from repro.cli.options import CommandWithSeveral, Several

if TYPE_CHECKING:
    import pandas as pd


@click.group(cls=MistakesNamed, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Measure the project beside others and beside its own promises; results go to results/bench/."""


@main.command(short_help="Training throughput beside open_clip's own trainer.")
@click.option("--data", default="shapes:65536", show_default=True, metavar="PATTERN", help="Shards to train on.")
@click.option("--batch-size", default="256", show_default=True)
@click.option("--examples", default="16384", show_default=True, help="Examples of one measurement.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads of the towers.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Data workers.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--peer-python",
    type=click.Path(path_type=Path),
    help="Interpreter of an environment with open_clip_torch[training] and webdataset<=0.2.86.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench/train.csv"), show_default=True)
def train(data: str, batch_size: str, examples: str, peer_python: Path | None, out: Path, **settings: int) -> None:
    """Examples a second of one model on the same shards: ours, and open_clip's trainer where --peer-python is given."""
    from benchmarks import fresh, trainers
    from repro.config.units import parse_batch_size, parse_examples
    from repro.world.source import is_shapes, make_world

    pattern = make_world(data, os.cpu_count() or 1).train_pattern if is_shapes(data) else os.path.abspath(data)
    table = trainers.compare(
        pattern,
        batch_size=parse_batch_size(batch_size),
        examples=parse_examples(examples),
        peer_python=peer_python,
        **settings,
    )
    fresh.write(table, out)
    reference = trainers.OPEN_CLIP if peer_python else trainers.OURS_DECODING
    _print(fresh.summary(table, "examples_per_second", reference), out)


@main.command(cls=CommandWithSeveral, short_help="Peak memory of a run against its batch size.")
@click.option("--batch-size", cls=Several, default=["1k", "4k", "16k"], show_default=True)
@click.option("--micro-batch", default="512", show_default=True)
@click.option("--loss", default="sigmoid", show_default=True)
@click.option("--data", default="shapes:65536", show_default=True, metavar="PATTERN", help="Shards to train on.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench/memory.csv"), show_default=True)
def memory(batch_size: tuple[str, ...], micro_batch: str, loss: str, data: str, out: Path) -> None:
    """Peak memory of a laptop run at each batch size, and its ratio to the first."""
    from benchmarks import fresh
    from benchmarks import memory as measuring
    from repro.config.units import parse_batch_size

    table = measuring.compare([parse_batch_size(b) for b in batch_size], parse_batch_size(micro_batch), loss, data)
    fresh.write(table, out)
    _print(table, out)


@main.command(short_help="What checkpoints cost, and what a kill costs with them.")
@click.option("--model", default="laptop", show_default=True)
@click.option("--batch-size", default="256", show_default=True)
@click.option("--examples", default="65536", show_default=True, help="Examples of one run.")
@click.option("--every", default=2.0, show_default=True, metavar="SECONDS", help="Between two checkpoints.")
@click.option("--data", default="shapes:65536", show_default=True, metavar="PATTERN", help="Shards to train on.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads of the towers.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench/checkpoint.csv"), show_default=True)
def checkpoint(model: str, batch_size: str, examples: str, every: float, out: Path, **settings: Any) -> None:
    """The same run with checkpoints and without, in turn; one checkpoint; and going on after a kill (SIGKILL)."""
    from benchmarks import checkpoint as measuring
    from repro.bench import record
    from repro.config.units import parse_batch_size, parse_examples

    table = measuring.compare(model, parse_batch_size(batch_size), parse_examples(examples), every, **settings)
    record.update(table, out, ["model", "batch_size", "implementation", "repeat"])
    _print(measuring.summary(table), out, decimals=4)


@main.command("text-step", cls=CommandWithSeveral, short_help="A siglit step beside the bare text tower.")
@click.option("--loss", cls=Several, default=("sigmoid", "softmax"), help="sigmoid, softmax.")
@click.option("--batch-size", cls=Several, default=("512",), help="Batch sizes, each in one micro-batch.")
@click.option("--micro-batch", metavar="N", help="Texts that pass the tower at once.  [default: the batch]")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Of each repeat.")
@click.option("--data", default="shapes:65536", show_default=True, metavar="PATTERN", help="Shards to train on.")
@click.option("--pretrained", default="laptop-tower", show_default=True, help="Weights of the frozen tower.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads of the tower.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results/bench/siglit-step.csv"), show_default=True
)
def text_step(
    loss: tuple[str, ...], batch_size: tuple[str, ...], micro_batch: str | None, out: Path, **settings: Any
) -> None:
    """Training over embeddings beside what its text tower alone costs, forward and backward, with tokens in memory."""
    import pandas as pd

    from benchmarks import text_step as measuring
    from repro.bench import record
    from repro.config.units import parse_batch_size

    tables = []
    for size in map(parse_batch_size, batch_size):
        parts = parse_batch_size(micro_batch) if micro_batch else size
        tables += [measuring.compare(each, size, parts, **settings) for each in loss]
    table = pd.concat(tables, ignore_index=True)
    keys = ["model", "data", "loss", "batch_size", "micro_batch", "threads"]
    record.update(table, out, [*keys, "repeat"])
    measured = ["step_seconds", "tower_seconds", "ratio", "cpu_ratio", "examples_per_second"]
    _print(table.groupby(keys[2:], sort=False)[measured].median().reset_index(), out, decimals=4)


@main.command(short_help="Commands over grids of up to 10,000 runs, on disk and in SLURM's queue.")
@click.option("--runs", default=1000, show_default=True, help="Of the grid; a multiple of 10.")
@click.option("--collected", default=10_000, show_default=True, help="Runs that `repro collect` reads.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench/grid.csv"), show_default=True)
def grid(runs: int, collected: int, repeats: int, out: Path) -> None:
    """Seconds of whole commands (sweep --dry-run, status, collect …), and their calls of SLURM's where one answers."""
    import tempfile

    from benchmarks import fresh
    from benchmarks import grid as measuring

    with tempfile.TemporaryDirectory(prefix="repro-grid-") as folder:
        table = measuring.compare(Path(folder), runs, collected, repeats, click.echo)
    fresh.write(table, out)
    _print(measuring.summary(table), out)


@main.command("coverage", short_help="How often the intervals of repro saturation hold, on simulated curves.")
@click.option("--simulations", type=click.IntRange(1), default=500, show_default=True, help="Of each kind of curve.")
@click.option("--bootstraps", type=click.IntRange(1), default=100, show_default=True, help="Of them, resampled too.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench/saturation.csv"), show_default=True)
def coverage_(simulations: int, bootstraps: int, out: Path) -> None:
    """Coverage of the 95 % intervals by shape, batch sizes, noise and seeds; docs/saturation.md explains them."""
    from benchmarks import coverage, fresh

    table = coverage.compare(simulations, bootstraps)
    fresh.write(table, out)
    _print(coverage.summary(table), out)


def _print(table: "pd.DataFrame", out: Path, decimals: int = 2) -> None:
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:,.{decimals}f}"))
    click.echo(f"\nRecorded in {out}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
