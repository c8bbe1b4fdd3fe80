"""repro bench: speed and memory of the losses, and of everything on a GPU, recorded under results/bench/."""

import functools
import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repro.cli.options import CommandWithSeveral, Number, Several
from repro.config.errors import InputError, nearest
from repro.config.units import parse_positive
from repro.loss.registry import LOSSES

if TYPE_CHECKING:
    from repro.bench.implementations import Setting

GPU_OUT = {"cuda": Path("results/bench/gpu"), "cpu": Path("build/bench-gpu")}
"""A rehearsal's figures are no results, and must not take the place of any."""
GPU_OUT_HELP = "results/bench/gpu; a rehearsal: build/bench-gpu"
GPU_MINUTES = {"cuda": 6.0, "cpu": 15.0}
"""At most: a rehearsal takes two on two idle cores, and may take longer on busy ones."""
SECTIONS = "machine, correct, loss, resume, step, feed, curve"


@click.group()
def bench() -> None:
    """Measure speed and memory of losses beside others', and all of it on a GPU; results go to results/bench/."""


def option(name: str, default: Any, help: str | None = None, **how: Any) -> Callable:
    return click.option(name, default=default, show_default=True, help=help, **how)


def options(local_batch: list[str] | None, ranks: list[str], dim: list[str], losses: bool = True) -> Callable:
    """The options that span the settings to measure, with these defaults."""
    every = "Implementations by name, or by family (open_clip).  [default: all]"
    found = [option("--loss", tuple(LOSSES), cls=Several), click.option("--impl", cls=Several, default=[], help=every)]
    found = found if losses else []
    found += [option("--local-batch", local_batch, "Batch size of one rank.", cls=Several)] if local_batch else []
    found += [
        option("--ranks", ranks, "Processes that share a batch.", cls=Several),
        option("--dim", dim, "Size of an embedding.", cls=Several),
        option("--dtype", ["fp32"], "fp32, bf16, fp16, fp64.", cls=Several),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is one]"),
        click.option("--threads", type=click.IntRange(1), help="CPU threads a rank.  [default: cores ÷ ranks]"),
    ]
    return _all(found)


def effort(name: str) -> Callable:
    """The options that say how much is measured, and where it is written."""
    return _all(
        [
            option("--repeats", 5, "In one process.", type=click.IntRange(1)),
            option("--rounds", 3, "Processes, in turn.", type=click.IntRange(1)),
            option("--matmul", "4k", "Side of the matrix product to compare with."),
            option("--limit-seconds", 600, "For one process.", type=Number(1)),
            out_option(name),
        ]
    )


def out_option(name: str) -> Callable:
    return option("--out", Path(f"results/bench/{name}.csv"), type=click.Path(path_type=Path))


def _all(decorators: list[Callable]) -> Callable:
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(decorators), command)


@bench.command(cls=CommandWithSeveral, short_help="Time, memory and gradient error of the losses, beside peers'.")
@options(["1k", "2k", "4k", "8k"], ["1"], ["512"])
@click.option("--reference", help="Implementation that `ratio` is taken to.  [default: the fastest of open_clip's]")
@option("--check-up-to", "16k", "Largest global batch to hold against float64.")
@effort("loss")
def loss(impl: tuple[str, ...], reference: str | None, check_up_to: str, out: Path, **given: Any) -> None:
    """Forward and backward of every implementation: median time, peak extra memory, and error against float64.

    Rows of other settings that OUT already holds stay. The figure beside it draws this call's ranks, dims and dtypes.
    """
    from repro.bench import loss as measuring
    from repro.bench import record
    from repro.bench.implementations import select
    from repro.cli.bench_tables import show_losses

    much = _effort(given, check_up_to=parse_positive(check_up_to, "--check-up-to"))
    settings, chosen = settings_of(given), select(impl, given["loss"])
    table = measuring.compare(settings, chosen, much, reference, progress)
    recorded = record.update(table, out, measuring.KEYS, settings[0].device)
    show_losses(table)
    if "seconds" in table:
        measuring.draw(recorded, table, out.with_suffix(".png"))
        click.echo(f"Drawn in {out.with_suffix('.png')}")
    click.echo(f"Recorded in {out}")


