"""--dry-run says what a launch would say: every sweep that comes along passes with data in place, and what is not there
ends it with exit code 2 and the launch's own message."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.config.sweep import Overrides, expand, list_sweeps, load_sweep
from repro.data.named_sets import collections, known_datasets, sets_of
from repro.models.model_config import read_config

COMMIT = "0" * 40


def on_the_hub(cache: Path, repository: str, file: str) -> None:
    """A placeholder where the hub's library keeps what it downloaded."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    for part, content in ((f"snapshots/{COMMIT}/{file}", "{}"), ("refs/main", COMMIT)):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(content)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, which is offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cases():
    for sweep in list_sweeps():
        for scale, block in sweep.scales.items():
            if sweep.bench(scale) is None:
                setups = [block.setup] if isinstance(block.setup, str) else block.setup
                yield from ((sweep.name, scale, setup) for setup in dict.fromkeys([*setups, *block.setups]))


@pytest.fixture(scope="module")
def placeholders(tmp_path_factory):
    """A cache of the hub with the tokenizer of every model, and the weights of every tower, that our sweeps name."""
    import open_clip
    import timm

    cache = tmp_path_factory.mktemp("hub")
    specs = {
        (spec.model, spec.pretrained)
        for sweep, scale, setup in cases()
        for spec in expand(load_sweep(sweep), scale, Overrides({}, {"setup": setup, "data": "any"}))
    }
    for model, place in specs:
        config = read_config(model)[0]["model_cfg"]
        if tokenizer := config["text_cfg"].get("hf_tokenizer_name"):
            on_the_hub(cache, tokenizer, "tokenizer_config.json")
        named, _, tag = place.rpartition("/")
        if place == "timm":
            name = config["vision_cfg"]["timm_model_name"]
            on_the_hub(cache, timm.get_pretrained_cfg(name).hf_hub_id, "model.safetensors")
        elif place not in ("", "laptop-tower"):
            repository = open_clip.get_pretrained_cfg(named or model, tag)["hf_hub"].rstrip("/")
            on_the_hub(cache, repository, "open_clip_pytorch_model.bin")
    return cache


@pytest.fixture
def filled_hub(hub, placeholders):
    shutil.copytree(placeholders, hub)
    return hub


def dry_run(*arguments: str):
    return CliRunner().invoke(main, ["sweep", *arguments, "--dry-run"])


