"""Vocabularies of our multilingual models: learnt as BPE is, read by open_clip's tokenizer."""

import gzip
import json

import pytest
from click.testing import CliRunner
from open_clip.tokenizer import SimpleTokenizer

from repro.cli import main
from repro.config.files import PACKAGE
from repro.models import build
from repro.models.model_config import read_config
from repro.models.vocabulary import MERGES, learn, world_captions
from repro.world import write as shapes
from repro.world.source import make_world


def file(merges: int):
    return PACKAGE / "models" / "configs" / f"bpe-multilingual-{merges}.txt.gz"


def tokenizer(merges: int) -> SimpleTokenizer:
    return SimpleTokenizer(str(file(merges)), context_length=16)


def test_the_most_frequent_pair_is_merged_first():
    captions = ["low low low low low", "lower lower", "newest newest newest newest newest newest"]
    assert learn(captions, 3) == [("w", "e"), ("l", "o"), ("e", "we")]


def test_a_pair_that_stands_once_is_not_merged():
    assert learn(["abc"], 10) == []
    assert learn(["abc", "abc"], 10) == [("a", "b"), ("ab", "c</w>")]


@pytest.mark.parametrize("merges", MERGES)
def test_the_vocabularies_are_those_that_the_captions_give(merges):
    """The head of each, learnt again from fewer captions, agrees but for close counts."""
    kept = gzip.decompress(file(merges).read_bytes()).decode().split("\n")[1:]
    assert len(kept) == merges
    again = [" ".join(pair) for pair in learn(world_captions(blocks=2), 200)]
    assert len(set(again) & set(kept[:220])) > 180


def test_the_small_vocabulary_is_the_head_of_the_large_one():
    small, large = (gzip.decompress(file(merges).read_bytes()).split(b"\n") for merges in MERGES)
    assert large[: len(small)] == small


@pytest.mark.parametrize("name", ["laptop-multilingual", "laptop-multilingual-small"])
def test_the_models_have_a_row_for_each_token(name):
    text_cfg = read_config(name)[0]["model_cfg"]["text_cfg"]
    kept = SimpleTokenizer(str(PACKAGE / "models" / "configs" / text_cfg["tokenizer_kwargs"]["bpe_path"]))
    assert text_cfg["vocab_size"] == kept.vocab_size


@pytest.mark.parametrize("merges", MERGES)
@pytest.mark.parametrize(
    "text", ["ein roter kreis", "دائرتان حمراوان", "红色圆形", "手をつなぐ男女", "दिल", "청각장애"]
)
def test_any_script_encodes_and_comes_back(merges, text):
    kept = tokenizer(merges)
    assert kept.decode(kept.encode(text)).replace(" ", "") == text.replace(" ", "")


def test_the_small_vocabulary_cuts_captions_that_fit_the_large_one():
    small, large = map(tokenizer, MERGES)
    samples = shapes.training_block(0, rows=300, image_size=16, multilingual=True)
    captions = [text for sample in samples for text in json.loads(sample["json"])["captions"].values()]
    too_long = {kept: sum(len(kept.encode(text)) + 2 > 16 for text in captions) for kept in (small, large)}
    assert too_long[small] > 0.3 * len(captions)
    assert too_long[large] < 0.05 * len(captions)


def test_a_vocabulary_is_learnt_from_the_captions_of_ones_own_shards(tmp_path):
    out = tmp_path / "mine.json"
    pattern = make_world("shapes-multilingual:1024").train_pattern
    command = ["data", "vocabulary", pattern, "--model", "laptop", "--tokens", "1000", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1,000 tokens")
    build.export(str(out), tmp_path / "folder")
    assert build.load(tmp_path / "folder").model.token_embedding.weight.shape[0] == 1000
    learnt = SimpleTokenizer(str(tmp_path / "mine.txt.gz"))
    assert [len(learnt.encode(word)) for word in ("circle", "دائرة")] == [1, 1]
    done = CliRunner().invoke(main, [*command[:5], "--tokens", "500", *command[7:]])
    assert done.exit_code == 2
    assert "--tokens 500: expected more than the 514" in done.output
