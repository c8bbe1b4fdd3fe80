"""Results as clip-benchmark, open_clip and big_vision leave them."""

import json
import shutil

import pytest
from click.testing import CliRunner

from repro.cli import main
from repro.config.errors import InputError
from repro.results import importers as imported

PARAMS = """\
accum_freq: 2
batch_size: 256
beta2: 0.98
epochs: 2
local_loss: True
lock_image: False
lr: 0.001
lr_scheduler: cosine
model: ViT-B-32
precision: amp_bf16
pretrained: \nseed: 7
siglip: True
train_data: /data/cc12m-{0000..1000}.tar
train_num_samples: 10000000
warmup: 2000
wd: 0.1
world_size: 8
"""
STEP = (
    "2024-05-01,10:0{0}:02 | INFO | Train Epoch: 0 [  413696/10000000 (4%)] Data (t): 0.010 Batch (t): 0.523, {1}/s, "
    "978.967/s/gpu LR: 0.000050 Logit Scale: 12.100 Contrastive_loss: 2.9000 (3.9000) Loss: 2.9000 (3.9000)\n"
)
EVALUATION = "2024-05-01,1{0}:00:00 | INFO | Eval Epoch: {0} imagenet-zeroshot-val-top1: 0.2100\n"
LOG = "".join(STEP.format(*step) for step in enumerate(("431.158", "7831.74", "7876.92")))


