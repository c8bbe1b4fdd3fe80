"""A frozen tower over all images of a data set → a folder of embeddings and tokens (data/embeddings.py).

Each of any number of processes sees to every n-th block; there is no word between them but the records of what is
done, so they may be started together or not, killed, and started again in another number. Whichever finds that
nothing is missing finishes the folder.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from repro.config.errors import InputError, nearest
from repro.config.files import CorruptRun, cache_folder, full_disk_named, read_object, write_json
from repro.config.spec import RunSpec
from repro.config.units import format_seconds
from repro.data import embeddings as folders
from repro.data.embeddings import Embeddings, RowsFile
from repro.data.pairs import Pairs, SampleOrder, UnusableSample, loaded
from repro.data.shards import Progress, count_unusable, list_shards, open_shards, write_arrays
from repro.models import build
from repro.models import pretrained as weights
from repro.models.model_config import context_length, read_config, tokenizer_fingerprint
from repro.models.sizes import model_size
from repro.world import source

MOST_HOURS_UNASKED = 1.0
"""Embedding that takes longer on a CPU is not begun by a run or a sweep, only by `repro data embed`."""
CPU_FLOPS = 5e11
"""FLOP/s of a machine without a GPU: an order of magnitude."""


def embeddings_of(spec: RunSpec, progress: Progress | None = None) -> Embeddings:
    """Open the embeddings of a siglit run: the folder that it names, or the cache's, made where it is not there yet.

    Tokens for its text tower are added where the folder has none. Raises InputError where the folder is of other data
    or of another tower.
    """
    identity = weights.tower_identity(spec.model, spec.pretrained, spec.precision)
    data_fingerprint = spec.data_fingerprint or source.fingerprint(spec.data)
    folder = Path(
        spec.embeddings or cache_folder() / "embeddings" / f"{data_fingerprint}-{identity['tower_fingerprint']}"
    )
    if not spec.embeddings and not (folder / "embeddings.json").exists():
        _refuse_what_takes_hours(spec)
        embed(folder, spec.data, spec.model, spec.pretrained, precision=spec.precision, progress=progress)
    embeddings = Embeddings(folder)
    embeddings.check(spec.data, data_fingerprint, identity)
    if not (folder / f"tokens-{tokenizer_fingerprint(spec.model)}.json").exists():
        _add_tokens(folder, embeddings.count, spec.model)
    return embeddings


def embed(
    folder: Path,
    data: str,
    model: str,
    pretrained: str,
    *,
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    name: str = "",
    progress: Progress | None = None,
) -> bool:
    """This process's share of the blocks; whether all are done, and the folder finished.

    model: gives the image tower, and the tokenizer of the tokens. name: what to call it, where that is not `model`.
    progress: samples done by all processes, and of how many. Raises InputError where the folder is being made of other
    data or by another tower, and DiskFull.
    """
    identity = weights.tower_identity(model, pretrained, precision)
    identity = {**identity, "model": name or model, "data": data, "data_fingerprint": source.fingerprint(data)}
    _claim(folder, identity)
    pattern = source.make_world(data).train_pattern if source.is_shapes(data) else data
    files, indexes = open_shards(list_shards(pattern))
    count = sum(map(len, indexes))
    dim = read_config(model)[0]["model_cfg"]["embed_dim"]
    images = RowsFile(folder, "images", "<f2", count, dim)
    tokens = _tokens_file(folder, count, model)
    for rows in (images, tokens):
        rows.create()
    mine = set(range(rank, folders.blocks(count), ranks))
    to_embed = [block for block in images.missing() if block in mine]
    with tempfile.TemporaryDirectory() as scratch:
        build.export(model, Path(scratch))
        tokenize = build.tokenizer_of(Path(scratch))
        if to_embed:
            tower = _Tower(Path(scratch), model, pretrained, precision, rank)
            pairs = Pairs(files, indexes, SampleOrder([len(i) for i in indexes], 0, 1), tower.resize, tokenize)
            for block in to_embed:
                numbers = folders.numbers_of(block, count)
                captions, bad, rows = _embed_block(tower, pairs, numbers, dim, batch_size, workers)
                folders.write_captions(folder, block, captions, bad)
                images.write(block, rows)
                if progress is not None:
                    progress(count - min(count, len(images.missing()) * folders.BLOCK), count)
        for block in set(tokens.missing()) & mine - set(images.missing()):
            tokens.write(block, _tokenized(tokenize, folders.read_captions(folder, block)[0]))
    if images.missing() or tokens.missing():
        return False
    shards = [(file.name, len(index)) for file, index in zip(files, indexes, strict=True)]
    unusable = count_unusable([file.name for file in files], indexes)
    _finish(folder, identity, model, (count, dim), shards, [(*where, n) for where, n in unusable.items()])
    return True


class _Tower:
    """An image tower on this process's device, and what goes before it."""

    def __init__(self, local_dir: Path, model: str, pretrained: str, precision: str, rank: int):
        towers = build.load(local_dir)
        weights.load_image_tower(towers.model, model, pretrained)
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
        self.model = towers.model.eval().to(self.device)
        self.resize, self.normalize, self.half = towers.resize, towers.normalize, precision == "bf16"

    @torch.no_grad()
    def embed(self, images: torch.Tensor) -> np.ndarray:
        """uint8 [m, 3, H, W] → [m, d] float16, L2-normalised in fp32 before."""
        inputs = self.normalize(images).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            found = F.normalize(self.model.encode_image(inputs).float(), dim=-1)
        return found.half().cpu().numpy()


