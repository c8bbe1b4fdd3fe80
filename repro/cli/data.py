"""repro data: make the embedded world; look through shards before runs are spent on them; embed images, once."""

import contextlib
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from repro.data.validate import LookedAt, Scanned

WORST_SHOWN = 10
"""Lines of broken shards and of bad samples; the rest is counted."""


@click.group()
def data() -> None:
    """Make the embedded world; check shards of your own; embed their images."""


@data.command(short_help="Make the embedded world: shards to train on, data sets to evaluate on.")
@click.option("--examples", default="65536", show_default=True, help="Training examples: 65536, 65k, 1M (k = 1,000).")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to make.  [default: in the cache]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, another world.")
@click.option("--image-size", type=click.IntRange(16), default=32, show_default=True, help="Width and height, pixels.")
@click.option("--processes", type=click.IntRange(1), help="Processes that draw.  [default: one a core]")
@click.option("--multilingual", is_flag=True, help="Captions in several languages too, and a retrieval set of each.")
def shapes(
    examples: str, out: Path | None, seed: int, image_size: int, processes: int | None, multilingual: bool
) -> None:
    """Make the embedded world "shapes": training shards and clip-benchmark data sets."""
    from repro.cli.progress import lines_on_stderr
    from repro.config.errors import InputError
    from repro.config.files import cache_folder
    from repro.config.units import parse_examples
    from repro.world import write as shapes
    from repro.world.source import with_training_split

    count = parse_examples(examples)
    folder = out or cache_folder() / shapes.fingerprint(count, seed, image_size, multilingual)
    processes = processes or os.cpu_count() or 1
    try:
        world = shapes.make(folder, count, seed, image_size, processes, lines_on_stderr("drawn"), multilingual)
        with_training_split(world)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made or written ({error.strerror})") from None
    click.echo(f"{count:,} training pairs in {world.train_pattern}")
    for name in world.evals:
        click.echo(f"evaluation in {name}")
    command = ["repro", "sweep", "batch-size", "--data", world.train_pattern, "--eval", *world.evals]
    if multilingual:
        command += ["--setup", "msiglip"]
    click.echo(f"\nNext: {shlex.join(command)}")


@data.command(short_help="Look through shards: counts, sizes, bad samples, captions, a picture.")
@click.argument("pattern")
@click.option("--samples", default="10k", show_default=True, help="Samples to decode, evenly spread (k = 1,000).")
@click.option("--all", "every", is_flag=True, help="Decode every sample.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("data-check.png"), show_default=True, help="Contact sheet."
)
def check(pattern: str, samples: str, every: bool, out: Path) -> None:
    """Look through the shards of PATTERN: counts, sizes, bad samples, captions, and a contact sheet.

    PATTERN is what --data takes: 'cc12m/{00000..01242}.tar', globs, several joined by '::', pipe: and http(s): URLs.
    Exit code 1 where a run would refuse the data as bad.
    """
    from repro.cli.progress import lines_on_stderr
    from repro.config.errors import InputError
    from repro.config.spec import RunSpec
    from repro.config.units import parse_examples
    from repro.data import validate as checking
    from repro.world.source import is_shapes, make_world

    if (count := parse_examples(samples)) < 1:
        raise InputError(f"--samples {samples}: expected at least one")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    shards = make_world(pattern, progress=lines_on_stderr("drawn")).train_pattern if is_shapes(pattern) else pattern
    scan, looked_at, sheet = checking.check(shards, None if every else count, lines_on_stderr("looked at"))
    _print(scan, looked_at)
    out = out / "data-check.png" if out.is_dir() else out
    try:
        sheet.save(out, "PNG")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    click.echo(f"contact sheet: {out}")
    max_bad_share = RunSpec.model_fields["max_bad_share"].default
    refusals = checking.refusals(scan, looked_at, max_bad_share)
    for reason in refusals:
        click.echo(f"A run would refuse these data: {reason}; max_bad_share allows {max_bad_share:.1%}.", err=True)
    if refusals:
        sys.exit(1)
    click.echo(f"\nNext: {shlex.join(['repro', 'sweep', 'batch-size', '--data', pattern, '--eval'])} DIR")


