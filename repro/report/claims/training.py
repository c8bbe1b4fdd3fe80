"""Claims about training: fine-tuning a pretrained tower, Adam's β2, noisy data."""

import math

import pandas as pd

from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import (
    NOTHING,
    Difference,
    Evidence,
    accuracy_metric,
    difference,
    judge,
    weigh,
    where,
)
from repro.report.claims.runs import of, pairs
from repro.report.found import Found


def finetune_ramp(found: Found) -> Claim:
    runs = where(found.evaluations, sweep="finetune")
    parts = []
    if len(runs) and (metric := accuracy_metric(runs.assign(status="finished"))):
        early = runs[runs["examples_seen_at"] <= runs["examples_seen"] / 4].assign(status="finished")
        pair = (where(early, setup="finetune", image_weight_decay=0.0), where(early, setup="siglip"))
        pool = early.assign(at=early["examples_seen_at"].astype(str))
        parts = [
            (
                "in the first quarter of training",
                difference(*pair, metric, _cells(pool), ["examples_seen_at"]),
                "higher",
            )
        ]
    return Claim(
        "finetune-ramp",
        "Pretrained weights ramp up quickly.",
        "figure 4",
        "ahead of training from scratch from the first evaluation on (a figure)",
        "figure-4",
        weigh(parts, "pretrained without decay on it minus from scratch, mean over the evaluations on the way"),
    )


def finetune_decay(found: Found) -> Claim:
    runs = where(found.ours, sweep="finetune")
    tuned = where(runs, setup="finetune")
    pair = (where(tuned, image_weight_decay=0.0), where(tuned, image_weight_decay=None))
    parts = pairs({"without minus with": pair}, found, "finetune", "higher")
    probes = [column for column in tables.metric_columns(runs) if column.endswith("/10shot_acc1")]
    for metric in probes if len(tuned) else []:
        parts.append(("10-shot probe", difference(*pair, metric, runs), "higher"))
    return Claim(
        "finetune",
        "A pretrained image tower is fine-tuned best without weight decay on it.",
        "figure 4, table 1",
        "0-shot and the 10-shot probe stay good only without it (a figure; "
        f"{value(found.published, 'table-1', setup='finetune'):.1f} on ImageNet, table 1)",
        "figure-4",
        weigh(parts),
    )


def beta2(found: Found) -> Claim:
    curves = where(found.curves, sweep="beta2")
    evidence = NOTHING
    if len(curves) and {"gradient_norm", "beta2"} <= set(curves.columns):
        spikes = curves.groupby(["beta2", "learning_rate", "seed"], dropna=False)["gradient_norm"].agg(
            lambda norms: norms.max() / norms.median()
        )
        spikes = spikes.reset_index(name="spike/log").assign(loss="sigmoid", batch_size=1, status="finished")
        spikes["spike/log"] = spikes["spike/log"].map(math.log) / 100  # differences come in hundredths
        pair = (where(spikes, beta2=0.999), where(spikes, beta2=0.95))
        found_here = difference(*pair, "spike/log", spikes, on=["learning_rate"])
        if found_here is not None:
            ratio, low, high = (math.exp(min(v, 99)) for v in (found_here.points, found_here.low, found_here.high))
            words = (
                f"largest gradient norm over the median, 0.999 over 0.95: {ratio:.2f} ({low:.2f} to {high:.2f}) times"
            )
            evidence = Evidence(
                judge(found_here, "higher"), words, found_here.runs, "ratio of geometric means, 95 % interval"
            )
    return Claim(
        "beta2",
        "β2 = 0.95 avoids the spikes that β2 = 0.999 has with large batches.",
        "figure 5",
        "spikes of gradient and update norm with 0.999, none with 0.95 (a figure)",
        "figure-5",
        evidence,
    )


def noise(found: Found) -> Claim:
    runs = of(found, "noise")
    metric = accuracy_metric(runs)
    parts = []
    if metric is not None:
        spoilt = runs[runs["corruption_probability"] > 0]
        on = ["corruption", "corruption_probability"]
        pair = [where(spoilt, loss=loss) for loss in tables.LOSSES]
        plain = difference(*(where(runs, loss=loss, corruption="none") for loss in tables.LOSSES), metric, runs)
        kept = difference(*pair, metric, runs, on=on)
        if plain and kept:
            # Lost by the softmax minus lost by the sigmoid = what the sigmoid gains on the softmax by the noise.
            half = math.hypot(plain.high - plain.points, kept.high - kept.points)
            points = kept.points - plain.points
            gained = Difference(points, points - half, points + half, plain.runs + kept.runs)
            parts = [
                ("points that the softmax loses beyond the sigmoid, mean over all kinds of noise", gained, "higher")
            ]
    return Claim(
        "noise",
        "The sigmoid loss is more robust to noise than the softmax loss.",
        "figure 7",
        "the sigmoid stays ahead under every kind of noise (a figure; no numbers are published)",
        "figure-7",
        weigh(parts),
    )


CLAIMS = (finetune_ramp, finetune_decay, beta2)
NOISE = (noise,)


def _cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Evaluations on the way as cells of their own: the same run at another point is not another seed."""
    return runs.assign(batch_size=runs["examples_seen_at"])