class _Numbered(torch.utils.data.Dataset):
    """Ranges of numbers → images of the usable ones among them, uint8; captions of all; bad ones with why."""

    def __init__(self, pairs: Pairs):
        self.pairs = pairs

    def __getitem__(self, numbers: range) -> tuple[torch.Tensor | None, list[str], dict[int, str]]:
        images, captions, bad = [], [], {}
        for number in numbers:
            shard = int(np.searchsorted(self.pairs.order.first_of_shard, number, side="right")) - 1
            try:
                image, caption = self.pairs.read(shard, number - int(self.pairs.order.first_of_shard[shard]))
                images.append(image)
            except UnusableSample as reason:
                caption, bad[number] = "", str(reason)
            captions.append(caption)
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous() if images else None
        return stacked, captions, bad


def _embed_block(
    tower: _Tower, pairs: Pairs, numbers: range, dim: int, batch_size: int, workers: int
) -> tuple[list[str], dict[int, str], np.ndarray]:
    """Captions, bad samples and rows of one block."""
    ranges = [numbers[first : first + batch_size] for first in range(0, len(numbers), batch_size)]
    captions: list[str] = []
    bad: dict[int, str] = {}
    rows = np.zeros((len(numbers), dim), np.float16)
    for some, (images, of_some, bad_of_some) in zip(ranges, loaded(_Numbered(pairs), ranges, workers), strict=True):
        captions += of_some
        bad |= bad_of_some
        if images is not None:
            rows[[number - numbers.start for number in some if number not in bad_of_some]] = tower.embed(images)
    return captions, bad, rows


def _tokenized(tokenize: Any, captions: Sequence[str]) -> np.ndarray:
    """[n, L] int32."""
    return tokenize(list(captions)).numpy().astype(np.int32)


def _tokens_file(folder: Path, count: int, model: str) -> RowsFile:
    return RowsFile(folder, f"tokens-{tokenizer_fingerprint(model)}", "<i4", count, context_length(model))


def _add_tokens(folder: Path, count: int, model: str) -> None:
    """Tokens for another text tower, of the captions that the folder keeps."""
    tokens = _tokens_file(folder, count, model)
    try:
        tokens.create()
        with tempfile.TemporaryDirectory() as scratch:
            build.export(model, Path(scratch))
            tokenize = build.tokenizer_of(Path(scratch))
            for block in tokens.missing():
                tokens.write(block, _tokenized(tokenize, folders.read_captions(folder, block)[0]))
        _record_tokens(folder, model)
    except PermissionError as error:
        raise InputError(
            f"embeddings {folder}: has no tokens for the text tower of {model}, and cannot be written "
            f"({error.strerror}); expected a folder of your own, or one made with --model {model}"
        ) from None


def _record_tokens(folder: Path, model: str) -> None:
    tokens = _tokens_file(folder, 0, model)
    write_json(folder / f"{tokens.file.stem}.json", {"model": model, "context_length": tokens.shape[1]})


