"""The few-shot probe: ridge regression on a few images a class, over embeddings made once."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.config.errors import InputError
from repro.data.eval_sets import check_eval, evaluated
from repro.evaluate import classification, evaluate
from repro.models import build
from repro.runs.directory import RunDirectory
from repro.world import source
from repro.world import write as shapes
from repro.world.source import each_eval

CPU = torch.device("cpu")


@pytest.fixture
def passed(monkeypatch) -> dict[str, int]:
    """Images and texts that pass the towers, counted."""
    counts = {"images": 0, "texts": 0}
    load = build.load

    def load_and_count(*arguments, **options):
        towers = load(*arguments, **options)
        for name, kind in (("encode_image", "images"), ("encode_text", "texts")):
            setattr(towers.model, name, counting(getattr(towers.model, name), kind))
        return towers

    def counting(encode, kind):
        def counted(inputs, *arguments, **options):
            counts[kind] += len(inputs)
            return encode(inputs, *arguments, **options)

        return counted

    monkeypatch.setattr(build, "load", load_and_count)
    return counts


def test_the_classifier_is_the_closed_form_of_ridge_regression():
    """Held against the same problem as one of ordinary least squares: √λ·I below the inputs, zeros as their targets."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    train = torch.randn(40, 6, generator=generator) + labels[:, None]
    test = torch.randn(100, 6, generator=generator) + torch.arange(100)[:, None] % 4
    inputs, questions = (
        np.c_[(x.double().numpy() - train.double().mean(0).numpy()) / (train.double().numpy().std(0) + 1e-5)]
        for x in (train, test)
    )
    inputs, questions = (np.c_[x, np.full(len(x), 100.0)] for x in (inputs, questions))
    targets = np.where(labels.numpy()[:, None] == np.arange(4), 1.0, -1.0)
    below = np.sqrt(classification.REGULARISATION) * np.eye(7)
    weights, *_ = np.linalg.lstsq(np.r_[inputs, below], np.r_[targets, np.zeros((7, 4))], rcond=None)
    expected = ((questions @ weights).argmax(1) == np.arange(100) % 4).mean()
    assert classification.few_shot_accuracy(train, labels, test, torch.arange(100) % 4, 4) == pytest.approx(expected)
    assert 0.5 < expected < 1


def test_the_first_of_each_class_are_chosen_and_the_others_not_decoded():
    decoded: list[int] = []

    class Images:
        targets = (0, 0, 1, 0, 1, 1)

        def __getitem__(self, number):
            decoded.append(number)
            return f"image {number}", self.targets[number]

    assert list(classification.first_of_each_class(Images(), 2, 2, "x")) == [
        ("image 0", 0),
        ("image 1", 0),
        ("image 2", 1),
        ("image 4", 1),
    ]
    assert decoded == [0, 1, 2, 4]
    stream = iter([("a", 1), ("b", 0), ("c", 0), ("never read", 0)])
    assert list(classification.first_of_each_class(stream, 1, 2, "x")) == [("a", 1), ("b", 0)]
    assert next(stream) == ("c", 0)
    with pytest.raises(InputError, match="x:9-shot: a class has only 3 images to train on; use x:3-shot"):
        list(classification.first_of_each_class(Images(), 9, 2, "x"))


def test_the_world_gets_its_training_split_beside_what_it_holds(tmp_path):
    """Ten of each class, always the same, in none of the bytes that were there."""
    world = shapes.make(tmp_path / "world", 64)
    before = {file: file.read_bytes() for file in world.folder.rglob("*.*")}
    folder = Path(source.with_training_split(world))
    assert source.with_training_split(world) == str(folder)
    assert all(file.read_bytes() == content for file, content in before.items())
    with tarfile.open(folder / "train" / "0.tar") as tar:
        classes = [int(tar.extractfile(m).read()) for m in tar.getmembers() if m.name.endswith(".cls")]
    assert np.bincount(classes).tolist() == [10] * 96
    assert shapes.make(tmp_path / "world", 64) == world
    again = shapes.make(tmp_path / "again", 64)
    source.with_training_split(again)
    assert (again.folder / "wds_shapes_objects/train/0.tar").read_bytes() == (folder / "train/0.tar").read_bytes()


def test_images_are_embedded_once_for_zero_shot_and_probe_and_the_classifier_is_made_once(
    checkpoints, world, tmp_path, passed
):
    alone = evaluate(checkpoints, [world.evals[0]], tmp_path / "alone", CPU)
    before = dict(passed)
    assert before == {"images": 2016, "texts": 96 * 4}
    copied = tmp_path / "wds_copied"  # the same prompts over (here: the same) other images
    shutil.copytree(world.evals[0], copied)
    (probe,) = each_eval(["shapes:10-shot"], "shapes:2048")
    assert probe == f"{world.evals[0]}:10-shot"
    found = evaluate(checkpoints, [world.evals[0], str(copied), probe], tmp_path / "evals", CPU)
    assert passed == {"images": before["images"] + 2016 + 960 + 2016, "texts": before["texts"] + 96 * 4}
    assert alone.items() <= found.items()
    assert 1 / 96 < found["wds_shapes_objects/10shot_acc1"] < 0.5
    written = json.loads((tmp_path / "evals" / "wds_shapes_objects_10shot.json").read_text())
    assert (written["dataset"], written["task"]) == ("wds/wds_shapes_objects", "linear_probe")


def test_a_run_that_lacks_a_probe_is_not_done(tmp_path, make_spec):
    spec = make_spec(evals=("shapes:10-shot",))
    directory = RunDirectory(tmp_path)
    assert not evaluated(directory, spec)
    directory.evals.mkdir()
    (directory.evals / "wds_shapes_objects_10shot.json").write_text("{}")
    assert evaluated(directory, spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wds_shapes_retrieval", "a linear probe needs classes"),
        ("wds_shapes_objects", "train/nshards.txt is missing"),
    ],
)
def test_a_folder_that_cannot_be_probed_says_what_is_missing(tmp_path, name, message):
    world = shapes.make(tmp_path / "world", 64)
    with pytest.raises(InputError, match=message):
        check_eval(f"{world.folder / name}:10-shot")


def test_a_retrieval_set_cannot_be_probed_by_name():
    with pytest.raises(InputError, match="mscoco_captions is for retrieval; a probe needs classes"):
        check_eval("mscoco_captions:10-shot")
    check_eval("imagenet1k:10-shot")
