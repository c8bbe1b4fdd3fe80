"""Our evaluation is clip-benchmark's: its stock command on the same checkpoint gives the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repro.config.errors import InputError, Interrupted
from repro.data.eval_sets import check_eval, dataset_name
from repro.evaluate import evaluate, evaluate_checkpoint
from repro.models import build
from repro.train.checkpoint import Checkpoints

CPU = torch.device("cpu")


def stock_command(checkpoints: Path, folder: str, output: Path, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", "clip_benchmark.cli", "eval", "--model", f"local-dir:{checkpoints}"]
    command += ["--pretrained", str(checkpoints / "final.pt"), "--dataset", f"wds/{Path(folder).name}"]
    command += ["--dataset_root", folder, "--output", str(output), *options]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(output.read_text())["metrics"]


def test_the_stock_command_gives_the_same_numbers(checkpoints, world, tmp_path):
    ours = evaluate(checkpoints, list(world.evals), tmp_path / "evals", CPU)
    classification, retrieval = world.evals
    theirs = {
        classification: stock_command(checkpoints, classification, tmp_path / "c.json"),
        retrieval: stock_command(
            checkpoints, retrieval, tmp_path / "r.json", "--task", "zeroshot_retrieval", "--recall_k", "1", "5", "10"
        ),
    }
    expected = {f"{dataset_name(folder)}/{key}": value for folder, m in theirs.items() for key, value in m.items()}
    assert ours == expected
    assert len(ours) == 9


def test_open_clip_loads_the_final_weights(checkpoints):
    import open_clip

    trained = torch.load(checkpoints / "final.pt", weights_only=True)
    model = open_clip.create_model(f"local-dir:{checkpoints}")
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_a_named_models_final_weights_load_by_its_name(tmp_path):
    import open_clip

    build.export("RN50", tmp_path)
    Checkpoints(tmp_path).save_final(build.load(tmp_path).model.state_dict(), {})
    open_clip.create_model("RN50", pretrained=str(tmp_path / "final.pt"))


def test_what_was_evaluated_is_not_evaluated_again(checkpoints, world, tmp_path):
    file = tmp_path / f"{dataset_name(world.evals[0])}.json"
    file.write_text(json.dumps({"metrics": {"acc1": 0.123}}))
    assert evaluate(checkpoints, [world.evals[0]], tmp_path, CPU) == {f"{dataset_name(world.evals[0])}/acc1": 0.123}


def test_a_weights_file_is_evaluated_with_the_config_beside_it_or_a_named_model(checkpoints, world, tmp_path):
    beside = evaluate_checkpoint(checkpoints / "final.pt", [world.evals[0]])
    alone = tmp_path / "alone.pt"
    alone.write_bytes((checkpoints / "final.pt").read_bytes())
    assert evaluate_checkpoint(alone, [world.evals[0]], model="laptop") == beside
    with pytest.raises(InputError, match="name its model with --model"):
        evaluate_checkpoint(alone, [world.evals[0]])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shapes:10shot", "expected shapes, or shapes:10-shot for the linear probe"),
        ("imagenet1", "neither a folder nor a data set of clip-benchmark; the nearest is 'imagenet1k'"),
        ("/no/such/folder", "no such folder"),
    ],
)
def test_an_evaluation_that_is_none_is_named(name, message):
    with pytest.raises(InputError, match=message):
        check_eval(name)


def test_a_folder_that_is_no_evaluation_says_what_is_missing(tmp_path, world):
    with pytest.raises(InputError, match=r"nshards.txt is missing"):
        check_eval(str(tmp_path))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "nshards.txt").write_text("1")
    with pytest.raises(InputError, match=r"classnames.txt is missing"):
        check_eval(str(tmp_path))
    for folder in world.evals:
        check_eval(folder)


def test_a_stop_while_an_image_is_decoded_is_a_stop_and_no_damage(checkpoints, world, tmp_path, monkeypatch):
    from PIL import Image

    def stopped(*arguments):
        raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(Image, "open", stopped)  # webdataset takes what is raised in it for a broken sample
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        evaluate(checkpoints, [world.evals[0]], tmp_path, CPU)
