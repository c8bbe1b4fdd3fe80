"""Byte-level BPE vocabularies for our multilingual models, learnt from the embedded world's captions in all languages.

`python -m repro.vocabulary` writes repro/models/bpe-multilingual-*.txt.gz anew, the same to the byte: in the format of
CLIP's merges file, with its words (runs of letters, so a Chinese sentence is one word) and its marks (</w>). It learns
from captions of another seed than that of training. Any text in any script encodes: what was not learnt, as bytes.
"""

import gzip
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from repro.data import shapes
from repro.resources import PACKAGE

MERGES = (512, 4096)
"""Of the small vocabulary, which cuts words to pieces, and of the large one, to which nearly each word is one token."""
SEED, BLOCKS = 1, 8
"""Of the captions that are learnt from: 8,192 scenes in each language."""

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
        lines = ["#version: learnt by repro.vocabulary", *(" ".join(pair) for pair in merges[:number])]
        content = gzip.compress("\n".join(lines).encode(), mtime=0)
        (PACKAGE / "models" / f"bpe-multilingual-{number}.txt.gz").write_bytes(content)


if __name__ == "__main__":
    keep_ours()
