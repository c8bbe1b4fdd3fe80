"""Training on captions in several languages: resumed to the bit, and from end to end on the world and on real files."""

import json
import shutil

import pytest

from repro.config.errors import InputError, Interrupted
from repro.config.sweep import Overrides, expand, load_sweep
from repro.launch.complete import complete, prepare_data
from repro.runs.directory import RunDirectory
from repro.runs.execute import run
from repro.train.loop import Options
from tests.train.runs import StopAfter, assert_same_bits, trained

WORLD = {"data": "shapes-multilingual:1024", "languages": ("zh", "ar"), "model": "laptop-multilingual"}
TWO_EPOCHS = {"examples_seen": 2048, "batch_size": 128}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_in_languages_resumes_to_the_bit_whatever_is_kept(make_spec, tmp_path, cache, workers):
    spec = make_spec(**WORLD, **TWO_EPOCHS)
    shutil.rmtree(cache / "decoded", ignore_errors=True)
    undisturbed, _ = trained(spec, tmp_path / "a")
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "b", Options(workers=workers), StopAfter(9))  # in the second epoch
    shutil.rmtree(cache / "decoded")
    trained(spec, tmp_path / "b", Options(workers=1 - workers))
    assert_same_bits(undisturbed, RunDirectory(tmp_path / "b"))


def test_languages_are_part_of_what_a_run_is(make_spec):
    ids = {make_spec(**WORLD | {"languages": languages}).run_id for languages in ((), ("zh",), ("zh", "ar"))}
    assert len(ids) == 3


def small_spec(**values):
    small = {"loss": "sigmoid", "examples_seen": 2048, "batch_size": 128, "threads": 1} | values
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({"setup": ["msiglip"]}, small)))
    prepare_data([spec], 1)
    return spec


def test_two_languages_from_end_to_end(tmp_path):
    """The recipe, less long: trained on two languages, evaluated on each and on their mean."""
    spec = small_spec(**WORLD, evals=("shapes",))
    assert spec.setup == "msiglip"
    result = run(spec, RunDirectory(tmp_path / "run"), Options())
    assert result["status"] == "finished", result["reason"]
    recalls = {name: value for name, value in result["metrics"].items() if name.endswith("text_retrieval_recall@10")}
    assert set(recalls) == {
        f"wds_shapes_retrieval_{language}/text_retrieval_recall@10" for language in ("en", "zh", "ar", "mean")
    }
    assert result["metrics"]["wds_shapes_objects/acc5"] > 0


def test_the_emoji_set_runs_through_in_languages_that_the_vocabulary_never_saw(tmp_path, emoji):
    evals = tuple(str(emoji / "eval" / f"wds_emoji_{language}") for language in ("en", "de", "ja"))
    shards = str(emoji / "train" / "{00000..00001}.tar")
    spec = small_spec(data=shards, languages=("en", "de", "ja", "ko"), evals=evals, token_bottleneck=8)
    result = run(spec, RunDirectory(tmp_path / "run"), Options())
    assert (result["status"], result["bad_samples"]) == ("finished", 0)
    metrics = result["metrics"]
    of_each = [metrics[f"wds_emoji_{language}/image_retrieval_recall@10"] for language in ("en", "de", "ja")]
    assert metrics["wds_emoji_mean/image_retrieval_recall@10"] == pytest.approx(sum(of_each) / 3)


def test_a_language_that_the_data_lack_is_named_before_a_run_and_by_a_run(make_spec, tmp_path, emoji):
    with pytest.raises(InputError, match=r"shapes-multilingual:1024 have no caption in 'fr'; known: ar, en, zh"):
        make_spec(**WORLD | {"languages": ("en", "fr")})
    with pytest.raises(InputError, match="languages de: the data shapes:2048 have no captions by language"):
        make_spec(languages=("de",))
    shards = str(emoji / "train" / "00000.tar")
    with pytest.raises(InputError, match="have no caption in 'jaa'; the nearest is 'ja'"):
        small_spec(data=shards, languages=("en", "jaa"), evals=())
    unchecked = make_spec(data=shards).model_copy(update={"languages": ("en", "jaa")})
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(InputError):
        run(unchecked, directory, Options())
    result = json.loads(directory.result_file.read_text())
    assert result["status"] == "failed"
    assert "have no caption in 'jaa'; the nearest is 'ja'" in result["reason"]
