"""Retrieval in several languages: a number for each, their mean, and the images only once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from repro.config.errors import EvaluationFailed, InputError
from repro.data.eval_sets import (
    MULTILINGUAL,
    MULTILINGUAL_SHAPES,
    check_eval,
    dataset_name,
    language_means,
    languages_of,
    parts,
)
from repro.evaluate import evaluate
from repro.models import build
from repro.train.checkpoint import Checkpoints
from repro.world.source import each_eval, make_world
from tests.evaluate.test_evaluate import CPU, stock_command


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    build.export("laptop-multilingual", folder, init_logit_bias=-10)
    torch.manual_seed(0)
    Checkpoints(folder).save_final(build.load(folder).model.state_dict(), {})
    return folder


@pytest.fixture
def images_embedded(monkeypatch) -> list[int]:
    """How many images passed the image tower, a number a batch."""
    sizes: list[int] = []
    load = build.load

    def load_and_count(*arguments, **options):
        towers = load(*arguments, **options)
        towers.model.visual.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
        return towers

    monkeypatch.setattr(build, "load", load_and_count)
    return sizes


@pytest.fixture
def crossmodal(tmp_path, monkeypatch) -> Path:
    """Crossmodal-3600 as clip-benchmark leaves it after its download, with twelve images and captions in letters."""
    root = tmp_path / "datasets" / "crossmodal3600"
    root.mkdir(parents=True)
    random = np.random.default_rng(0)
    paths = [str(root / f"{number}.png") for number in range(12)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    for language in languages_of("crossmodal3600"):
        texts = [f"{language} {'abcdefghijkl'[number] * 3}" for number in range(12)]
        content = {"image_paths": paths, "annotations": texts, "indicies": list(range(12))}
        (root / f"crossmodal3600_captions-{language}.json").write_text(json.dumps(content))
    monkeypatch.setenv("REPRO_DATASETS", str(root.parent))
    return root


def test_each_language_has_the_stock_commands_numbers_and_their_mean_is_theirs(
    checkpoints, cache, tmp_path, images_embedded
):
    world = make_world("shapes-multilingual:1024")
    assert [Path(folder).name for folder in world.evals] == list(MULTILINGUAL_SHAPES)
    found = evaluate(checkpoints, list(world.evals), tmp_path / "evals", CPU)
    assert sum(images_embedded) == 2016 + 1000
    # Several workers bring the images in another order, and an untrained model's bf16 similarities tie.
    retrieval = ("--task", "zeroshot_retrieval", "--recall_k", "1", "5", "10", "--num_workers", "1")
    theirs = stock_command(checkpoints, world.evals[-1], tmp_path / "ar.json", *retrieval)
    for metric in theirs:
        assert found[f"wds_shapes_retrieval_ar/{metric}"] == theirs[metric]
        of_each = [found[f"{name}/{metric}"] for name in MULTILINGUAL_SHAPES[1:]]
        assert found[f"wds_shapes_retrieval_mean/{metric}"] == pytest.approx(sum(of_each) / len(of_each))
    assert evaluate(checkpoints, list(world.evals), tmp_path / "evals", CPU) == found


def test_a_named_set_stands_for_all_its_languages_and_its_images_are_embedded_once(
    checkpoints, crossmodal, tmp_path, images_embedded
):
    found = evaluate(checkpoints, each_eval(["crossmodal3600"]), tmp_path / "all", CPU)
    assert sum(images_embedded) == 12
    assert {name.split("/")[0] for name in found} == {
        f"crossmodal3600_{x}" for x in (*languages_of("crossmodal3600"), "mean")
    }
    assert json.loads((tmp_path / "all" / "crossmodal3600_de.json").read_text())["language"] == "de"
    alone = evaluate(checkpoints, each_eval(["crossmodal3600:sw"]), tmp_path / "one", CPU)
    assert alone == {name: value for name, value in found.items() if name.startswith("crossmodal3600_sw/")}


def test_where_a_language_could_not_be_evaluated_there_is_no_mean(checkpoints, crossmodal, tmp_path):
    (crossmodal / "crossmodal3600_captions-de.json").write_text("{")
    with pytest.raises(EvaluationFailed, match="--eval crossmodal3600:de: ") as failed:
        evaluate(checkpoints, ["crossmodal3600:en", "crossmodal3600:de", "crossmodal3600:zh"], tmp_path, CPU)
    assert {name.split("/")[0] for name in failed.value.metrics} == {"crossmodal3600_en", "crossmodal3600_zh"}


def test_means_are_of_the_languages_of_one_set():
    recall = "image_retrieval_recall@1"
    metrics = {
        f"wds_emoji_de/{recall}": 0.2,
        f"wds_emoji_ja/{recall}": 0.4,
        f"xtd200_deu_Latn/{recall}": 0.5,
        f"xtd200_jpn_Jpan/{recall}": 0.7,
        f"wds_flickr30k/{recall}": 0.9,
        f"crossmodal3600_en/{recall}": 0.1,
        "wds_cars_de/acc1": 0.3,
        "wds_cars_en/acc1": 0.5,
    }
    assert language_means(metrics) == {
        f"wds_emoji_mean/{recall}": pytest.approx(0.3),
        f"xtd200_mean/{recall}": pytest.approx(0.6),
    }


def test_clip_benchmarks_languages_are_read_without_its_imports():
    assert {name: len(languages_of(name)) for name in MULTILINGUAL} == {
        "crossmodal3600": 36,
        "multilingual_mscoco_captions": 11,
        "xtd10": 11,
        "xtd200": 201,
        "flickr30k-200": 201,
    }
    assert parts("flickr30k") == ["flickr30k"]
    assert dataset_name("crossmodal3600:pt") == "crossmodal3600_pt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crossmodal3600:dee", "crossmodal3600 has no language 'dee'; the nearest is 'de'"),
        ("crossmodal360", "the nearest is 'crossmodal3600'"),
        ("flickr30k:de", "flickr30k has no language 'de'; known: en, zh"),
        ("imagenet1k:de", "imagenet1k is in one language; name imagenet1k"),
    ],
)
def test_a_language_that_a_set_lacks_is_named(name, message):
    with pytest.raises(InputError, match=message):
        check_eval(name)


def test_sets_of_the_world_are_those_that_it_was_trained_on():
    def names(evals, data):
        return [Path(folder).name for folder in each_eval(evals, data)]

    assert names(["shapes"], "shapes-multilingual:1024") == list(MULTILINGUAL_SHAPES)
    assert names(["shapes", "shapes-multilingual"], "shapes-multilingual:1024") == list(MULTILINGUAL_SHAPES)
    assert names(["shapes"], "shapes:2048") == ["wds_shapes_objects", "wds_shapes_retrieval"]