@data.command(short_help="Learn a vocabulary from the captions of shards, for a model.")
@click.argument("pattern")
@click.option("--model", default="msiglip-b16", show_default=True, help="The model that gets the vocabulary.")
@click.option("--tokens", default="32000", show_default=True, help="Size of the vocabulary.")
@click.option("--samples", default="200k", show_default=True, help="Samples to learn from, evenly spread.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Model config to write, such as m-32k.json."
)
def vocabulary(pattern: str, model: str, tokens: str, samples: str, out: Path) -> None:
    """Learn a byte-level BPE vocabulary from the captions of PATTERN, in whatever languages, for a model.

    Writes the config of the model with that vocabulary, and the merges file beside it; a sweep takes it as model=FILE.
    """
    from repro.config.errors import InputError
    from repro.config.units import parse_examples
    from repro.models.vocabulary import make

    if out.suffix != ".json":
        raise InputError(f"--out {out}: expected the name of a model config, such as {out.name or 'model'}.json")
    try:
        size = make(pattern, model, parse_examples(tokens), parse_examples(samples), out)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    click.echo(f"{size:,} tokens; {out} and {out.with_suffix('.txt.gz').name}")
    click.echo(f"\nNext: repro sweep batch-size --setup msiglip --set model={out}")


def _print(scan: "Scanned", looked_at: "LookedAt") -> None:
    from rich.console import Console

    console = Console()
    for table in (_counts(scan, looked_at), _spreads(scan, looked_at), _broken(scan), _bad(looked_at)):
        if table.row_count:
            console.print(table)
            console.print()


def _counts(scan: "Scanned", looked_at: "LookedAt") -> "Table":
    from repro.config.units import format_bytes

    bad, usable = sum(looked_at.bad.values()), looked_at.samples - sum(looked_at.bad.values())
    table = _table("", ">", "")
    table.add_row("shards", f"{scan.shards:,}", format_bytes(scan.shard_bytes))
    table.add_row("broken shards", f"{len(scan.broken):,}")
    from_json = f"captions: {scan.pairs - scan.json_captions:,} from txt, {scan.json_captions:,} from json"
    table.add_row("pairs", f"{scan.pairs:,}", from_json)
    table.add_row("unpaired samples", f"{scan.unpaired:,}", "with an image or a caption only")
    everything = "every pair" if looked_at.samples == scan.pairs else "evenly spread; --all for every pair"
    table.add_row("looked at", f"{looked_at.samples:,}", everything)
    table.add_row("bad samples", f"{bad:,}", f"{bad / looked_at.samples:.2%} of those looked at")
    if not usable:
        return table
    table.add_row("image formats", "", ", ".join(f"{name} {n / usable:.1%}" for name, n in looked_at.formats.items()))
    if looked_at.transparent:
        note = "it is dropped: towers see the colours beneath"
        table.add_row("images with alpha", f"{looked_at.transparent / usable:.1%}", note)
    for tokens, share in looked_at.longer_than.items():
        table.add_row(f"captions over {tokens} tokens", f"{share:.1%}")
    table.add_row("repeated captions", f"{looked_at.duplicates:.1%}", "of those looked at")
    return table


def _spreads(scan: "Scanned", looked_at: "LookedAt") -> "Table":
    table = _table("", ">least", ">median", ">most")
    for name, values in {"image bytes": scan.image_bytes, **looked_at.spreads}.items():
        table.add_row(name, *(f"{value:,.0f}" for value in values))
    return table


def _broken(scan: "Scanned") -> "Table":
    table = _table("broken shard", "why")
    for name, why in list(scan.broken.items())[:WORST_SHOWN]:
        table.add_row(name, why)
    return _and_more(table, len(scan.broken))


def _bad(looked_at: "LookedAt") -> "Table":
    table = _table("bad samples", ">", "in shard")
    for (shard, reason), count in looked_at.bad.most_common(WORST_SHOWN):
        table.add_row(reason, f"{count:,}", shard)
    return _and_more(table, len(looked_at.bad))


def _and_more(table: "Table", rows: int) -> "Table":
    if rows > table.row_count:
        table.add_row(f"and {rows - table.row_count:,} more such lines")
    return table


def _table(*columns: str) -> "Table":
    """Columns that begin with > are set to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", show_header=any(c.strip(">") for c in columns))
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


@data.command(short_help="Embed all images by a frozen tower, for runs of setup siglit.")
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
    from repro.config.units import parse_batch_size
    from repro.data.embeddings import Embeddings
    from repro.launch.complete import absolute_pattern
    from repro.models.embed import config_for

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

    import torch

    from repro.config.errors import DiskFull, InputError

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    with contextlib.suppress(InputError, DiskFull):
        _one_rank(arguments, rank, ranks)
