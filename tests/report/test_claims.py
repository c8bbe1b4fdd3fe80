"""The paper's claims: verdicts that runs bear, and none where there are too few."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from repro import results
from repro.report.claims import claims, evidence
from repro.report.claims.evidence import Verdict
from repro.report.inputs import declared
from repro.results import tables
from tests.report.conftest import inputs_of, run_row

ACCURACY = "wds_shapes_objects/acc1"


def verdicts(rows, **more):
    return {claim.name: claim for claim in claims(inputs_of(pd.DataFrame(rows), **more))}


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
    runs = pd.DataFrame(grid(lead=0.02))
    pair = [runs[runs["loss"] == loss] for loss in tables.LOSSES]

    found_here = evidence.difference(*pair, ACCURACY, runs, on=["batch_size"])

    cells = runs.assign(points=100 * runs[ACCURACY]).groupby(["loss", "batch_size"])["points"]
    noise = math.sqrt(cells.var().mean())
    half = stats.t(12).ppf(0.975) * noise * math.sqrt(2 / 9)  # six cells of three seeds; nine runs on either side
    means = cells.mean().groupby("loss").mean()
    points = means["sigmoid"] - means["softmax"]
    assert found_here.interval() == pytest.approx((points - half, points + half))
    assert len(found_here.runs) == 18


def test_the_same_run_given_twice_is_one_draw():
    once, twice = (verdicts(grid(0.05, seeds=(0,)) * times)["small-batches"] for times in (1, 2))

    assert (once.verdict, twice.verdict) == (Verdict.TOO_FEW, Verdict.TOO_FEW)
    assert once.ours == twice.ours


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
    assert verdicts(rising)["too-large"].verdict == Verdict.NOT_SHOWN


def test_a_grid_that_ends_before_32k_cannot_show_where_saturation_is():
    small = verdicts(grid(curve=lambda size: 0.5 - 0.1 * (size == 64)))

    assert small["peaks"].verdict == Verdict.NOT_SHOWN
    assert small["saturation"].verdict == Verdict.NOT_SHOWN


def test_large_batches_need_long_training_where_short_ones_lose_more():
    short = grid(curve=lambda size: 0.5 - 0.2 * (size == 256), examples_seen=10_000, setup="siglit")
    long = grid(curve=lambda size: 0.6, examples_seen=100_000, setup="siglit")

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


@pytest.mark.parametrize(
    ("claim", "words", "source", "row", "minus"),
    [
        (
            "small-batches",
            "SigLIP {:+.1f} at 512",
            "table-5",
            {"batch_size": 512.0, "examples_seen": 3e9},
            {"loss": "softmax"},
        ),
        ("saturation", "sigmoid {:.1f} at 16k", "table-5", {"batch_size": 16384.0, "examples_seen": 9e9}, {}),
        (
            "too-large",
            "sigmoid {:+.1f}",
            "table-5",
            {"batch_size": 307200.0},
            {"batch_size": 32768.0, "examples_seen": 9e9},
        ),
        (
            "long-training",
            "{:+.1f} at 450M",
            "table-8",
            {"batch_size": 262144.0, "examples_seen": 450e6},
            {"batch_size": 32768.0},
        ),
        ("bias", "{:.1f} with −10", "table-4", {"init_bias": -10.0, "init_log_temperature": "log 10"}, {}),
        ("bias-temperature", "{:.1f} against", "table-4", {"init_bias": 0.0, "init_log_temperature": "log 1"}, {}),
        ("seeds", "sigmoid with AdamW {:.1f}", "table-7", {"optimizer": "adamw"}, {}),
    ],
)
def test_the_papers_numbers_are_its_tables(claim, words, source, row, minus):
    def number(**conditions):
        return evidence.where(results.published(), source=source, **conditions)["value"].iloc[0]

    row = row | {"loss": "sigmoid"}
    value = number(**row) - (number(**row | minus) if minus else 0)
    assert words.format(value).replace("-", "−") in declared()["claims"][claim]["paper"]


def test_a_ring_that_is_clearly_faster_agrees():
    row = {"ranks": 4, "local_batch": 512, "dim": 512, "dtype": "fp32", "device": "cpu", "threads": 1, "status": "ok"}
    ring = row | {"exchange": "ring", "loss_seconds": 1.0, "loss_seconds_least": 0.9, "loss_seconds_most": 1.1}
    gather = row | {"exchange": "gather", "loss_seconds": 2.0, "loss_seconds_least": 1.5, "loss_seconds_most": 2.5}

    weighed = verdicts(grid(), bench={"exchange": pd.DataFrame([ring, gather])})["ring"]

    assert weighed.verdict == Verdict.AGREES
    assert "0.50 to 0.50 times as long" in weighed.ours


def published_as_runs():
    """The paper's curves over batch sizes as runs of ours, three seeds with the noise of its table 7."""
    random = np.random.default_rng(0)
    rows = []
    for row in tables.load("paper").to_dict("records"):
        if row["source"] not in ("table-5", "table-8", "table-2", "table-9") or row["note"] == row["note"]:
            continue
        metrics = {name: value for name, value in row.items() if "/" in name and value == value}
        for seed in (0, 1, 2):
            own = {"setup": row["setup"], "loss": row["loss"], "examples_seen": row["examples_seen"], "seed": seed}
            own |= {"batch_size": int(row["batch_size"]), "sweep": "batch-size", "scale": "paper", "status": "finished"}
            own |= {"run_id": f"{row['run_id']}-{seed}", "reason": ""}
            rows.append(own | {name: value + 0.0014 * random.standard_normal() for name, value in metrics.items()})
    return rows