@pytest.mark.parametrize(("sweep", "scale", "setup"), cases())
def test_every_sweep_passes_at_every_scale_and_setup_with_data_in_place(
    filled_hub, world, tmp_path, monkeypatch, sweep, scale, setup
):
    monkeypatch.chdir(tmp_path)
    given = ["--eval", *world.evals] + (["--data", world.train_pattern] if setup != "released" else [])
    if setup == "msiglip" and scale == "laptop":
        given = []  # its languages are the embedded world's
    done = dry_run(sweep, "--scale", scale, "--setup", setup, *given)
    assert done.exit_code == 0, done.output
    assert "nothing was started" in done.output
    table = done.output.split("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80 and "…" not in table
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("batch-size", "--data", "s3://bucket/{000..009}.tar"), "s3:// is not read; expected files, http://"),
        (("batch-size", "--data", "shards/{000..009}.tar"), "no such file"),
        (("batch-size", "--data", "shapes:2048", "--eval", "imagenet1"), "the nearest is 'imagenet1k'"),
        (("batch-size", "--data", "shapes:2048", "--eval", "nowhere/wds_x"), "no such folder"),
        (
            ("batch-size", "--scale", "paper", "--data", "shapes:2048"),
            "model: tokenizer 'timm/ViT-B-16-SigLIP' could not be downloaded from the hub",
        ),
        (("released", "--scale", "gpu", "--eval", "cifar10"), "'timm/ViT-B-16-SigLIP' could not be downloaded"),
        (("batch-size", "--scale", "paper"), "name shards of your own with --data"),
    ],
)
def test_what_is_not_there_ends_a_dry_run_as_it_would_the_launch(hub, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    found = dry_run(*arguments)
    assert found.exit_code == 2 and message in found.output, found.output
    launched = CliRunner().invoke(main, ["sweep", *arguments])
    assert launched.exit_code == 2 and launched.output.splitlines()[-1] == found.output.splitlines()[-1]


def test_weights_that_are_not_to_be_had_are_named(filled_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(filled_hub / "models--timm--vit_base_patch16_224.augreg_in21k")
    found = dry_run("finetune", "--scale", "paper", "--data", "shapes:2048")
    assert found.exit_code == 2
    assert "pretrained timm: weights 'timm/vit_base_patch16_224.augreg_in21k' could not be downloaded" in found.output


def test_missing_shards_are_counted(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "000.tar").write_bytes(b"")
    found = dry_run("batch-size", "--data", "{000..003}.tar")
    assert found.exit_code == 2 and "3 of 4 shards are missing, first 001.tar" in found.output


def test_data_of_the_embedded_world_is_evaluated_on_that_world(tmp_path, monkeypatch):
    from repro.cli.options import overrides
    from repro.config.sweep import expand, load_sweep

    for scale in ("laptop", "gpu"):
        options = dict.fromkeys(("losses", "batch_sizes", "seeds", "setups", "examples"), ())
        given = options | {"data": "shapes:4096", "evals": (), "settings": (), "scale": scale}
        changes = overrides(CollectedOptions(given))
        assert expand(load_sweep("batch-size"), scale, changes)[0].evals == ("shapes",)


class CollectedOptions(dict):
    """Options that were not typed are empty."""

    def __missing__(self, key):
        return ()


def test_names_that_people_use_stand_for_clip_benchmarks_own():
    for name, wanted in {
        "imagenet": ("imagenet1k",),
        "coco": ("mscoco_captions",),
        "pets": ("pets",),
        "cifar100": ("cifar100",),
        "vtab/pets": ("vtab/pets",),
        "sugar_crepe/add_att": ("sugar_crepe/add_att",),
        "retrieval": ("mscoco_captions", "flickr8k", "flickr30k"),
    }.items():
        assert sets_of(name) == wanted
        assert set(wanted) <= set(known_datasets())
    assert {"imagenet1k", "vtab/pets"} <= set(collections()["vtab+"])
    assert len(set(collections()["datacomp"])) == 32, "of 38: the others have labels of their own (NOT_READ)"


def test_a_set_of_datacomp_is_its_folder_where_it_is_on_disk_and_else_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATASETS", str(tmp_path))
    (tmp_path / "wds_vtab-pets_test").mkdir()
    found = sets_of("datacomp")
    assert str(tmp_path / "wds_vtab-pets_test") in found
    assert "https://huggingface.co/datasets/djghosh/wds_imagenet1k_test/tree/main" in found


def test_whether_a_named_set_is_on_disk_or_can_be_downloaded_is_known_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_DATASETS", str(tmp_path / "sets"))
    monkeypatch.setenv("PATH", "")
    usual = ("batch-size", "--data", "shapes:2048", "--eval")
    lacks = dry_run(*usual, "flickr")
    assert lacks.exit_code == 2 and "clip-benchmark needs the command kaggle" in lacks.output
    packages = dry_run(*usual, "vtab/pets")
    assert packages.exit_code == 2 and "the package tensorflow_datasets" in packages.output
    assert "pets needs none of them" in packages.output
    downloaded = dry_run(*usual, "pets", "cifar100")
    assert downloaded.exit_code == 0 and "downloaded before the first run: pets, cifar100" in downloaded.output
    (tmp_path / "sets" / "flickr30k").mkdir(parents=True)
    (tmp_path / "sets" / "flickr30k" / "images").mkdir()
    there = dry_run(*usual, "flickr")
    assert there.exit_code == 0 and "downloaded before" not in there.output


def test_a_set_that_cannot_be_downloaded_ends_the_launch_before_any_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_DATASETS", str(tmp_path / "sets"))

    def no_network(*arguments, **options):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)
    arguments = ["sweep", "batch-size", "--data", "shapes:2048", "--eval", "cifar10", "--examples", "512"]
    done = CliRunner().invoke(main, [*arguments, "--batch-size", "64"])
    assert done.exit_code == 2, done.output
    assert "--eval cifar10: not on disk" in done.output and "network is unreachable" in done.output
    assert not list((tmp_path / "runs").glob("*/*/spec.json"))
