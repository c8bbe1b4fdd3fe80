"""`repro saturation` and `repro compare` as people type them."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.cli import main
from tests.analysis.conftest import RISE_AND_PLATEAU, series


def repro(*arguments):
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "100"})


@pytest.fixture
def csv(tmp_path):
    file = tmp_path / "ours.csv"
    softmax = series({size: percent - 3 for size, percent in RISE_AND_PLATEAU.items()}, loss="softmax", seed=1)
    pd.concat([series(RISE_AND_PLATEAU), softmax], ignore_index=True).to_csv(file, index=False)
    return str(file)


def test_a_csv_is_answered_with_a_table_and_a_sentence_for_each_series(csv):
    result = repro("saturation", csv, "--metric", "wds_shapes_objects/acc1")

    assert result.exit_code == 0, result.output
    assert "siglip, 65.5k, sigmoid: saturates at 256" in result.output.replace("laptop, ", "")
    assert "sigmoid ahead from 32 to 1k" in result.output


def test_the_papers_table_says_whose_noise_it_is_judged_with():
    result = repro("saturation", "paper:table-5")

    assert result.exit_code == 0, result.output
    assert "saturates at 32k; at 98k nothing is gained, −0.4 ± 0.4; 307k loses 1.8 ± 0.4." in result.output
    assert "noise published in table 7" in result.output


def test_json_holds_every_number_and_null_for_what_is_not_known():
    result = repro("saturation", "paper:table-9", "--json")

    answer = json.loads(result.stdout)
    assert [each["point"] for each in answer["saturation"]] == [16384, None]
    assert answer["losses"] == []


def test_margin_and_reference_are_the_persons():
    result = repro("saturation", "paper:table-5", "--json", "--margin", "2", "--reference", "16k")

    found = {
        (each["series"]["loss"], each["series"]["examples_seen"]): each
        for each in json.loads(result.stdout)["saturation"]
    }
    assert found["sigmoid", 9e9]["margin_points"] == 2
    assert found["sigmoid", 9e9]["reference"] == 16384
    assert found["sigmoid", 9e9]["point"] == 16384


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["saturation", "paper:table-55"], "the nearest is 'table-5'"),
        (["saturation", "paper:table-5", "--metric", "imagenet/acc1"], "the nearest is 'imagenet1k/acc1'"),
        (["saturation", "paper:table-5", "--by", "los"], "the nearest is 'loss'"),
        (["saturation", "paper:table-5", "--margin", "0"], "expected more than 0 points"),
        (["saturation", "paper:table-5", "--reference", "many"], "is not a batch size"),
        (["saturation", "paper:table-3"], "no finished run has a batch size"),
        (["compare", "paper:table-5", "paper:table-88"], "the nearest is 'table-8'"),
        (["compare", "paper:table-5", "paper:table-8", "--metric", "imagenet1k/acc"], "no metric of A"),
        (["compare", "paper:table-5", "paper:table-8", "--by", "setupp"], "the nearest is 'setup'"),
        (["compare", "paper:table-2", "paper:table-3"], "A has batch sizes 16k, 32k"),
    ],
)
def test_a_mistake_is_a_message_and_exit_code_2(arguments, message):
    result = repro(*arguments)

    assert result.exit_code == 2, result.output
    assert message in result.output


def test_ours_and_the_papers_share_no_metric_and_the_message_names_a_pair_that_works(csv):
    refused = repro("compare", csv, "paper:table-5")
    assert refused.exit_code == 2
    pair = refused.output.split("Name a pair: ")[1].split()

    result = repro("compare", csv, "paper:table-5", *pair)

    assert result.exit_code == 0, result.output
    assert "Matched on setup, loss, batch size." in result.output
    assert "They differ in examples seen (A 65.5k; B 3B, 9B)" in result.output
    assert "Only in A: " in result.output


def test_pairs_are_written_as_csv_and_as_json(tmp_path):
    file = tmp_path / "pairs.csv"

    result = repro("compare", "paper:table-5", "paper:table-8", "--csv", str(file), "--json")

    (metric,) = json.loads(result.stdout)["metrics"]
    written = pd.read_csv(file)
    assert len(written) == len(metric["rows"]) == 12
    assert written["difference_points"].tolist() == [row["difference_points"] for row in metric["rows"]]
