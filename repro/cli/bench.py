"""repro bench: speed and memory of the losses, and of everything on a GPU, recorded under results/bench/."""

import click

from repro.cli import bench_gpu, bench_loss


@click.group()
def bench() -> None:
    """Measure speed and memory of losses beside others', and all of it on a GPU; results go to results/bench/."""


for command in (bench_loss.loss, bench_loss.capacity, bench_loss.exchange, bench_gpu.gpu):
    bench.add_command(command)
