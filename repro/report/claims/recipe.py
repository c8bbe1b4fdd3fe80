"""Claims about the recipe: bias, negatives, noisy data, fine-tuning, β2, learning rates, seeds, vocabularies."""

import math
from collections.abc import Iterator

import pandas as pd

from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import (
    NOTHING,
    Difference,
    Evidence,
    Verdict,
    accuracy_metric,
    difference,
    judge,
    retrieval_metric,
    seed_noise,
    together,
    weigh,
    where,
)
from repro.report.found import Found

LOG_10 = math.log(10)
SMALL_COST, CLEAR = 1.0, 1.0
"""Points: what the paper calls a small cost (half a percent, to one digit), and a clear gain (more than one)."""


def bias(found: Found) -> Claim:
    runs = _of(found, "bias", init_logit_scale=LOG_10)
    minus_ten = where(runs, init_logit_bias=-10.0)
    others = {"without": where(runs, init_logit_bias=None), "from 0": where(runs, init_logit_bias=0.0)}
    parts = _pairs({f"−10 minus {name}": (minus_ten, other) for name, other in others.items()}, found, "bias", "higher")
    paper = [
        _bias(found, -10.0),
        value(found.published, "table-4", dataset="imagenet1k", init_bias=None),
        _bias(found, 0.0),
    ]
    return Claim(
        "bias",
        "A bias that starts at −10 helps (t' = log 10).",
        "table 4",
        f"{paper[0]:.1f} with −10, {paper[1]:.1f} without a bias, {paper[2]:.1f} from 0 (ImageNet)",
        "table-4",
        weigh(parts),
    )


def bias_and_temperature(found: Found) -> Claim:
    runs = _of(found, "bias")
    both = where(runs, init_logit_bias=0.0, init_logit_scale=0.0)
    best = where(runs, init_logit_bias=-10.0, init_logit_scale=LOG_10)
    parts = _pairs({"b = 0, t' = log 1 minus b = −10, t' = log 10": (both, best)}, found, "bias", "lower")
    worst = value(found.published, "table-4", dataset="imagenet1k", init_bias=0.0, init_log_temperature="log 1")
    return Claim(
        "bias-temperature",
        "Both starting at zero (b = 0, t' = log 1) is by far the worst.",
        "table 4",
        f"{worst:.1f} against {_bias(found, -10.0):.1f} (ImageNet)",
        "table-4",
        weigh(parts),
    )


def random_negatives(found: Found) -> Claim:
    parts = _negatives(found, "random", "lower")
    text = "Leaving out most negatives at random costs accuracy."
    return _of_figure_6("random-negatives", text, weigh(parts))


def easy_negatives(found: Found) -> Claim:
    text = "Keeping the easiest negatives only fails."
    return _of_figure_6("easy-negatives", text, weigh(_negatives(found, "easy", "lower")))


def hard_negatives(found: Found) -> Claim:
    parts = list(_negatives(found, "hard", "not lower", shares=(0.1,)))
    return _of_figure_6(
        "hard-negatives",
        "The hardest negatives alone almost keep the quality of all.",
        weigh(parts, f"one tenth of the negatives costs at most {SMALL_COST:g} point", SMALL_COST),
    )


def matched_negatives(found: Found) -> Claim:
    runs = _of(found, "negatives")
    lengths = sorted(runs["examples_seen"].dropna().unique()) if len(runs) else []
    everything = where(runs, negatives="all")
    parts = []
    if len(lengths) > 1:
        longer = where(runs, negatives="hard", examples_seen=lengths[-1])
        parts = _pairs({"matched minus all": (longer, everything)}, found, "negatives", "higher", both_metrics=True)
    text = "With training lengthened until as many pairs were seen, the hardest negatives surpass all of them."
    return _of_figure_6("matched-negatives", text, weigh(parts))


def noise(found: Found) -> Claim:
    runs = _of(found, "noise")
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


def finetune_decay(found: Found) -> Claim:
    runs = where(found.ours, sweep="finetune")
    tuned = where(runs, setup="finetune")
    pair = (where(tuned, image_weight_decay=0.0), where(tuned, image_weight_decay=None))
    parts = _pairs({"without minus with": pair}, found, "finetune", "higher")
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


