"""Evaluations on the way leave training as it was, are made once, and stand in a table by the examples seen."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from repro import results
from repro.config.errors import EvaluationFailed, Interrupted
from repro.evaluate import evaluate
from repro.models import build
from repro.runs.directory import RunDirectory
from repro.train import loop
from repro.train.loop import cut_evaluations, evaluation_steps
from tests.drill.conftest import eval_folder
from tests.ranks import on_ranks
from tests.train.runs import CPU, StopAfter, assert_same_bits, trained


@pytest.fixture
def small(tmp_path) -> str:
    """A classification set of eight images."""
    return str(eval_folder(tmp_path / "wds_small"))


@pytest.fixture
def evaluated(monkeypatch) -> list[str]:
    """The folders that evaluations on the way went to, in order."""
    found: list[str] = []
    real = loop.evaluate_towers

    def noted(load, names, evals, output, device, **options):
        found.append(output.name)
        torch.rand(3)  # as a loader with workers draws
        return real(load, names, evals, output, device, **options)

    monkeypatch.setattr(loop, "evaluate_towers", noted)
    return found


def files(directory: RunDirectory) -> dict[str, bytes]:
    return {str(file.relative_to(directory.evals)): file.read_bytes() for file in directory.evals.rglob("*.json")}


def test_points_are_rounded_up_to_whole_steps_and_the_last_is_the_final_evaluation(make_spec):
    spec = make_spec(evals=("shapes",), evaluate_at=(64, 100, 512, 1000), batch_size=64, examples_seen=512)
    assert evaluation_steps(spec) == {1: 64, 2: 100}
    assert evaluation_steps(spec.model_copy(update={"evals": ()})) == {}


@pytest.mark.parametrize("change", [{}, {"image_learning_rate_multiplier": 0.0}, {"precision": "bf16"}])
def test_training_has_the_bits_and_the_log_of_a_run_without_evaluations(make_spec, tmp_path, small, evaluated, change):
    plain, _ = trained(make_spec(**change), tmp_path / "a")
    on_the_way, _ = trained(make_spec(evals=(small,), evaluate_at=(100, 256), **change), tmp_path / "b")
    assert evaluated == ["at-100", "at-256"]
    assert_same_bits(plain, on_the_way)
    states = [[line["loss"] for line in directory.read_log()] for directory in (plain, on_the_way)]
    assert states[0] == states[1]


def test_what_is_evaluated_are_the_weights_of_that_moment(make_spec, tmp_path, small):
    spec = make_spec(evals=(small,), evaluate_at=(256,), schedule="constant", warmup_examples=0)
    directory, _ = trained(spec, tmp_path / "a")
    half, _ = trained(spec.model_copy(update={"evaluate_at": (), "examples_seen": 256}), tmp_path / "half")
    found = json.loads((directory.evals_at(256) / "wds_small.json").read_text())
    assert found["pretrained"] == "step 4"
    metrics = {f"wds_small/{name}": value for name, value in found["metrics"].items()}
    assert str(metrics) == str(evaluate(half.checkpoints, [small], tmp_path / "evals", CPU))  # acc5 is NaN


def test_a_tower_that_training_does_not_hold_is_there_in_an_evaluation(make_spec, tmp_path, small):
    build.export("laptop", tmp_path / "tower", init_logit_bias=-10)
    torch.save(build.load(tmp_path / "tower").model.state_dict(), tmp_path / "tower" / "final.pt")
    spec = make_spec(
        setup="siglit",
        pretrained=str(tmp_path / "tower"),
        image_learning_rate_multiplier=0,
        schedule="constant",
        warmup_examples=0,
        evals=(small,),
        evaluate_at=(256,),
    )
    directory, _ = trained(spec, tmp_path / "a")
    half, _ = trained(spec.model_copy(update={"evaluate_at": (), "examples_seen": 256}), tmp_path / "half")
    found = json.loads((directory.evals_at(256) / "wds_small.json").read_text())["metrics"]
    expected = evaluate(half.checkpoints, [small], tmp_path / "evals", CPU)
    assert str(list(found.values())) == str(list(expected.values()))


def test_after_a_stop_what_was_evaluated_is_not_evaluated_again(make_spec, tmp_path, small, evaluated):
    spec = make_spec(evals=(small,), evaluate_at=(100, 300))
    undisturbed, _ = trained(spec, tmp_path / "a")
    evaluated.clear()
    with pytest.raises(Interrupted):
        trained(spec, tmp_path / "b", stop=StopAfter(4))
    first = files(RunDirectory(tmp_path / "b"))
    resumed, _ = trained(spec, tmp_path / "b")
    assert evaluated == ["at-100", "at-300"]
    assert files(resumed).items() >= first.items()
    here, there = (json.loads((run.evals_at(300) / "wds_small.json").read_text()) for run in (undisturbed, resumed))
    assert str(here["metrics"]) == str(there["metrics"])
    assert_same_bits(undisturbed, resumed)


def test_asked_to_stop_in_an_evaluation_it_goes_on_with_the_data_sets_that_are_left(make_spec, tmp_path, small):
    other = shutil.copytree(small, tmp_path / "wds_other")
    spec = make_spec(evals=(small, str(other)), evaluate_at=(128,))
    undisturbed, _ = trained(spec, tmp_path / "a")
    with pytest.raises(Interrupted, match="stopped after 128 of 512"):
        # Asked once after the first step, then before each data set, then after the second step.
        trained(spec, tmp_path / "b", stop=StopFrom(3))
    directory = RunDirectory(tmp_path / "b")
    assert list(files(directory)) == ["at-128/wds_small.json"]
    trained(spec, tmp_path / "b")
    assert set(files(directory)) == {"at-128/wds_small.json", "at-128/wds_other.json"}
    assert_same_bits(undisturbed, directory)


class StopFrom(StopAfter):
    """Says stop when asked for the n-th time, and from then on."""

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def test_evaluations_of_steps_that_are_made_again_are_removed(make_spec, tmp_path, small):
    spec = make_spec(evals=(small,), evaluate_at=(128, 256))
    directory = RunDirectory(tmp_path)
    for examples in spec.evaluate_at:
        directory.evals_at(examples).mkdir(parents=True)
    cut_evaluations(spec, directory, step=3)
    assert directory.evals_at(128).exists() and not directory.evals_at(256).exists()


def test_a_set_that_cannot_be_evaluated_ends_the_run_with_a_checkpoint_to_go_on_from(make_spec, tmp_path, small):
    spec = make_spec(evals=(small,), evaluate_at=(128,))
    moved = shutil.move(small, f"{small}-away")
    with pytest.raises(EvaluationFailed, match=r"after 128 examples: .*no such folder.*--retry goes on from there"):
        trained(spec, tmp_path / "a")
    assert [file.name for file in (tmp_path / "a" / "checkpoints").glob("step-*.pt")] == ["step-000000002.pt"]
    shutil.move(moved, small)
    directory, _ = trained(spec, tmp_path / "a")
    assert list(files(directory)) == ["at-128/wds_small.json"]


def test_the_time_of_an_evaluation_counts_in_no_speed(make_spec, tmp_path, small, monkeypatch):
    import time

    def slow(*arguments, **options):
        time.sleep(1)
        return {}

    monkeypatch.setattr(loop, "evaluate_towers", slow)
    _, result = trained(make_spec(evals=(small,), evaluate_at=(128, 256, 384)), tmp_path / "a")
    assert result["step_seconds"] * (result["steps"] - 1) < 3
    assert result["checkpoint_share"] == 0


def on_each_rank(spec, path: Path) -> float:
    return trained(spec, path)[1]["final_loss"]


def test_on_two_ranks_the_first_evaluates_while_the_other_waits(make_spec, tmp_path, small):
    plain, on_the_way = make_spec(), make_spec(evals=(small,), evaluate_at=(128, 300))
    on_ranks(2, on_each_rank, plain, tmp_path / "a")
    on_ranks(2, on_each_rank, on_the_way, tmp_path / "b")
    assert_same_bits(RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "b"))
    assert set(files(RunDirectory(tmp_path / "b"))) == {"at-128/wds_small.json", "at-300/wds_small.json"}


def test_points_and_ends_are_rows_of_one_table_with_what_tells_runs_apart(make_spec, tmp_path, small):
    for decay in (0.0, 1e-4):
        spec = make_spec(evals=(small,), evaluate_at=(128, 256), image_weight_decay=decay)
        directory = RunDirectory(tmp_path / "runs" / "mine" / spec.run_id)
        directory.write_spec(spec)
        for examples in (128, 256):
            directory.evals_at(examples).mkdir(parents=True)
            content = {"metrics": {"10shot_acc1": examples / 1000}}
            (directory.evals_at(examples) / "wds_small_10shot.json").write_text(json.dumps(content))
        directory.write_result({"status": "finished", "reason": "", "metrics": {"wds_small/10shot_acc1": 0.5}})
    table = results.load_evaluations(tmp_path / "runs", "mine")
    assert len(table) == 6
    part = table[table["image_weight_decay"] == 0]
    assert part["examples_seen_at"].tolist() == [128, 256, 512]
    assert part["wds_small/10shot_acc1"].tolist() == [0.128, 0.256, 0.5]
    assert "text_weight_decay" not in table


def test_curves_are_columns_of_the_log_against_examples(make_spec, tmp_path):
    for beta2 in (0.95, 0.999):
        spec = make_spec(beta2=beta2, examples_seen=256)
        trained(spec, tmp_path / "runs" / "mine" / spec.run_id)
    table = results.load_curves(tmp_path / "runs", "mine", ["loss", "update_norm"])
    assert table.groupby("beta2")["examples_seen_at"].apply(list).tolist() == [[64, 128, 192, 256]] * 2
    assert table[["training_loss", "update_norm"]].gt(0).all().all()
    assert set(table["loss"]) == {"sigmoid"}
    assert len(results.load_evaluations(tmp_path / "runs", "mine")) == 0
