"""Claims about settings: bias, vocabulary, learning rate, seeds; and about the released weights."""

import math

from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import (
    NOTHING,
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
from repro.report.claims.runs import of, pairs
from repro.report.found import Found

LOG_10 = math.log(10)
SMALL_COST = 1.0
"""Points: what the paper calls a small cost (half a percent), to one digit."""


def bias(found: Found) -> Claim:
    runs = of(found, "bias", init_logit_scale=LOG_10)
    minus_ten = where(runs, init_logit_bias=-10.0)
    others = {"without": where(runs, init_logit_bias=None), "from 0": where(runs, init_logit_bias=0.0)}
    parts = pairs({f"−10 minus {name}": (minus_ten, other) for name, other in others.items()}, found, "bias", "higher")
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
    runs = of(found, "bias")
    both = where(runs, init_logit_bias=0.0, init_logit_scale=0.0)
    best = where(runs, init_logit_bias=-10.0, init_logit_scale=LOG_10)
    parts = pairs({"b = 0, t' = log 1 minus b = −10, t' = log 10": (both, best)}, found, "bias", "lower")
    worst = value(found.published, "table-4", dataset="imagenet1k", init_bias=0.0, init_log_temperature="log 1")
    return Claim(
        "bias-temperature",
        "Both starting at zero (b = 0, t' = log 1) is by far the worst.",
        "table 4",
        f"{worst:.1f} against {_bias(found, -10.0):.1f} (ImageNet)",
        "table-4",
        weigh(parts),
    )


def vocabulary(found: Found) -> Claim:
    runs = of(found, "vocabulary", token_bottleneck=None)
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
    runs = of(found, "vocabulary")
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


def default_rates(found: Found) -> Claim:
    runs = of(found, "hyperparameters")
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
    runs = of(found, "seeds")
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
        weigh(pairs(variants, found, "seeds", "equal"), "within half a point"),
    )


def released(found: Found) -> Claim:
    runs = of(found, "released")
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


BIAS = (bias, bias_and_temperature)
CLAIMS = (vocabulary, bottleneck, default_rates, seeds, released)

_TABLE_7 = {
    "sigmoid": {"loss": "sigmoid", "optimizer": "vit-adafactor"},
    "softmax": {"loss": "softmax", "optimizer": "vit-adafactor"},
    "sigmoid with AdamW": {"loss": "sigmoid", "optimizer": "adamw"},
}


def _bias(found: Found, start: float) -> float:
    return value(found.published, "table-4", dataset="imagenet1k", init_bias=start, init_log_temperature="log 10")
