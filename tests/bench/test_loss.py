"""Losses are measured in fresh processes, and each is a row, whatever became of it."""

from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner

from repro.bench import record
from repro.bench.implementations import IMPLEMENTATIONS, Setting, embeddings, select
from repro.bench.loss import KEYS, Effort, compare, too_large
from repro.bench.measure import peak_memory
from repro.bench.ranks import on_ranks
from repro.cli import main
from repro.config.errors import InputError
from tests.bench import implementations as known

SMALL = Setting("sigmoid", ranks=1, local_batch=96, dim=16, dtype="fp32", device="cpu", threads=1)
QUICK = Effort(repeats=2, rounds=1, limit_seconds=30, square=128)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_a_row_has_time_memory_and_the_gradient_of_the_plain_formula(loss, ranks):
    setting = replace(SMALL, loss=loss, ranks=ranks)
    table = compare([setting], select(["plain", "open_clip"], [loss]), QUICK).set_index("implementation")
    measured = table[table["status"] == "ok"]
    assert "plain" in measured.index and (len(measured) > 2) == (ranks > 1)
    assert (measured["seconds"] > 0).all() and (measured["seconds_least"] <= measured["seconds_most"]).all()
    assert (measured["share_of_matmul_rate"] < 1).all()
    assert (measured[["error_images", "error_texts", "error_logit_scale"]] < 1e-5).all(axis=None)
    assert measured["error_logit_bias"].lt(1e-5).all() if loss == "sigmoid" else "error_logit_bias" not in measured
    assert measured["ratio"][measured["reference"].iloc[0]] == 1


def test_an_implementation_that_fails_is_a_row_with_its_reason_and_the_others_are_measured():
    makes = [known.make_raising, known.make_killed, known.make_slow, known.make_plain]
    effort = replace(QUICK, limit_seconds=5)
    table = compare([replace(SMALL, ranks=2)], [known.known(make) for make in makes], effort)
    assert table["status"].tolist() == ["failed", "oom", "timeout", "ok"]
    assert table["reason"][0] == "timing: ValueError: no such kernel"
    assert "rank 1 was killed" in table["reason"][1]
    assert table["seconds"][3] > 0


def test_a_wrong_gradient_shows_as_its_error():
    table = compare([SMALL], [known.known(known.make_wrong)], QUICK)
    assert table["error_images"][0] == pytest.approx(0.01, rel=1e-3)
    assert table["error_logit_scale"][0] == pytest.approx(0.01, rel=1e-3)


def test_peak_memory_is_what_forward_and_backward_hold_beyond_their_inputs():
    outcome = on_ranks(peak_memory, known.known(known.make_hungry), SMALL)
    assert outcome.values == [pytest.approx(known.EXTRA_BYTES, rel=0.1)]


def test_a_rank_is_stopped_once_it_holds_more_than_it_may():
    outcome = on_ranks(peak_memory, known.known(known.make_hungry), SMALL, known.EXTRA_BYTES // 4)
    assert outcome.status == "oom"


def test_what_is_known_not_to_fit_is_not_tried():
    (plain,) = select(["plain"], ["sigmoid"])
    assert too_large(plain, SMALL) == ""
    assert "needs at least" in too_large(plain, replace(SMALL, local_batch=2**22))


def test_a_peer_that_cannot_run_is_a_row_that_says_why():
    table = compare([SMALL], select(["siglip-kernel"], ["sigmoid"]), QUICK)
    assert table["status"].tolist() == ["not run"]
    assert "not installed" in table["reason"][0] or "need cuda" in table["reason"][0]


def test_an_implementation_is_named_alone_or_by_its_family():
    assert [i.name for i in select(["plain"], ["softmax"])] == ["plain"]
    assert [i.name for i in select(["repro-ring"], ["sigmoid"])] == ["repro-ring"]
    assert len(select(["open_clip"], ["sigmoid"])) == 4
    assert len(select([], ["sigmoid", "softmax"])) == len(IMPLEMENTATIONS)
    with pytest.raises(InputError, match="the nearest is 'open_clip-shift'"):
        select(["open_clip-shfit"], ["sigmoid"])


def test_inputs_are_the_same_at_every_call_and_a_text_lies_near_its_image():
    (images, texts), (again, _) = embeddings(SMALL, rank=1), embeddings(SMALL, rank=1)
    assert images.equal(again) and not images.equal(embeddings(SMALL, rank=0)[0])
    cosines = images @ texts.T
    assert cosines.diagonal().mean() == pytest.approx(0.7, abs=0.1)
    assert cosines.mean() == pytest.approx(0, abs=0.05)


def test_a_new_measurement_replaces_its_row_and_leaves_the_others(tmp_path):
    row = dict.fromkeys(KEYS, 1)
    rows = [row | {"local_batch": b, "seconds": 1.0} for b in (64, 128)]
    record.update(pd.DataFrame(rows), tmp_path / "loss.csv", KEYS)
    record.update(pd.DataFrame([row | {"local_batch": 128, "seconds": 2.0}]), tmp_path / "loss.csv", KEYS)
    table = pd.read_csv(tmp_path / "loss.csv").set_index("local_batch")
    assert table["seconds"].to_dict() == {64: 1.0, 128: 2.0}
    with pytest.raises(InputError, match="use another --out"):
        record.update(pd.DataFrame(rows), tmp_path / "loss.csv", ["no such column"])


def test_bench_loss_records_draws_and_prints(tmp_path):
    out = tmp_path / "loss.csv"
    options = ["--impl", "plain", "siglip-kernel", "--local-batch", "64", "96", "--dim", "16", "--device", "cpu"]
    options += ["--rounds", "1", "--repeats", "1", "--matmul", "128", "--loss", "sigmoid", "--out", str(out)]
    done = CliRunner().invoke(main, ["bench", "loss", *options])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert table["implementation"].value_counts().to_dict() == {"plain": 2, "siglip-kernel": 2}
    assert {"machine", "torch_version", "command", "date"} <= set(table.columns)
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "siglip-kernel: " in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--impl", "open_clip-shfit"], "the nearest is 'open_clip-shift'"),
        (["--loss", "sigmod"], "the nearest is 'sigmoid'"),
        (["--dtype", "fp31"], "--dtype: unknown 'fp31'"),
        (["--ranks", "0"], "--ranks 0: expected 1 or more"),
        (["--local-batch", "1x"], "--local-batch: '1x' is not a batch size"),
        (["--impl", "plain", "--reference", "open_clip-bidir"], "expected one of plain"),
    ],
)
def test_bench_loss_names_what_is_wrong_and_what_would_work(options, message):
    done = CliRunner().invoke(main, ["bench", "loss", "--device", "cpu", *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_variants_of_a_family_share_its_colour_and_differ_in_marker():
    from repro.report.draw.benchmark import styles

    first, second, peer = styles(["repro-ring", "repro-gather", "open_clip-bidir"]).values()
    assert first["color"] == second["color"] != peer["color"]
    assert first["marker"] != second["marker"]
