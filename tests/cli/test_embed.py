"""repro data embed as a person types it: by name and by checkpoint, on processes and ranks; mistakes answered."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from repro.cli import main
from repro.data.embeddings import Embeddings
from repro.models import build
from repro.models.embed import config_for
from repro.models.model_config import read_config
from repro.models.pretrained import tower_identity


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's directory, with final weights."""
    folder = tmp_path_factory.mktemp("run")
    build.export("laptop", folder / "checkpoints")
    torch.manual_seed(7)
    torch.save(build.load(folder / "checkpoints").model.state_dict(), folder / "checkpoints" / "final.pt")
    return folder


def embed(*options):
    return CliRunner().invoke(main, ["data", "embed", *map(str, options)])


def test_by_run_by_name_with_weights_and_under_torchrun_it_makes_the_same(run, world, tmp_path):
    data = ("--data", "shapes:2048")
    done = embed("--model", run, *data, "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "2,048 samples, 64 numbers each" in done.output
    assert f"embeddings={tmp_path}/a" in done.output
    done = embed("--model", "laptop", "--pretrained", run, *data, "--out", tmp_path / "b", "--processes", 2)
    assert done.exit_code == 0, done.output
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "repro", "data", "embed"]
    options = ["--model", run, *data, "--out", tmp_path / "c"]
    subprocess.run([*command, *options], check=True, capture_output=True, env=os.environ)
    images = [np.load(tmp_path / name / "images.npy") for name in "abc"]
    assert np.array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() < 1e-3
    assert len({Embeddings(tmp_path / name).content["tower_fingerprint"] for name in "abc"}) == 1
    again = embed("--model", run, *data, "--out", tmp_path / "a")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "laptop"), "--model laptop: name its weights with --pretrained"),
        (("--model", "labtop", "--pretrained", "laptop-tower"), "unknown model 'labtop'; the nearest is 'laptop'"),
        (("--model", "laptop", "--pretrained", "none.pt"), "pretrained none.pt: no such file or folder"),
        (("--model", "timm:vit_base_patch8_223"), "timm has no such model; the nearest is 'vit_base_patch8_224"),
        (
            ("--model", "ViT-B-32", "--pretrained", "opeani"),
            "open_clip has no such weights of ViT-B-32; the nearest is",
        ),
    ],
)
def test_mistakes_are_answered_with_the_nearest_that_works(tmp_path, world, options, message):
    done = embed(*options, "--data", "shapes:2048", "--out", tmp_path / "e")
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_folder_with_other_files_is_left_alone(run, world, tmp_path):
    np.save(tmp_path / "mine.npy", np.zeros(3))
    done = embed("--model", run, "--data", "shapes:2048", "--out", tmp_path)
    assert (done.exit_code, "holds other files; expected an empty folder" in done.output) == (2, True), done.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npy"]


def test_a_tower_of_timm_gets_a_config_under_its_own_preprocessing_and_is_the_papers_where_it_is(tmp_path):
    config = config_for("timm:vit_base_patch8_224.augreg_in21k", "timm", tmp_path)
    assert (
        tower_identity(config, "timm", "bf16")["tower_fingerprint"]
        == (tower_identity("siglit-b8-l12", "timm", "bf16")["tower_fingerprint"])
    )


def test_a_tag_of_open_clips_brings_its_own_preprocessing(tmp_path):
    made = read_config(config_for("ViT-B-32", "openai", tmp_path))[0]["preprocess_cfg"]
    assert made["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert config_for("laptop", "laptop-tower", tmp_path) == "laptop"
