"""The paper's claims: verdicts that runs bear, and none where there are too few."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from repro import results
from repro.report import tables
from repro.report.claims import claims, evidence
from repro.report.claims.evidence import Verdict
from repro.report.found import Found
from tests.report.conftest import run_row

ACCURACY = "wds_shapes_objects/acc1"


def found(rows, **more):
    runs = tables.with_mean_recall(pd.DataFrame(rows))
    return Found(runs, pd.DataFrame(), pd.DataFrame(), results.published(), **({"bench": {}} | more))


def verdicts(rows, **more):
    return {claim.name: claim.evidence for claim in claims(found(rows, **more))}


def grid(lead=0.0, seeds=(0, 1, 2), sizes=(64, 128, 256), noise=0.005, curve=lambda size: 0.5, **changed):
    """Both losses over batch sizes, the sigmoid ahead by `lead`."""
    random = np.random.default_rng(1)
    return [
        run_row(
            loss,
            size,
            seed,
            curve(size) + lead * (loss == "sigmoid") + noise * random.standard_normal(),
            run_id=f"{loss}-{size}-{seed}-{changed.get('examples_seen')}",
            **changed,
        )
        for loss in ("sigmoid", "softmax")
        for size in sizes
        for seed in seeds
    ]


def test_a_difference_has_the_interval_of_students_t_over_the_pooled_noise():
    rows = grid(lead=0.02)
    runs = pd.DataFrame(rows)
    pair = [runs[runs["loss"] == loss] for loss in tables.LOSSES]

    found_here = evidence.difference(*pair, ACCURACY, runs, on=["batch_size"])

    cells = runs.assign(points=100 * runs[ACCURACY]).groupby(["loss", "batch_size"])["points"]
    noise = math.sqrt(cells.var().mean())
    half = stats.t(12).ppf(0.975) * noise * math.sqrt(2 / 9)  # six cells of three seeds; nine runs on either side
    means = cells.mean().groupby("loss").mean()
    assert found_here.points == pytest.approx(means["sigmoid"] - means["softmax"])
    assert found_here.high - found_here.points == pytest.approx(half)
    assert found_here.runs == 18


@pytest.mark.parametrize(
    ("lead", "verdict"),
    [(0.05, Verdict.AGREES), (-0.05, Verdict.CONTRADICTS), (0.0, Verdict.NOT_SHOWN)],
)
def test_who_is_ahead_is_a_matter_of_the_interval(lead, verdict):
    assert verdicts(grid(lead))["small-batches"].verdict == verdict


def test_one_seed_bears_no_verdict():
    one = verdicts(grid(0.05, seeds=(0,)))

    assert one["small-batches"].verdict == Verdict.TOO_FEW
    assert "one seed" in one["small-batches"].ours


def test_what_was_not_run_is_said_so():
    every = verdicts(grid(0.05))

    assert every["noise"].verdict == Verdict.NOT_RUN
    assert every["multilingual-retrieval"].verdict == Verdict.NOT_RUN
    assert every["ring"].verdict == Verdict.NOT_RUN


def test_setups_that_disagree_are_mixed():
    rows = grid(0.05) + grid(-0.05, setup="siglit")

    assert verdicts(rows)["small-batches"].verdict == Verdict.MIXED


def test_too_large_a_batch_hurts_where_the_largest_is_clearly_below_the_best():
    falling = grid(curve=lambda size: 0.5 - 0.1 * (size == 256))
    rising = grid(curve=lambda size: 0.3 + size / 1000)

    assert verdicts(falling)["too-large"].verdict == Verdict.AGREES
    assert verdicts(rising)["too-large"].verdict == Verdict.TOO_FEW


def test_a_grid_that_ends_before_32k_cannot_show_where_saturation_is():
    small = verdicts(grid(curve=lambda size: 0.5 - 0.1 * (size == 64)))

    assert small["peaks"].verdict == Verdict.NOT_SHOWN
    assert small["saturation"].verdict == Verdict.NOT_SHOWN


def test_large_batches_need_long_training_where_short_ones_lose_more():
    short = grid(curve=lambda size: 0.5 - 0.2 * (size == 256), examples_seen=10_000)
    long = grid(curve=lambda size: 0.6, examples_seen=100_000)

    assert verdicts(short + long)["long-training"].verdict == Verdict.AGREES
    assert verdicts(short)["long-training"].verdict == Verdict.NOT_RUN


def test_the_bias_is_weighed_by_its_own_sweep():
    rows = [
        run_row(
            accuracy=accuracy + 0.002 * seed, seed=seed, sweep="bias", init_logit_bias=start, run_id=f"{start}-{seed}"
        )
        | {"init_logit_scale": math.log(10)}
        for start, accuracy in ((-10.0, 0.5), (0.0, 0.4), (math.nan, 0.4))
        for seed in (0, 1)
    ]

    every = verdicts(rows)

    assert every["bias"].verdict == Verdict.AGREES
    assert every["bias-temperature"].verdict == Verdict.NOT_RUN


def test_the_papers_numbers_are_its_tables():
    paper = {claim.name: claim.paper for claim in claims(found(grid()))}

    assert "SigLIP +3.8 at 512" in paper["small-batches"]
    assert "sigmoid at 32k, softmax at 98k" in paper["peaks"]
    assert "sigmoid −1.8, softmax −0.6" in paper["too-large"]
    assert "−9.1 at 450M examples, +0.1 at 18B" in paper["long-training"]
    assert "63.0 with −10, 62.0 without a bias" in paper["bias"]


def test_a_ring_that_is_clearly_faster_agrees():
    row = {"ranks": 4, "local_batch": 512, "dim": 512, "dtype": "fp32", "device": "cpu", "status": "ok"}
    ring = row | {"exchange": "ring", "loss_seconds": 1.0, "loss_seconds_least": 0.9, "loss_seconds_most": 1.1}
    gather = row | {"exchange": "gather", "loss_seconds": 2.0, "loss_seconds_least": 1.5, "loss_seconds_most": 2.5}

    weighed = verdicts(grid(), bench={"exchange": pd.DataFrame([ring, gather])})["ring"]

    assert weighed.verdict == Verdict.AGREES
    assert "0.50 to 0.50 times" in weighed.ours


def test_imported_rows_bear_no_verdict_of_ours():
    rows = [row | {"origin": "theirs"} for row in grid(0.05)]

    assert verdicts(rows)["small-batches"].verdict == Verdict.NOT_RUN


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame([{"run_id": "x", "sweep": "bias", "status": "corrupt", "reason": "?"}]).reindex(
            columns=results.FIRST_COLUMNS
        ),
        pd.DataFrame([run_row(status="failed", sweep=sweep) for sweep in ("bias", "noise", "negatives", "batch-size")]),
        pd.DataFrame(
            [run_row(sweep=sweep) for sweep in ("bias", "noise", "negatives", "vocabulary", "finetune", "seeds")]
        ),
    ],
    ids=["corrupt", "failed", "columns of an older version"],
)
def test_no_table_stops_the_claims(table):
    runs = tables.with_mean_recall(table)

    assert len(claims(Found(runs, pd.DataFrame(), pd.DataFrame(), results.published(), {}))) > 20
