"""repro data embed: a frozen image tower over all images of a data set, once."""

import os
from pathlib import Path
from typing import Any

import click


@click.command(short_help="Embed all images by a frozen tower, for runs of setup siglit.")
@click.option("--model", required=True, metavar="NAME|CHECKPOINT", help="A model, a run or checkpoint, or timm:NAME.")
@click.option("--data", required=True, metavar="PATTERN", help="Shards, as a sweep's --data.")
@click.option("--pretrained", default="", metavar="PLACE", help="Weights: a checkpoint, timm, laptop-tower, a tag.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to fill.")
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of the tower."
)
@click.option("--batch-size", default="256", show_default=True, help="Images that pass the tower at once.")
@click.option("--processes", type=click.IntRange(1), help="On this machine.  [default: one a GPU, or one]")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Decoding, of each process.")
def embed(
    model: str, data: str, pretrained: str, out: Path, batch_size: str, processes: int | None, **how: Any
) -> None:
    """Make a folder of embeddings (half precision, memory-mapped) and captions, tokenized for the model's text tower.

    Killed, it goes on where it was; typed again, it does nothing twice. It runs under torchrun too, on many machines:
    each rank sees to a share of the blocks. A siglit run reads the folder with --set embeddings=DIR.
    """
    import shlex
    import tempfile

    from repro.config.units import parse_batch_size
    from repro.data.embeddings import Embeddings
    from repro.launch.complete import absolute_pattern
    from repro.models.tower_config import config_for

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    out = out.absolute()
    model, pretrained = _tower(model, pretrained)
    with tempfile.TemporaryDirectory() as scratch:
        config = config_for(model, pretrained, Path(scratch))
        arguments = {"folder": out, "data": absolute_pattern(data), "model": config, "pretrained": pretrained}
        arguments |= {"batch_size": parse_batch_size(batch_size), "name": model} | how
        if "RANK" in os.environ:
            if not _one_rank(arguments, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])):
                return
        else:
            _all_ranks(arguments, processes)
    made = Embeddings(out)
    click.echo(f"{made.count:,} samples, {made.dim} numbers each, in {out}; {made.content['bad_samples']:,} bad ones")
    of_run = [f"model={model if config == model else out / 'model.json'}", f"pretrained={pretrained}"]
    command = ["repro", "sweep", "batch-size", "--setup", "siglit", "--data", data, "--set", *of_run]
    click.echo(f"\nNext: {shlex.join([*command, f'embeddings={out}'])}")


def _tower(model: str, pretrained: str) -> tuple[str, str]:
    """A model's name or config file, and the place of weights. Raises InputError."""
    from repro.config.errors import InputError
    from repro.models.model_config import CONFIG_NAME
    from repro.models.pretrained import TIMM, resolve

    path = Path(model).expanduser()
    if path.exists() and path.suffix != ".json":
        weights = Path(resolve(str(path), model))
        config = next(
            (folder / CONFIG_NAME for folder in (path, weights.parent) if (folder / CONFIG_NAME).is_file()), None
        )
        if config is None:
            raise InputError(
                f"--model {model}: no {CONFIG_NAME} beside the weights; name a model, and --pretrained {model}"
            )
        return str(config.absolute()), pretrained or str(weights)
    if model.startswith("timm:"):
        return model, pretrained or TIMM
    if not pretrained:
        raise InputError(
            f"--model {model}: name its weights with --pretrained: a checkpoint, {TIMM}, laptop-tower or a tag of "
            "open_clip's"
        )
    return model, pretrained


def _one_rank(arguments: dict[str, Any], rank: int, ranks: int) -> bool:
    from repro.cli.progress import lines_on_stderr
    from repro.models.embed import embed

    progress = lines_on_stderr("embedded") if rank == 0 else None
    return embed(**arguments, rank=rank, ranks=ranks, progress=progress)


def _all_ranks(arguments: dict[str, Any], processes: int | None) -> None:
    """Processes on this machine; one alone is this one. Blocks that they leave, or an error, this one meets."""
    import torch

    ranks = processes or max(1, torch.cuda.device_count())
    if ranks > 1:
        context = torch.multiprocessing.get_context("spawn")
        started = [context.Process(target=_share, args=(arguments, rank, ranks)) for rank in range(ranks)]
        for process in started:
            process.start()
        for process in started:
            process.join()
    _one_rank(arguments, 0, 1)


def _share(arguments: dict[str, Any], rank: int, ranks: int) -> None:
    """One of several processes; an error is left to the parent, who meets it too."""
    import contextlib

    import torch

    from repro.config.errors import DiskFull, InputError

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    with contextlib.suppress(InputError, DiskFull):
        _one_rank(arguments, rank, ranks)
