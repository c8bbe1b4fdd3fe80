"""Open a run's data: pairs in shards, or embeddings and tokens computed from them beforehand (siglit)."""

from collections import Counter

from repro.config.errors import BadData
from repro.config.spec import RunSpec
from repro.data.cache import open_kept
from repro.data.corruption import Corruption
from repro.data.embeddings import EmbeddedPairs
from repro.data.languages import check_languages, shares_of_languages
from repro.data.pairs import Pairs, SampleOrder
from repro.data.shards import count_unusable, list_shards, open_shards
from repro.models import build
from repro.models.embed import embeddings_of
from repro.models.model_config import context_length, tokenizer_fingerprint
from repro.train import distributed
from repro.train.failures import describe_bad
from repro.world.source import shard_pattern


def open_data(spec: RunSpec, towers: build.Towers) -> tuple[Pairs | EmbeddedPairs, Counter]:
    """The data, and what the scan found unusable: (shard, reason) → samples. Raises BadData where that is too much."""
    return _open_embedded(spec, towers) if spec.reads_embeddings else _open_pairs(spec, towers)


def _open_pairs(spec: RunSpec, towers: build.Towers) -> tuple[Pairs, Counter]:
    """The data, and what the scan found unusable. Rank 0 of each machine fetches and scans, the others find it done."""
    with distributed.first_on_this_machine():
        files, indexes = open_shards(list_shards(shard_pattern(spec)))
    if spec.languages:
        check_languages(spec.data, spec.languages, shares_of_languages(files, indexes))
    unusable = count_unusable([file.name for file in files], indexes)
    good = sum(map(len, indexes))
    _refuse_unusable(unusable, good, spec)
    order = SampleOrder([len(index) for index in indexes], spec.seed, spec.shuffle_shards)
    size, length = towers.image_size, towers.context_length
    prepared = f"{spec.model_fingerprint} {spec.interpolation or ''}".strip()
    kept = open_kept(files, good, prepared, size, length, spec.languages)
    corruption = Corruption.of(spec, towers.tokenize, towers.vocabulary_size)
    pairs = Pairs(files, indexes, order, towers.resize, towers.tokenize, kept, spec.languages, corruption)
    return pairs, unusable


def _open_embedded(spec: RunSpec, towers: build.Towers) -> tuple[EmbeddedPairs, Counter]:
    """Embeddings and tokens for images and captions. Rank 0 of each machine makes them where there are none."""
    with distributed.first_on_this_machine():
        embeddings = embeddings_of(spec)
    _, sizes = embeddings.shards
    _refuse_unusable(embeddings.unusable, embeddings.count, spec)
    tokens = embeddings.tokens(tokenizer_fingerprint(spec.model), context_length(spec.model))
    order = SampleOrder(sizes, spec.seed, spec.shuffle_shards)
    corruption = Corruption.of(spec, towers.tokenize, towers.vocabulary_size)
    return EmbeddedPairs(embeddings, order, tokens, corruption), embeddings.unusable


def _refuse_unusable(unusable: Counter, good: int, spec: RunSpec) -> None:
    """Raises BadData where the scan found more samples unusable than the spec allows."""
    lost = sum(unusable.values())
    if lost > spec.max_bad_share * (good + lost):
        raise BadData(describe_bad(unusable, lost, good + lost, spec.max_bad_share), unusable)