@pytest.fixture
def log_folder(tmp_path):
    """A folder as open_clip_train leaves it: siglip, two epochs, zero-shot after each."""
    folder = tmp_path / "logs" / "b32"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "params.txt").write_text(PARAMS)
    (folder / "out.log").write_text(LOG + EVALUATION.format(1) + EVALUATION.format(2))
    lines = [{"imagenet-zeroshot-val-top1": 0.21}, {"imagenet-zeroshot-val-top1": 0.31}]
    (folder / "checkpoints/results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def workdir(tmp_path):
    """A workdir as big_vision's siglip trainer leaves it."""
    folder = tmp_path / "bv" / "11-24_1200"
    folder.mkdir(parents=True)
    last = {"step": 5000, "training_loss": 0.9, "examples_seen": 2560000, "progress": 1.0, "z/secs/eval/x": 3.0}
    last |= {"z/0shot/imagenet2012_accuracy": 0.312, "z/retr/coco_img2txt_recall@1": 0.3, "uptime": 9.0}
    last |= {"z/imagenet_10shot-seed-0": 0.4, "z/imagenet_10shot-seed-1": 0.42, "z/0shot/imagenet_v2_test_acc": 0.25}
    lines = [{"step": 0, "num_params": 1e8}, {"step": 50, "examples_seen": 25600, "progress": 0.01}, last]
    (folder / "big_vision_metrics.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"input": {"batch_size": 512}, "lr": 0.001, "wd": 0.01, "optax_name": "scale_by_adam"}
    config |= {"model": {"image": {"variant": "B/16"}, "bias_init": -2.71}, "schedule": [["img/.*", None]]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def evaluated(tmp_path):
    """evaluated(dataset, metrics, …) writes a JSON of clip_benchmark eval; returns its folder."""
    folder = tmp_path / "evals"
    folder.mkdir()

    def write(dataset, metrics, model="ViT-B-32", pretrained="laion400m_e32", language="en"):
        values = {"dataset": dataset, "model": model, "pretrained": pretrained, "task": "t", "language": language}
        file = folder / f"{len(list(folder.iterdir()))}.json"
        file.write_text(json.dumps(values | {"metrics": metrics}))
        return folder

    return write


def row_of(path, **options):
    (row,) = imported.read([path], **options).table.to_dict("records")
    return row


def test_an_open_clip_log_is_one_run_with_its_global_batch(log_folder):
    row = row_of(log_folder)

    assert row["imagenet1k/acc1"] == 0.31
    assert (row["loss"], row["batch_size"], row["examples_seen"]) == ("sigmoid", 256 * 8 * 2, 20_000_000)
    assert (row["model"], row["learning_rate"], row["seed"], row["precision"]) == ("ViT-B-32", 1e-3, 7, "amp_bf16")
    assert (row["examples_per_second"], row["final_loss"], row["final_logit_scale"]) == (7831.74, 2.9, 12.1)
    assert (row["status"], row["setup"], row["open_clip_local_loss"]) == ("finished", "siglip", True)
    assert "open_clip_train_data" not in row


def test_without_siglip_the_loss_is_softmax_and_an_epoch_before_the_last_is_told(log_folder):
    (log_folder / "params.txt").write_text(PARAMS.replace("siglip: True", "siglip: False"))
    line = {"imagenet-zeroshot-val-top1": 0.2, "image_to_text_R@1": 0.4, "image_to_text_mean_rank": 12.5, "epoch": 1}
    (log_folder / "checkpoints/results.jsonl").write_text(json.dumps(line) + "\n")
    row = row_of(log_folder)

    assert (row["loss"], row["val/text_retrieval_recall@1"]) == ("softmax", 0.4)
    assert (row["status"], row["reason"]) == ("interrupted", "evaluated after epoch 1 of 2")
    assert row["open_clip_image_to_text_mean_rank"] == 12.5


def test_a_folder_of_log_folders_is_as_many_runs(log_folder):
    shutil.copytree(log_folder, log_folder.with_name("b16"))

    read = imported.read([log_folder.parent])
    assert read.name == "logs"
    assert read.table["run_id"].tolist() == ["logs-b16", "logs-b32"]


def test_a_big_vision_metrics_file_is_a_run_with_its_config(workdir):
    read = imported.read([workdir])
    (row,) = read.table.to_dict("records")

    assert (row["imagenet1k/acc1"], row["imagenetv2/acc1"]) == (0.312, 0.25)
    assert row["imagenet1k/10shot_acc1"] == pytest.approx(0.41)
    assert row["mscoco_captions/text_retrieval_recall@1"] == 0.3
    assert (row["loss"], row["batch_size"], row["examples_seen"]) == ("sigmoid", 512, 2_560_000)
    assert (row["setup"], row["optimizer"], row["model"], row["final_loss"]) == ("siglit", "adamw", "B/16", 0.9)
    assert (row["status"], row["big_vision_uptime"]) == ("finished", 9.0)
    assert "loss sigmoid, since the model has a bias" in read.notes[0]


def test_without_a_config_the_batch_follows_from_the_examples_and_the_loss_is_asked_for(workdir):
    (workdir / "config.json").unlink()

    with pytest.raises(InputError, match=r"big_vision_metrics.txt: loss not said"):
        imported.read([workdir])
    assert row_of(workdir, values={"loss": "sigmoid"})["batch_size"] == 512


def test_evaluations_of_the_same_weights_are_one_row(evaluated):
    evaluated("imagenet1k", {"acc1": 0.6, "acc5": 0.8})
    evaluated("wds/vtab/cifar100", {"acc1": 0.7})
    folder = evaluated("crossmodal3600", {"image_retrieval_recall@1": 0.5}, language="de")
    evaluated("imagenet1k", {"acc1": 0.65}, pretrained="openai")
    table = imported.read([folder], name="x", values={"loss": "softmax", "batch_size": "32k"}).table.set_index("run_id")

    row = table.loc["x-ViT-B-32-laion400m_e32"]
    assert (row["imagenet1k/acc1"], row["vtab_cifar100/acc1"]) == (0.6, 0.7)
    assert row["crossmodal3600_de/image_retrieval_recall@1"] == 0.5
    assert row["setup"] == "released"
    assert table.loc["x-ViT-B-32-openai", "imagenet1k/acc1"] == 0.65


def test_an_evaluation_that_comes_later_joins_its_row(evaluated, tmp_path):
    said = {"name": "x", "values": {"loss": "softmax", "batch_size": "32k"}}
    folder = evaluated("imagenet1k", {"acc1": 0.6})
    imported.write(imported.read([folder / "0.json"], **said), tmp_path / "x.csv")
    evaluated("flickr30k", {"image_retrieval_recall@5": 0.5})
    imported.write(imported.read([folder / "1.json"], **said), tmp_path / "x.csv")

    from repro.results import tables

    (row,) = tables.load(str(tmp_path / "x.csv")).to_dict("records")
    assert (row["imagenet1k/acc1"], row["flickr30k/image_retrieval_recall@5"]) == (0.6, 0.5)
    assert row["source_file"] == "0.json; 1.json"


def test_two_files_that_disagree_are_named_and_the_first_is_taken(evaluated):
    evaluated("imagenet1k", {"acc1": 0.6})
    folder = evaluated("imagenet1k", {"acc1": 0.61})
    read = imported.read([folder], values={"loss": "softmax", "batch_size": "32k"})

    assert read.table["imagenet1k/acc1"].tolist() == [0.6]
    assert "is 0.61, and 0.6 in 0.json; expected one of the two" in read.problems[0]


def test_the_csv_of_clip_benchmark_build_is_told_by_its_columns(tmp_path):
    file = tmp_path / "benchmark.csv"
    head = "acc1,text_retrieval_recall@5,dataset,model,pretrained,task,language,model_fullname\n"
    about = "ViT-B-32,openai,t,en,ViT-B-32 openai\n"
    file.write_text(f"{head}0.6,,imagenet1k,{about},0.7,wds/mscoco_captions,{about}")
    row = row_of(file, values={"loss": "softmax", "batch_size": "32k"})

    assert (row["imagenet1k/acc1"], row["mscoco_captions/text_retrieval_recall@5"]) == (0.6, 0.7)


def test_a_language_of_clip_benchmark_build_may_have_lost_its_quotes(tmp_path):
    file = tmp_path / "benchmark.csv"
    file.write_text("acc1,dataset,model,pretrained,task,language\n0.6,imagenet1k,ViT-B-32,openai,t,[de]\n")

    assert row_of(file, values={"loss": "softmax", "batch_size": "32k"})["imagenet1k_de/acc1"] == 0.6


def test_one_bad_file_among_others_is_named_and_the_others_are_imported(log_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('{"dataset": ')

    result = CliRunner().invoke(main, ["import", str(log_folder), str(broken)])
    assert result.exit_code == 1
    assert "broken.json: not JSON" in result.output
    assert "results/imported/b32.csv: 1 added" in result.output


def test_where_no_file_can_be_read_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text('{"a": 1}')

    result = CliRunner().invoke(main, ["import", "empty", "other.json", "othr.json"])
    assert result.exit_code == 2
    assert "empty: no results in this folder, which holds nothing" in result.output
    assert "other.json: expected clip-benchmark's keys" in result.output
    assert "the nearest is 'other.json'" in result.output
    assert not (tmp_path / "results").exists()