def default_rates(found: Found) -> Claim:
    runs = _of(found, "hyperparameters")
    metric = accuracy_metric(runs)
    evidence = NOTHING
    if metric is not None and len(runs):
        recipe = {column: runs[column].median() for column in ("learning_rate", "weight_decay")}
        verdicts, words, count = [], [], 0
        for size, grid in tables.placed(runs).groupby("batch_size"):
            means = tables.summarise(grid, metric, list(recipe)).set_index(list(recipe))["mean"]
            default = tuple(recipe.values())
            if default not in means.index:
                continue
            best = means.idxmax()
            cells = [where(grid, **dict(zip(recipe, map(float, key), strict=True))) for key in (default, best)]
            lost = difference(*cells, metric, runs, comparisons=len(means) - 1)
            verdicts.append(judge(lost, "not lower", SMALL_COST))
            if best == default:  # with itself nothing is compared: whether it is the best is the noise's to say
                verdicts[-1] = Verdict.AGREES if seed_noise(runs, metric)[1] else Verdict.TOO_FEW
            words.append(f"{tables.signed(100 * (means[default] - means[best]))} from the best at {int(size)}")
            count += len(tables.finished(grid))
        evidence = Evidence(
            together(verdicts), ", ".join(words), count, f"within {SMALL_COST:g} point of the grid's best"
        )
    defaults = where(found.published, source="table-6", note="default").set_index("batch_size")["value"]
    bests = where(found.published, source="table-6", note="best of the 3x3 grid").set_index("batch_size")["value"]
    paper = ", ".join(
        f"{tables.signed(defaults[size] - bests[size])} at {int(size) // 1024}k" for size in defaults.index
    )
    return Claim(
        "hyperparameters",
        "One learning rate and weight decay serve all batch sizes.",
        "table 6",
        f"the default, from the best of the grid: {paper}",
        "table-6",
        evidence,
    )


def seeds(found: Found) -> Claim:
    runs = _of(found, "seeds")
    adafactor = where(runs, optimizer="adafactor", schedule="cosine")
    sigmoid = where(adafactor, loss="sigmoid")
    variants = {
        "sigmoid minus softmax": (sigmoid, where(adafactor, loss="softmax")),
        "AdamW minus Adafactor": (where(runs, optimizer="adamw"), sigmoid),
        "linear minus cosine": (where(runs, schedule="linear"), sigmoid),
    }
    means = {key: value(found.published, "table-7", **conditions) for key, conditions in _TABLE_7.items()}
    return Claim(
        "seeds",
        "Losses, AdamW or Adafactor, and schedules are within a few tenths of each other.",
        "table 7",
        ", ".join(f"{name} {mean:.1f}" for name, mean in means.items()) + ", linear schedule 69.9 (text); ± 0.1 to 0.2",
        "table-7",
        weigh(_pairs(variants, found, "seeds", "equal"), "within half a point"),
    )


def vocabulary(found: Found) -> Claim:
    runs = _of(found, "vocabulary", token_bottleneck=None)
    small = runs["model"].astype(str).str.contains("small|49k")  # the models of sweeps/vocabulary.yaml
    metric = retrieval_metric(runs) or accuracy_metric(runs)
    parts = []
    if metric:
        parts = [("retrieval, large minus small", difference(runs[~small], runs[small], metric, runs), "higher")]
    return Claim(
        "vocabulary",
        "A large multilingual vocabulary beats a small one.",
        "section 4.3",
        "by more than 1 % (900M examples)",
        "vocabulary",
        weigh(parts),
    )


def bottleneck(found: Found) -> Claim:
    runs = _of(found, "vocabulary")
    metric = retrieval_metric(runs) or accuracy_metric(runs)
    parts = []
    squeezed = tables.numbers(runs["token_bottleneck"]).max()
    if metric and squeezed == squeezed:
        narrow = where(runs, token_bottleneck=float(squeezed))
        pair = (narrow, where(runs, token_bottleneck=None, model=narrow["model"].iloc[0]))
        parts = [(f"K = {squeezed:g} minus the full table", difference(*pair, metric, runs), "not lower")]
    return Claim(
        "bottleneck",
        "A bottlenecked token embedding costs little.",
        "section 4.3",
        "about half a percent (K = 96 of 768 columns)",
        "vocabulary",
        weigh(parts, f"at most {SMALL_COST:g} point", SMALL_COST),
    )


