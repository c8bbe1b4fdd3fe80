"""Broken specs and model configs: a message that names file, key and value, exit code 2, and nothing started."""

import json
from pathlib import Path

import pytest

from repro import results
from repro.launch import JobSettings, launch
from tests.drill.conftest import small_cell

GOOD = {
    **{"setup": "siglip", "scale": "laptop", "data": "shapes:2048", "model": "laptop", "loss": "sigmoid"},
    **{"batch_size": 64, "micro_batch": 64, "examples_seen": 128, "learning_rate": 1e-3, "weight_decay": 1e-4},
}


def changed(**values: object) -> str:
    return json.dumps(GOOD | values)


def without(key: str) -> str:
    return json.dumps({name: value for name, value in GOOD.items() if name != key})


KINDS = {
    "not JSON": ("batch_size: 64", "spec.json: not JSON: Expecting value: line 1"),
    "empty": ("", "spec.json: an empty file"),
    "not text": (b"\x93NUMPY\xff", "spec.json: not a text file"),
    "a list": ("[1, 2]", "spec.json: expected keys and values, found list"),
    "unknown key": (changed(bacth_size=64), "spec.json: unknown key 'bacth_size'; the nearest is 'batch_size'"),
    "missing key": (without("batch_size"), "spec.json: 'batch_size' is missing"),
    "wrong type": (changed(learning_rate="fast"), "spec.json: learning_rate 'fast': expected a valid number"),
    "list for a number": (changed(batch_size=[64]), "spec.json: batch_size [64]: '[64]' is not a batch size"),
    "text for a list": (changed(evals="shapes"), "spec.json: evals: expected a list such as [shapes]"),
    "NaN": (changed(learning_rate=float("nan")), "spec.json: learning_rate nan: expected a finite number"),
    "infinity": (changed(weight_decay=float("inf")), "spec.json: weight_decay inf: expected a finite number"),
    "negative": (changed(seed=-1), "spec.json: seed -1: expected greater than or equal to 0"),
    "format 99": (changed(format=99), "spec.json: format 99; this version of repro reads format 2"),
    "unknown value": (changed(loss="sigmod"), "spec.json: loss 'sigmod' is unknown; the nearest is 'sigmoid'"),
    "micro-batch that does not divide": (
        changed(batch_size=96),
        "spec.json: micro_batch 64 does not divide batch_size 96; the nearest that does is 48",
    ),
    "less than one step": (
        changed(examples_seen=32),
        "examples_seen 32 is less than batch_size 64: not one step; use --examples 64 or more",
    ),
    "unknown model": (changed(model="labtop"), "unknown model 'labtop'; the nearest is 'laptop'"),
    "model file missing": (changed(model="none.json"), "model none.json: cannot be read: [Errno 2] No such file"),
    "no data": (changed(data=""), "name shards of your own with --data PATTERN"),
    "data that are not there": (changed(data="none/{0..3}.tar"), "--data none/{0..3}.tar: no such file"),
    "unknown evaluation": (changed(evals=["imagenet1"]), "--eval imagenet1: neither a folder nor a data set"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_broken_spec_is_refused_with_the_nearest_that_works(tmp_path, monkeypatch, repro, world, name):
    monkeypatch.chdir(tmp_path)
    content, message = KINDS[name]
    Path("spec.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    done = repro("run", "spec.json")
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_spec_that_is_a_folder_is_named(tmp_path, repro):
    done = repro("run", tmp_path)
    assert (done.exit_code, f"{tmp_path}: Is a directory" in done.output) == (2, True)


def model_cfg(**values: object) -> dict:
    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    return {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text} | values


MODELS = {
    "not JSON": ("{", "model mine.json: cannot be read: Expecting property name"),
    "a list": ("[]", "expected an open_clip model config of keys and values, found list"),
    "a number": ("7", "expected an open_clip model config of keys and values, found int"),
    "no text tower": (json.dumps({"embed_dim": 64, "vision_cfg": {}}), "model mine.json: expected an open_clip model"),
    "a tower that is a name": (
        json.dumps(model_cfg(vision_cfg="vit")),
        "model mine.json: vision_cfg 'vit': expected keys and values",
    ),
    "its vocabulary is missing": (
        json.dumps(model_cfg(text_cfg={"tokenizer_kwargs": {"bpe_path": "none.txt.gz"}})),
        "the vocabulary file none.txt.gz is missing",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_broken_model_config_is_refused_before_anything_starts(tmp_path, monkeypatch, repro, name):
    monkeypatch.chdir(tmp_path)
    content, message = MODELS[name]
    Path("mine.json").write_text(content)
    done = repro("sweep", "batch-size", "--set", "model=mine.json")
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not list(tmp_path.glob("runs/*/*"))


UNBUILDABLE = {
    "a width that heads do not divide": model_cfg(text_cfg={"context_length": 16, "width": 64, "heads": 3}),
    "an unknown key": model_cfg(vision_cfg={"image_size": 32, "patch_sise": 8}),
    "an unknown timm model": model_cfg(vision_cfg={"image_size": 32, "timm_model_name": "vit_none"}),
}


@pytest.fixture(scope="module")
def unbuildable(tmp_path_factory, world) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("models")
    cells = {}
    for number, (name, config) in enumerate(UNBUILDABLE.items()):
        file = folder / f"{number}.json"
        file.write_text(json.dumps(config))
        cells[name] = small_cell(folder / "runs", model=str(file))
    launch(list(cells.values()), JobSettings(), executor="inline")
    return {name: results.row(cell.directory) for name, cell in cells.items()}


@pytest.mark.parametrize("name", UNBUILDABLE)
def test_a_model_that_cannot_be_built_fails_its_run_alone(unbuildable, name):
    row = unbuildable[name]
    assert row["status"] == "failed"
    assert "checkpoints/open_clip_config.json: open_clip cannot build a model from it: " in row["reason"]


def test_a_dry_run_names_a_model_that_cannot_be_built(tmp_path, repro):
    (tmp_path / "mine.json").write_text(json.dumps(UNBUILDABLE["an unknown key"]))
    done = repro("sweep", "batch-size", "--set", f"model={tmp_path}/mine.json", "--dry-run")
    assert (done.exit_code, "mine.json: cannot be built: TypeError: " in done.output) == (2, True), done.output