@bench.command(cls=CommandWithSeveral, short_help="The largest batch that fits in a given memory.")
@options(None, ["1"], ["512"])
@click.option("--memory", help="Of one rank: 2GB, 1.5GiB.  [default: the card's; 2GB on a CPU]")
@click.option("--model", help="Measure a whole training step of this model (laptop); otherwise the loss alone.")
@option("--micro-batch", "512", "Of the training step.")
@option("--smallest", "256", "Local batch to begin with.")
@option("--largest", "64k", "Local batch to end with.")
@option("--step", "0", "Bisect over its multiples; 0 for powers of two.")
@option("--limit-seconds", 120, "For one try.", type=Number(1))
@out_option("capacity")
def capacity(
    impl: tuple[str, ...], memory: str | None, model: str | None, limit_seconds: float, out: Path, **given: Any
) -> None:
    """Double the batch until forward and backward no longer fit (SigLIP, section 4.2: 4,096 against 2,048).

    On a CPU the memory is what forward and backward hold beyond their inputs; a training step counts in full.
    """
    from repro.bench import capacity as measuring
    from repro.bench import record
    from repro.bench.implementations import select
    from repro.cli.bench_tables import CAPACITY, show
    from repro.config.units import parse_bytes

    names = ("smallest", "largest", "micro_batch")
    sizes = {name: parse_positive(given.pop(name), f"--{name.replace('_', '-')}") for name in names}
    step = given.pop("step")
    step = 0 if step == "0" else parse_positive(step, "--step")
    settings, chosen = settings_of(given | {"local_batch": ("1",)}), select(impl, given["loss"])
    if model:
        from repro.models.model_config import read_config

        read_config(model)
        if wrong := [setting.dtype for setting in settings if setting.dtype not in ("fp32", "bf16")]:
            raise InputError(f"--dtype {wrong[0]}: a training step is in fp32, or bf16 by autocast")
    if sizes["smallest"] > sizes["largest"]:
        raise InputError(f"--smallest {sizes['smallest']} is more than --largest {sizes['largest']}")
    memory = memory or (None if settings[0].device == "cuda" else "2GB")
    memory_bytes = None if memory is None else parse_bytes(memory)
    search = measuring.Search(memory_bytes, step=step, limit_seconds=limit_seconds, model=model, **sizes)
    table = measuring.compare(settings, chosen, search, progress)
    record.update(table, out, measuring.KEYS, settings[0].device)
    show(table, CAPACITY)
    click.echo(f"Recorded in {out}")


@bench.command(cls=CommandWithSeveral, short_help="Bytes and time of ring and gather.")
@options(["512", "1k", "2k"], ["2", "4"], ["768"], losses=False)
@click.option("--exchange", cls=Several, default=[], help="ring, ring-bidirectional, gather.  [default: all]")
@effort("exchange")
def exchange(exchange: tuple[str, ...], out: Path, **given: Any) -> None:
    """Measure the exchange alone and in the whole sigmoid loss; bytes as counted beside those of the formula."""
    from repro.bench import record, traffic
    from repro.cli.bench_tables import EXCHANGES, show

    much = _effort(given)
    settings = settings_of(given | {"loss": ("sigmoid",)})
    if any(setting.ranks == 1 for setting in settings):
        raise InputError("--ranks 1: one rank has no exchange; expected 2 or more")
    table = traffic.compare(settings, traffic.choose(exchange), much, progress)
    record.update(table, out, traffic.KEYS, settings[0].device)
    show(table, EXCHANGES)
    click.echo(f"Recorded in {out}")


@bench.command(cls=CommandWithSeveral, short_help="All that only a GPU can tell, in minutes: docs/gpu.md.")
@click.option("--minutes", type=Number(0, min_open=True), help="For all.  [default: 6; a rehearsal: 15]")
@click.option("--only", cls=Several, default=[], metavar="SECTION", help=f"Of {SECTIONS}.  [default: all]")
@option("--device", "cuda", "cpu: a rehearsal at toy sizes.", type=click.Choice(["cuda", "cpu"]))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=f"Folder.  [default: {GPU_OUT_HELP}]")
def gpu(minutes: float | None, only: tuple[str, ...], device: str, out: Path | None) -> None:
    """Kernels and losses against float64, the loss beside peers', resuming, steps, feeding, a curve; on one GPU.

    Each section has a process and a share of the minutes of its own; what one leaves the next ones get. Rows are in
    OUT/SECTION.csv as soon as they are measured, and all of them in OUT/summary.csv. Exit code 1 if a section failed.
    """
    from repro.bench.gpu import driver
    from repro.cli.bench_tables import show_sections

    sections = driver.select(only)
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError("--device cuda: torch finds no GPU here; --device cpu rehearses all sections at toy sizes")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the section ends, too
    out = out or GPU_OUT[device]
    table = driver.run(sections, minutes or GPU_MINUTES[device], out, device, progress)
    show_sections(table[table["section"].isin([section.name for section in sections])])
    click.echo(f"Recorded in {out / driver.SUMMARY}")
    sys.exit(1 if driver.failed(table, sections) else 0)


def _effort(given: dict[str, Any], **more: Any) -> Any:
    """Takes its options out of those given."""
    from repro.bench.loss import Effort

    options = {name: given.pop(name) for name in ("repeats", "rounds", "limit_seconds")}
    return Effort(**options, square=parse_positive(given.pop("matmul"), "--matmul"), **more)


def settings_of(given: dict[str, Any]) -> "list[Setting]":
    """Every combination. Raises InputError naming the option and the nearest that works."""
    import torch

    from repro.bench.implementations import DTYPES, Setting

    for name, known in (("loss", LOSSES), ("dtype", DTYPES)):
        for value in given[name]:
            if value not in known:
                raise InputError(f"--{name}: unknown '{value}'{nearest(value, known)}")
    device, cores = given["device"], os.cpu_count() or 1
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = ("--ranks", "--dim", "--local-batch")
    counts, dims, sizes = ([parse_positive(value, o) for value in given[o[2:].replace("-", "_")]] for o in options)
    if device == "cuda" and max(counts) > (found := torch.cuda.device_count()):
        raise InputError(f"--ranks {max(counts)}: a rank needs a GPU of its own and there are {found}; use {found}")
    return [
        Setting(name, n, b, d, kind, device, given["threads"] or max(1, cores // n))
        for name, n, d, kind, b in itertools.product(given["loss"], counts, dims, given["dtype"], sizes)
    ]


def progress(line: str) -> None:
    click.echo(line, err=True)
