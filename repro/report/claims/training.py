"""Claims about training: fine-tuning a pretrained tower, Adam's β2, noisy data."""

import math

from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import Difference, Part, Verdict, difference, judge, part, said, weigh, where
from repro.report.claims.runs import APART, groups
from repro.report.found import Found


def finetune_ramp(found: Found) -> Claim:
    parts = []
    runs = found.evaluations
    if len(runs) and "sweep" in runs:
        runs = runs[runs["sweep"].isin(found.sweeps_of("figure 4"))]
        metrics = [column for column in runs.columns if column.endswith("/acc1") and runs[column].notna().any()]
        if len(runs) and metrics:
            early = runs[tables.numbers(runs["examples_seen_at"]) <= tables.numbers(runs["examples_seen"]) / 4]
            own = ["run_id", "seed", "setup", *(c for c in ("image_weight_decay", *APART) if c in early)]
            # A run's points are no seeds of each other: each run is one number.
            means = early.groupby(own, dropna=False)[metrics[0]].mean().reset_index()
            means = means.assign(loss="sigmoid", batch_size=1, status="finished")
            by = [column for column in APART if column in means and means[column].nunique(dropna=False) > 1]
            for key, group in tables.split(means, by):
                pair = (where(group, setup="finetune", image_weight_decay=0.0), where(group, setup="siglip"))
                ahead = difference(*pair, metrics[0], group.drop(columns=by)) if all(map(len, pair)) else None
                parts.append(part(tables.series_label(key), ahead, "higher"))
    return Claim(
        "finetune-ramp",
        "Pretrained weights ramp up quickly.",
        "figure 4",
        "ahead of training from scratch from the first evaluation on (a figure)",
        "figure-4",
        weigh(parts, "pretrained (no decay on it) minus from scratch: mean of the evaluations in the first quarter"),
    )


def finetune_decay(found: Found) -> Claim:
    parts = []
    for group in groups(found, "figure 4"):
        tuned = group.of(setup="finetune")
        pair = (where(tuned, image_weight_decay=0.0), where(tuned, image_weight_decay=None))
        parts.append(part(group.named("0-shot"), group.difference(*pair), "higher"))
        for metric in [column for column in group.runs.columns if column.endswith("/10shot_acc1")]:
            parts.append(part(group.named("10-shot probe"), group.difference(*pair, metric), "higher"))
    return Claim(
        "finetune",
        "A pretrained image tower is fine-tuned best without weight decay on it.",
        "figure 4, table 1",
        "0-shot and the 10-shot probe stay good only without it (a figure; "
        f"{value(found.published, 'table-1', setup='finetune'):.1f} on ImageNet, table 1)",
        "figure-4",
        weigh(parts, "without minus with decay on the pretrained weights"),
    )


def beta2(found: Found) -> Claim:
    parts = []
    curves = found.curves
    if len(curves) and {"gradient_norm", "beta2", "sweep"} <= set(curves.columns):
        curves = curves[curves["sweep"].isin(found.sweeps_of("figure 5"))]
        settings = [c for c in ("scale", "model", "batch_size", "learning_rate") if c in curves]
        norms = curves.assign(norm=tables.numbers(curves["gradient_norm"])).dropna(subset=["norm"])
        spikes = norms.groupby(["run_id", "beta2", "seed", *settings], dropna=False)["norm"]
        runs = spikes.agg(lambda each: math.log(each.max() / each.median())).reset_index(name="spike")
        runs = runs.assign(loss="sigmoid", status="finished")
        runs = runs if "batch_size" in runs else runs.assign(batch_size=1)
        pair = (where(runs, beta2=0.999), where(runs, beta2=0.95))
        parts.append(_ratio(difference(*pair, "spike", runs, on=settings, scale=1) if len(runs) else None))
    return Claim(
        "beta2",
        "β2 = 0.95 avoids the spikes that β2 = 0.999 has with large batches.",
        "figure 5",
        "spikes of gradient and update norm with 0.999, none with 0.95 (a figure)",
        "figure-5",
        weigh(parts, "the largest gradient norm of a run over its median: ratio of geometric means"),
    )


def noise(found: Found) -> Claim:
    parts = []
    for group in groups(found, "figure 7"):
        corrupted = group.runs[tables.numbers(group.runs["corruption_probability"]) > 0]
        plain = group.difference(*(group.of(loss=loss, corruption="none") for loss in tables.LOSSES))
        on = ("corruption", "corruption_probability")
        kept = group.difference(*(where(corrupted, loss=loss) for loss in tables.LOSSES), on=on)
        if plain and kept:
            # Lost by the softmax minus lost by the sigmoid = what the sigmoid gains on the softmax by the noise.
            error = math.hypot(plain.error, kept.error)
            gained = Difference(kept.points - plain.points, error, kept.freedom, plain.runs | kept.runs)
            parts.append(part(group.label, gained, "higher"))
    return Claim(
        "noise",
        "The sigmoid loss is more robust to noise than the softmax loss.",
        "figure 7",
        "the sigmoid stays ahead under every kind of noise (a figure; no numbers are published)",
        "figure-7",
        weigh(parts, "points that the softmax loses beyond those that the sigmoid loses, mean over all kinds of noise"),
    )


CLAIMS = (finetune_ramp, finetune_decay, beta2)
NOISE = (noise,)


def _ratio(found: Difference | None) -> Part | None:
    """A difference of logarithms as a ratio."""
    if found is None:
        return None
    text = f"0.999 over 0.95: {math.exp(found.points):.2f}"
    if not found.freedom:
        return said(f"{text} (one seed)", Verdict.TOO_FEW, found.runs)
    low, high = found.interval()
    return said(f"{text} ({math.exp(low):.2f} to {math.exp(high):.2f}) times", judge((low, high), "higher"), found.runs)