def released(found: Found) -> Claim:
    runs = _of(found, "released")
    metric = accuracy_metric(runs)
    evidence = NOTHING
    if metric is not None and len(runs):
        best = tables.finished(runs).assign(value=tables.numbers(runs[metric])).groupby("loss")["value"].max()
        words = ", ".join(f"best of {loss} {100 * top:.1f}" for loss, top in best.items())
        if len(best) < 2:
            evidence = Evidence(Verdict.TOO_FEW, words, len(runs), "needs public weights of both losses")
        else:  # weights are what they are: no seeds, the evaluation is exact
            verdict = Verdict.AGREES if best["sigmoid"] > best["softmax"] else Verdict.CONTRADICTS
            evidence = Evidence(verdict, words, len(runs), "the same evaluation of all of them")
    so400m = value(found.published, "table-3", dataset="imagenet1k", model="SigLIP", image_tower="SO (400M)")
    table = where(found.published, source="table-3", dataset="imagenet1k")
    other = table[table["model"] != "SigLIP"]["value"].max()
    return Claim(
        "released",
        "The released SigLIP weights are ahead of public ones of their size.",
        "table 3",
        f"So400m {so400m:.1f} on ImageNet, the best of the others, which is larger, {other:.1f}",
        "table-3",
        evidence,
    )


CLAIMS = (
    *(finetune_ramp, finetune_decay, beta2, random_negatives, easy_negatives, hard_negatives, matched_negatives),
    *(bias, bias_and_temperature, noise, vocabulary, bottleneck, default_rates, seeds, released),
)

_TABLE_7 = {
    "sigmoid": {"loss": "sigmoid", "optimizer": "vit-adafactor"},
    "softmax": {"loss": "softmax", "optimizer": "vit-adafactor"},
    "sigmoid with AdamW": {"loss": "sigmoid", "optimizer": "adamw"},
}


def _of(found: Found, sweep: str, **conditions: object) -> pd.DataFrame:
    return tables.placed(where(found.ours, sweep=sweep, **conditions))


def _pairs(
    pairs: dict[str, tuple[pd.DataFrame, pd.DataFrame]],
    found: Found,
    sweep: str,
    expected: str,
    both_metrics: bool = False,
) -> list[tuple[str, Difference | None, str]]:
    """Each pair's difference, by the metric of the paper's table: zero-shot accuracy (and retrieval, where both)."""
    runs = _of(found, sweep)
    metrics = [accuracy_metric(runs), retrieval_metric(runs) if both_metrics else None]
    return [
        (f"{'retrieval, ' if place else ''}{label}", difference(*pair, metric, runs), expected)
        for place, metric in enumerate(metrics)
        for label, pair in pairs.items()
        if metric is not None and all(len(part) for part in pair)
    ]


def _negatives(
    found: Found, kind: str, expected: str, shares: tuple[float, ...] = ()
) -> Iterator[tuple[str, Difference | None, str]]:
    """A kind of negatives minus all of them, at each share, in training of the same length; retrieval is told, too."""
    runs = _of(found, "negatives")
    runs = runs[runs["examples_seen"] == runs["examples_seen"].min()]
    own = where(runs, negatives=kind)
    for metric, name, expects in ((accuracy_metric(runs), "", expected), (retrieval_metric(runs), "retrieval, ", "")):
        for share in sorted(own["negatives_share"].unique(), reverse=True) if metric else ():
            if not shares or any(math.isclose(share, wanted) for wanted in shares):
                pair = (where(own, negatives_share=float(share)), where(runs, negatives="all"))
                yield f"{name}{100 * share:g}% {kind} minus all", difference(*pair, metric, runs), expects


def _of_figure_6(name: str, text: str, evidence: Evidence) -> Claim:
    return Claim(name, text, "figure 6", "a figure; no numbers are published", "figure-6", evidence)


def _bias(found: Found, start: float) -> float:
    return value(found.published, "table-4", dataset="imagenet1k", init_bias=start, init_log_temperature="log 10")


def _cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Evaluations on the way as cells of their own: the same run at another point is not another seed."""
    return runs.assign(batch_size=runs["examples_seen_at"])
