"""Byte-level BPE vocabularies in the format of CLIP's merges file, learnt from captions.

The words are CLIP's (runs of letters, so that a Chinese sentence is one word), and so is the mark of their ends (</w>).
Any text in any script encodes: what was not learnt, as bytes. `python -m repro.models.vocabulary` writes those of our
multilingual models anew (configs/bpe-multilingual-*.txt.gz), the same to the byte, from captions of the embedded
world of another seed than that of training; `repro data vocabulary` makes one of the captions of your own shards.
"""

import contextlib
import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from repro.config.errors import InputError
from repro.config.files import PACKAGE, write_json
from repro.data.languages import captions_in
from repro.data.pairs import UnusableSample, parse_caption
from repro.data.shards import ShardIndex, evenly, list_shards, open_shards, read_range
from repro.models.model_config import read_config
from repro.world import write as shapes

MERGES = (384, 4096)
"""Merges of the small vocabulary, which cuts words to pieces, and of the large one, where most words are one token."""
SYMBOLS = 2 * 256 + 2
"""Each byte, within a word and at its end, and the marks of a text's start and end."""
SEED, BLOCKS = 1, 8
"""The captions that are learnt from: 8,192 scenes in each language."""

Pair = tuple[str, str]


def learn(captions: Iterable[str], merges: int) -> list[Pair]:
    """The pairs of symbols to merge, most frequent first; fewer where no pair is left that stands there twice."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=SYMBOLS + merges, min_frequency=2, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(_in_symbols(captions), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) for pair in learnt[:merges]]


def _in_symbols(captions: Iterable[str]) -> Iterator[str]:
    """Captions as CLIP's words, and these as its symbols for bytes, none of which is a space."""
    import regex
    from open_clip.tokenizer import SimpleTokenizer

    clip = SimpleTokenizer()
    for caption in captions:
        words = regex.findall(clip.pat, clip.clean_fn(caption))
        yield " ".join("".join(clip.byte_encoder[byte] for byte in word.encode()) for word in words)


def world_captions(blocks: int = BLOCKS) -> list[str]:
    samples = (
        sample for block in range(blocks) for sample in shapes.training_block(block, SEED, 16, multilingual=True)
    )
    return [caption for sample in samples for caption in json.loads(sample["json"])["captions"].values()]


def keep_ours() -> None:
    """Write the merges files of our models; the small vocabulary is the head of the large one."""
    merges = learn(world_captions(), max(MERGES))
    for number in MERGES:
        _write(merges[:number], PACKAGE / "models" / "configs" / f"bpe-multilingual-{number}.txt.gz")


def make(pattern: str, model: str, tokens: int, samples: int, out: Path) -> int:
    """Write `out`, the config of `model` with a vocabulary learnt from so many samples' captions, and its merges file.

    In whatever languages the captions are. Returns the tokens of the vocabulary: fewer than asked for where the
    captions hold fewer pairs that stand there twice. Raises InputError.
    """
    if tokens <= SYMBOLS:
        raise InputError(f"--tokens {tokens:,}: expected more than the {SYMBOLS} for bytes, start and end")
    config, _ = read_config(model)
    files, indexes = open_shards(list_shards(pattern))
    merges = learn(_captions(files, indexes, samples), tokens - SYMBOLS)
    merges_file = out.with_suffix(".txt.gz")
    _write(merges, merges_file)
    text_cfg = config["model_cfg"]["text_cfg"]
    text_cfg.pop("hf_tokenizer_name", None)
    text_cfg["tokenizer_kwargs"] = text_cfg.get("tokenizer_kwargs", {}) | {"bpe_path": merges_file.name}
    text_cfg["vocab_size"] = SYMBOLS + len(merges)
    write_json(out, config)
    return text_cfg["vocab_size"]


def _captions(files: list[Path], indexes: list[ShardIndex], samples: int) -> Iterator[str]:
    """Captions of samples spread evenly over the shards: in all languages that a sample has, or its one caption."""
    for shard, sample in evenly([len(index) for index in indexes], samples):
        file, index = files[shard], indexes[shard]
        with contextlib.suppress(UnusableSample, ValueError):
            of_all = captions_in(read_range(file, index.json[sample]) or b"{}")
            yield from of_all.values() or (parse_caption(read_range(file, index.caption[sample]), index.kind[sample]),)


def _write(merges: list[Pair], file: Path) -> None:
    lines = ["#version: learnt by repro.models.vocabulary", *(" ".join(pair) for pair in merges)]
    file.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


if __name__ == "__main__":
    keep_ours()