def _claim(folder: Path, identity: dict[str, str]) -> None:
    """Say in the folder what is being made. Raises InputError where it says that it is something else."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "making.json"
    found = _identity_in(file)
    if not found and any(folder.glob("*.npy")) and not (found := _identity_in(file)):  # another rank was first
        raise InputError(f"--out {folder}: holds other files; expected an empty folder, or one of this command")
    if not found:
        with full_disk_named(file):
            write_json(file, identity)
        return
    for key in ("data_fingerprint", "tower_fingerprint"):
        if found.get(key) != identity[key]:
            kind = key.removesuffix("_fingerprint")
            named = {"data": "data", "tower": "model"}[kind]
            raise InputError(
                f"--out {folder}: holds embeddings made with other {kind} ({found.get(named)}, {key} {found.get(key)}; "
                f"expected {identity[named]}, {identity[key]}); name another folder, or remove this one"
            )


def _identity_in(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except CorruptRun:
        return {}


def _finish(
    folder: Path,
    identity: dict[str, str],
    model: str,
    shape: tuple[int, int],
    shards: list[tuple[str, int]],
    unusable: list[tuple[str, str, int]],
) -> None:
    """embeddings.json comes last: where it is, the rest is."""
    bad: dict[int, str] = {}
    for block in range(folders.blocks(shape[0])):
        bad |= folders.read_captions(folder, block)[1]
    numbers = sorted(bad)
    reasons = np.array([bad[number] for number in numbers], dtype=np.str_)
    with full_disk_named(folder):
        write_arrays(folder / "bad.npz", numbers=np.array(numbers, np.int64), reasons=reasons)
        write_json(folder / "model.json", read_config(model)[0])
        _record_tokens(folder, model)
        content = {"format": folders.FORMAT, **identity, "count": shape[0], "dim": shape[1], "bad_samples": len(bad)}
        write_json(folder / "embeddings.json", content | {"unusable": unusable, "shards": shards})


def _refuse_what_takes_hours(spec: RunSpec) -> None:
    """Raises InputError, with the command, where a CPU would be busy for more than an hour."""
    if torch.cuda.is_available():
        return
    count = source.world_size(spec.data) if source.is_shapes(spec.data) else _samples(spec.data)
    seconds = count * model_size(spec.model).image_flops / CPU_FLOPS
    if seconds > MOST_HOURS_UNASKED * 3600:
        raise InputError(
            f"embeddings: none of {spec.data} by the image tower of {spec.model} yet, and this machine has no GPU: it "
            f"would take about {format_seconds(seconds)}; make them where there are GPUs: torchrun --nproc-per-node 8 "
            f"--no-python repro data embed --model {spec.model} --pretrained {spec.pretrained} --precision "
            f"{spec.precision} --data '{spec.data}' --out DIR, and give --set embeddings=DIR"
        )


def _samples(pattern: str) -> int:
    return sum(map(len, open_shards(list_shards(pattern))[1]))


def config_for(model: str, pretrained: str, folder: Path) -> str:
    """A model that `embed` can take, for a name of open_clip's or timm's: its config, with the preprocessing that its
    weights were trained with, is written into the folder. Others are returned as they are. Raises InputError.
    """
    if model.startswith("timm:"):
        config = _timm_config(model.removeprefix("timm:"))
    else:
        config, own_folder = read_config(model)
        if own_folder != Path():  # ours, or the person's own: it says itself how images are prepared
            return model
        config["preprocess_cfg"] |= _preprocessing(pretrained, model)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.json"
    write_json(file, config)
    return str(file)


def _preprocessing(pretrained: str, model: str) -> dict[str, Any]:
    """Mean and standard deviation (and more, where it says so) of a tag's weights."""
    import open_clip

    place = weights.resolve(pretrained, model)
    name, _, tag = place.partition("/")
    found = open_clip.get_pretrained_cfg(name, tag) if name and tag else {}
    return {key: found[key] for key in ("mean", "std", "interpolation", "resize_mode") if found.get(key)}


def _timm_config(name: str) -> dict[str, Any]:
    """A config with timm's tower under its own preprocessing, and the paper's text tower beside it."""
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise InputError(
            f"--model timm:{name}: timm has no such model{nearest(name, timm.list_models(pretrained=True))}"
        )
    with torch.device("meta"):
        tower = timm.create_model(name, num_classes=0)
    prepared = tower.pretrained_cfg
    vision = {
        "image_size": prepared["input_size"][-1],
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool if isinstance(pool := getattr(tower, "global_pool", ""), str) and pool else "avg",
        "timm_proj": "none",
    }
    config = read_config("siglip-b16")[0]
    config["model_cfg"] |= {"embed_dim": tower.num_features, "vision_cfg": vision}
    config["preprocess_cfg"] |= {key: list(prepared[key]) for key in ("mean", "std")}
    return config
