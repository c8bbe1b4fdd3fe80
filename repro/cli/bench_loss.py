"""repro bench loss, capacity and exchange: the losses beside peers', recorded under results/bench/."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import CommandWithSeveral, Number, Several
from repro.config.errors import InputError, nearest
from repro.loss.registry import LOSSES

if TYPE_CHECKING:
    from repro.bench.setting import Setting

DTYPES = ("fp32", "bf16", "fp16", "fp64")


def setting_options(local_batch: list[str] | None, ranks: list[str], dim: list[str], losses: bool = True) -> Callable:
    """The options that span the settings to measure, with these defaults."""
    options = []
    if losses:
        every = "Implementations by name, or by family (open_clip).  [default: all]"
        options.append(click.option("--loss", cls=Several, default=tuple(LOSSES), show_default=True))
        options.append(click.option("--impl", cls=Several, default=[], help=every))
    if local_batch:
        of_rank = "Batch size of one rank."
        options.append(click.option("--local-batch", cls=Several, default=local_batch, show_default=True, help=of_rank))
    options += [
        click.option("--ranks", cls=Several, default=ranks, show_default=True, help="Processes that share a batch."),
        click.option("--dim", cls=Several, default=dim, show_default=True, help="Size of an embedding."),
        click.option("--dtype", cls=Several, default=["fp32"], show_default=True, help=", ".join(DTYPES) + "."),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]"),
        click.option("--threads", type=click.IntRange(1), help="CPU threads a rank.  [default: cores ÷ ranks]"),
    ]
    return _all_of(options)


def _all_of(options: list[Callable]) -> Callable:
    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def effort_options() -> Callable:
    at_most, side = "For one process.", "Side of the matrix product to compare with."
    return _all_of(
        [
            click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="In one process."),
            click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Processes, in turn."),
            click.option("--matmul", default="4k", show_default=True, help=side),
            click.option("--limit-seconds", type=Number(1), default=600, show_default=True, help=at_most),
        ]
    )


def out_option(name: str) -> Callable:
    default = Path(f"results/bench/{name}.csv")
    return click.option("--out", type=click.Path(path_type=Path), default=default, show_default=True)


@click.command(cls=CommandWithSeveral, short_help="Time, memory and gradient error of the losses, beside peers'.")
@setting_options(["1k", "2k", "4k", "8k"], ["1"], ["512"])
@click.option("--reference", help="Implementation that `ratio` is taken to.  [default: the fastest of open_clip's]")
@click.option("--check-up-to", default="16k", show_default=True, help="Largest global batch to hold against float64.")
@effort_options()
@out_option("loss")
def loss(
    impl: tuple[str, ...],
    reference: str | None,
    check_up_to: str,
    repeats: int,
    rounds: int,
    limit_seconds: float,
    matmul: str,
    out: Path,
    **grid: Any,
) -> None:
    """Forward and backward of every implementation: median time, peak extra memory, and error against float64.

    Rows of other settings that OUT already holds stay. The figure beside it draws this call's ranks, dims and dtypes.
    """
    from rich.console import Console

    from repro.bench import figure, record
    from repro.bench import loss as measuring
    from repro.bench.implementations import select
    from repro.cli.bench_tables import loss_tables
    from repro.config.units import parse_batch_size

    settings = settings_of(**grid)
    chosen = select(impl, grid["loss"])
    measuring.check_reference(reference, chosen)
    effort = measuring.Effort(repeats, rounds, parse_batch_size(check_up_to), limit_seconds, parse_batch_size(matmul))
    table = measuring.compare(settings, chosen, effort, reference, progress)
    recorded = record.update(table, out, measuring.KEYS, settings[0].device)
    for part in loss_tables(table):
        Console().print(part, markup=False, highlight=False)
    if "seconds" in table:
        drawn = recorded.merge(table[figure.PANELS_BY].drop_duplicates(), on=figure.PANELS_BY)
        figure.save(figure.draw(drawn), out.with_suffix(".png"))
        click.echo(f"Drawn in {out.with_suffix('.png')}")
    click.echo(f"Recorded in {out}")


@click.command(cls=CommandWithSeveral, short_help="The largest batch that fits in a given memory.")
@setting_options(None, ["1"], ["512"])
@click.option("--memory", help="Of one rank: 2GB, 1.5GiB.  [default: the card's; 2GB on a CPU]")
@click.option("--model", help="Measure a whole training step of this model (laptop); otherwise the loss alone.")
@click.option("--micro-batch", default="512", show_default=True, help="Of the training step.")
@click.option("--smallest", default="256", show_default=True, help="Local batch to begin with.")
@click.option("--largest", default="64k", show_default=True, help="Local batch to end with.")
@click.option("--step", default="0", show_default=True, help="Bisect over its multiples; 0 for powers of two.")
@click.option("--limit-seconds", type=Number(1), default=120, show_default=True, help="For one try.")
@out_option("capacity")
def capacity(
    impl: tuple[str, ...],
    memory: str | None,
    model: str | None,
    micro_batch: str,
    smallest: str,
    largest: str,
    step: str,
    limit_seconds: float,
    out: Path,
    **grid: Any,
) -> None:
    """Double the batch until forward and backward no longer fit (SigLIP, section 4.2: 4,096 against 2,048).

    On a CPU the memory is what forward and backward hold beyond their inputs; a training step counts in full.
    """
    from rich.console import Console

    from repro.bench import capacity as measuring
    from repro.bench import record
    from repro.bench.implementations import select
    from repro.cli.bench_tables import capacity_table, notes
    from repro.config.units import parse_batch_size, parse_bytes

    settings = settings_of(local_batch=("1",), **grid)
    chosen = select(impl, grid["loss"])
    if model:
        from repro.models.model_config import read_config

        read_config(model)
        for setting in settings:
            if setting.dtype not in ("fp32", "bf16"):
                raise InputError(f"--dtype {setting.dtype}: a training step is in fp32, or bf16 by autocast")
    memory = memory or (None if settings[0].device == "cuda" else "2GB")
    search = measuring.Search(
        None if memory is None else parse_bytes(memory),
        *(parse_batch_size(size) for size in (smallest, largest)),
        int(step) if step == "0" else parse_batch_size(step),
        limit_seconds,
        model,
        parse_batch_size(micro_batch),
    )
    if search.smallest > search.largest:
        raise InputError(f"--smallest {smallest} is more than --largest {largest}; expected less, such as {largest}")
    table = measuring.compare(settings, chosen, search, progress)
    record.update(table, out, measuring.KEYS, settings[0].device)
    Console().print(capacity_table(table))
    click.echo(notes(table, "implementation"))
    click.echo(f"Recorded in {out}")


@click.command(cls=CommandWithSeveral, short_help="Bytes and time of ring and gather.")
@setting_options(["512", "1k", "2k"], ["2", "4"], ["768"], losses=False)
@click.option("--exchange", cls=Several, default=[], help="ring, ring-bidirectional, gather.  [default: all]")
@effort_options()
@out_option("exchange")
def exchange(
    exchange: tuple[str, ...],
    repeats: int,
    rounds: int,
    limit_seconds: float,
    matmul: str,
    out: Path,
    **grid: Any,
) -> None:
    """Measure the exchange alone and in the whole sigmoid loss; bytes as counted beside those of the formula."""
    from rich.console import Console

    from repro.bench import exchange as measuring
    from repro.bench import record
    from repro.bench.loss import Effort
    from repro.cli.bench_tables import exchange_table, notes
    from repro.config.units import parse_batch_size

    settings = settings_of(loss=("sigmoid",), **grid)
    if any(setting.ranks == 1 for setting in settings):
        raise InputError("--ranks 1: one rank has no exchange; expected 2 or more")
    exchanges = measuring.choose(exchange)
    effort = Effort(repeats, rounds, limit_seconds=limit_seconds, square=parse_batch_size(matmul))
    table = measuring.compare(settings, exchanges, effort, progress)
    record.update(table, out, measuring.KEYS, settings[0].device)
    Console().print(exchange_table(table))
    click.echo(notes(table, "exchange"))
    click.echo(f"Recorded in {out}")


def settings_of(
    loss: tuple[str, ...],
    ranks: tuple[str, ...],
    local_batch: tuple[str, ...],
    dim: tuple[str, ...],
    dtype: tuple[str, ...],
    device: str | None,
    threads: int | None,
) -> "list[Setting]":
    """Every combination. Raises InputError naming the option and the nearest that works."""
    import itertools

    import torch

    from repro.bench.setting import Setting

    for option, values, known in (("--loss", loss, LOSSES), ("--dtype", dtype, DTYPES)):
        for value in values:
            if value not in known:
                raise InputError(f"{option}: unknown '{value}'{nearest(value, known)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    counts = [_count("--ranks", value) for value in ranks]
    if device == "cuda" and max(counts) > torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise InputError(f"--ranks {max(counts)}: a rank needs a GPU of its own and there are {found}; use {found}")
    return [
        Setting(*(name, n, b, d, kind, device), threads=threads or max(1, (os.cpu_count() or 1) // n))
        for name, n, d, kind, b in itertools.product(
            loss,
            counts,
            [_count("--dim", value) for value in dim],
            dtype,
            [_count("--local-batch", value) for value in local_batch],
        )
    ]


def progress(line: str) -> None:
    click.echo(line, err=True)


def _count(option: str, text: str) -> int:
    from repro.config.units import parse_batch_size

    try:
        count = parse_batch_size(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None
    if count < 1:
        raise InputError(f"{option} {text}: expected 1 or more")
    return count
