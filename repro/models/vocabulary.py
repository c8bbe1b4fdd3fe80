"""Byte-level BPE vocabularies in the format of CLIP's merges file, learnt from captions.

The words are CLIP's (runs of letters, so that a Chinese sentence is one word), and so is the mark of their ends (</w>).
Any text in any script encodes: what was not learnt, as bytes. `python -m repro.models.vocabulary` writes those of our
multilingual models anew (configs/bpe-multilingual-*.txt.gz), the same to the byte, from captions of the embedded
world of another seed than that of training; `repro data vocabulary` makes one of the captions of your own shards.
"""

import contextlib
import gzip
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from repro.config.errors import InputError
from repro.config.files import PACKAGE, write_json
from repro.data.languages import captions_in
from repro.data.pairs import UnusableSample, parse_caption
from repro.data.shards import ShardIndex, evenly, list_shards, open_shards, read_range
from repro.models.model_config import read_config
from repro.world import write as shapes

MERGES = (512, 4096)
"""Merges of the small vocabulary, which cuts words to pieces, and of the large one, where most words are one token."""
SYMBOLS = 2 * 256 + 2
"""Each byte, within a word and at its end, and the marks of a text's start and end."""
SEED, BLOCKS = 1, 8
"""The captions that are learnt from: 8,192 scenes in each language."""

Pair = tuple[str, str]


def learn(captions: Iterable[str], merges: int) -> list[Pair]:
    """The pairs of symbols to merge, most frequent first; fewer where no pair is left that stands there twice.

    Of pairs that are equally frequent the first in the order of the alphabet: the same captions give the same list.
    """
    words = _words(captions)
    symbols = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    times = list(words.values())
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, word in enumerate(symbols):
        for pair in pairwise(word):
            counts[pair] += times[number]
            places[pair].add(number)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    chosen: list[Pair] = []
    while queue and len(chosen) < merges:
        count, best = heapq.heappop(queue)
        if -count != counts[best]:  # an entry from before a merge took some of its places
            continue
        if -count < 2:
            break
        chosen.append(best)
        changed: set[Pair] = set()
        for number in places.pop(best):
            before, after = symbols[number], _merged(symbols[number], best)
            for word, sign in ((before, -1), (after, 1)):
                for pair in pairwise(word):
                    counts[pair] += sign * times[number]
                    changed.add(pair)
                    (places[pair].add if sign > 0 else places[pair].discard)(number)
            symbols[number] = after
        for pair in changed - {best}:
            if counts[pair]:
                heapq.heappush(queue, (-counts[pair], pair))
    return chosen


def _words(captions: Iterable[str]) -> Counter[str]:
    """CLIP's words, as its symbols for bytes."""
    import regex
    from open_clip.tokenizer import SimpleTokenizer

    clip = SimpleTokenizer()
    words: Counter[str] = Counter()
    for caption in captions:
        for word in regex.findall(clip.pat, clip.clean_fn(caption)):
            words["".join(clip.byte_encoder[byte] for byte in word.encode())] += 1
    return words


def _merged(word: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


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