@pytest.mark.parametrize(
    "name",
    [
        *("small-batches", "saturation", "peaks", "too-large", "long-training"),
        *("multilingual-retrieval", "multilingual-flat"),
    ],
)
def test_the_papers_own_numbers_agree_with_it(of_the_paper, name):
    assert of_the_paper[name].verdict == Verdict.AGREES, of_the_paper[name]


@pytest.fixture(scope="module")
def of_the_paper():
    return verdicts(published_as_runs())


def test_scales_are_never_compared_with_each_other():
    rows = [
        run_row(accuracy=accuracy + 0.002 * seed, seed=seed, sweep="bias", init_logit_bias=start, scale=scale)
        | {"init_logit_scale": math.log(10), "run_id": f"{scale}-{start}-{seed}"}
        for scale, start, accuracy in (("laptop", -10.0, 0.3), ("laptop", 0.0, 0.4), ("gpu", -10.0, 0.9))
        for seed in (0, 1)
    ]

    assert verdicts(rows)["bias"].verdict == Verdict.CONTRADICTS


def test_what_did_not_finish_was_not_reached():
    rows = grid(sizes=(512, 1024, 2048))
    rows += [row | {"status": "pending", ACCURACY: math.nan} for row in grid(sizes=(65536, 98304))]

    every = verdicts(rows)

    assert (every["saturation"].verdict, every["peaks"].verdict) == (Verdict.NOT_SHOWN, Verdict.NOT_SHOWN)


def test_points_of_a_run_are_no_seeds_of_each_other():
    lines = [
        {"run_id": f"{setup}-{seed}", "sweep": "finetune", "setup": setup, "seed": seed, "image_weight_decay": decay}
        | {"examples_seen": 100, "examples_seen_at": at, ACCURACY: accuracy + 0.01 * seed}
        for setup, decay, accuracy in (("finetune", 0.0, 0.5), ("siglip", math.nan, 0.3))
        for seed in (0, 1)
        for at in (5, 10, 20)
    ]
    runs = [run_row(sweep="finetune", setup=setup, run_id=setup) for setup in ("finetune", "siglip")]

    weighed = verdicts(runs, evaluations=pd.DataFrame(lines))["finetune-ramp"]

    assert (weighed.verdict, weighed.runs) == (Verdict.AGREES, 4)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_spikes_are_a_ratio_with_an_interval_where_there_are_seeds(seeds):
    lines = [
        {"run_id": f"{beta2}-{seed}", "sweep": "beta2", "beta2": beta2, "seed": seed, "gradient_norm": norm}
        for beta2, top in ((0.95, 2.0), (0.999, 8.0 + len(seeds)))
        for seed in seeds
        for norm in (1.0, 1.0, 1.0 + 0.01 * seed, top)
    ]
    runs = [run_row(sweep="beta2", run_id="x")]

    weighed = verdicts(runs, curves=pd.DataFrame(lines))["beta2"]

    assert weighed.verdict == (Verdict.AGREES if len(seeds) > 1 else Verdict.TOO_FEW)
    assert ("one seed" in weighed.ours) == (len(seeds) == 1)


def test_a_size_that_was_only_not_exceeded_contradicts_nothing():
    setting = {"memory_limit_bytes": 10**9, "ranks": 1, "device": "cpu", "dtype": "fp32", "model": "laptop"}
    setting |= {"implementation": "plain", "batch_size": 4096}
    rows = [setting | {"loss": loss, "status": "at least"} for loss in tables.LOSSES]
    measured = [row | {"status": "ok"} for row in rows]

    open_ended, told = (
        verdicts(grid(), bench={"capacity": pd.DataFrame(table)})["capacity"].verdict for table in (rows, measured)
    )

    assert (open_ended, told) == (Verdict.NOT_SHOWN, Verdict.CONTRADICTS)


def test_benchmarks_of_another_version_are_passed_over():
    old = {name: pd.DataFrame({"loss": ["sigmoid"], "seconds": [1.0]}) for name in ("exchange", "loss", "capacity")}

    every = verdicts(grid(), bench=old)

    assert {every[name].verdict for name in ("ring", "memory", "capacity")} == {Verdict.NOT_RUN}


def test_public_weights_are_compared_within_their_size():
    rows = [
        run_row(sweep="released", setup="released", model=model, pretrained=weights, accuracy=accuracy, run_id=model)
        for model, weights, accuracy in (
            ("ViT-B-16-SigLIP", "webli", 0.70),
            ("ViT-B-16", "laion2b_s34b_b88k", 0.75),
            ("ViT-SO400M-14-SigLIP-384", "webli", 0.90),
        )
    ]

    assert verdicts(rows)["released"].verdict == Verdict.CONTRADICTS


def test_imported_rows_bear_no_verdict_of_ours():
    rows = [row | {"origin": "theirs"} for row in grid(0.05)]

    assert verdicts(rows)["small-batches"].verdict == Verdict.NOT_RUN
