"""Claims about settings: bias, vocabulary, learning rate, seeds; and about the released weights."""

import math

import pandas as pd

from repro.config.errors import InputError
from repro.models.model_config import is_at_hand, read_config
from repro.report import tables
from repro.report.claims.claim import Claim, value
from repro.report.claims.evidence import Part, Verdict, judge, part, said, weigh, where
from repro.report.claims.runs import Group, groups
from repro.report.exhibits.released import identity
from repro.report.found import Found

LOG_10 = math.log(10)
SMALL_COST = 1.0
"""Points: what the paper calls a small cost (half a percent), to one digit."""
EIGHTH = 8
"""The paper's bottleneck has 96 of 768 columns."""


def bias(found: Found) -> Claim:
    parts = []
    for group in groups(found, "table 4"):
        minus_ten, none, zero = (group.of(init_logit_scale=LOG_10, init_logit_bias=b) for b in (-10.0, None, 0.0))
        for name, other in (("without", none), ("from 0", zero)):
            parts.append(part(group.named(f"−10 minus {name}"), group.difference(minus_ten, other), "higher"))
    without = value(found.published, "table-4", dataset="imagenet1k", init_bias=None)
    return Claim(
        "bias",
        "A bias that starts at −10 helps (t' = log 10).",
        "table 4",
        f"{_bias(found, -10.0):.1f} with −10, {without:.1f} without a bias, {_bias(found, 0.0):.1f} from 0 (ImageNet)",
        "table-4",
        weigh(parts),
    )


def bias_and_temperature(found: Found) -> Claim:
    parts = []
    for group in groups(found, "table 4"):
        both = group.of(init_logit_bias=0.0, init_logit_scale=0.0)
        best = group.of(init_logit_bias=-10.0, init_logit_scale=LOG_10)
        parts.append(
            part(group.named("b = 0, t' = log 1 minus b = −10, t' = log 10"), group.difference(both, best), "lower")
        )
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
    parts = []
    for group in groups(found, "section 4.3"):
        full = group.of(token_bottleneck=None)
        small = full["model"].astype(str).str.contains("small|49k")  # the models of sweeps/vocabulary.yaml
        for metric, name, expected in _retrieval_first(group):
            gain = group.difference(full[~small], full[small], metric)
            parts.append(part(group.named(f"{name}, large minus small"), gain, expected))
    return Claim(
        "vocabulary",
        "A large multilingual vocabulary beats a small one.",
        "section 4.3",
        "by more than 1 % (900M examples)",
        "vocabulary",
        weigh(parts),
    )


def bottleneck(found: Found) -> Claim:
    parts = []
    for group in groups(found, "section 4.3"):
        for columns in sorted(tables.numbers(group.runs["token_bottleneck"]).dropna().unique(), reverse=True):
            narrow = group.of(token_bottleneck=float(columns))
            model = str(narrow["model"].iloc[0])
            width = _width(model)
            whole = group.of(token_bottleneck=None, model=model)
            metric = group.retrieval or group.accuracy
            expected = "not lower" if columns * EIGHTH == width else ""
            text = group.named(f"K = {columns:g}{f' of {width}' if width else ''} minus the full table")
            parts.append(part(text, group.difference(narrow, whole, metric), expected, SMALL_COST))
    return Claim(
        "bottleneck",
        "A bottlenecked token embedding costs little.",
        "section 4.3",
        "about half a percent (K = 96 of 768 columns)",
        "vocabulary",
        weigh(parts, f"an eighth of the columns costs at most {SMALL_COST:g} point; other K are shown"),
    )


def default_rates(found: Found) -> Claim:
    parts = [_default(group, size, grid) for group in groups(found, "table 6") for size, grid in _by_size(group)]
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
        weigh(parts, f"the default (the middle of the grid) is surely within {SMALL_COST:g} point of every other cell"),
    )


def seeds(found: Found) -> Claim:
    parts = []
    for group in groups(found, "table 7"):
        adafactor = group.of(optimizer="adafactor", schedule="cosine")
        sigmoid = where(adafactor, loss="sigmoid")
        variants = {
            "sigmoid minus softmax": (sigmoid, where(adafactor, loss="softmax")),
            "AdamW minus Adafactor": (group.of(optimizer="adamw"), sigmoid),
            "linear minus cosine": (group.of(schedule="linear"), sigmoid),
        }
        parts += [part(group.named(name), group.difference(*pair), "equal") for name, pair in variants.items()]
    means = {key: value(found.published, "table-7", **conditions) for key, conditions in _TABLE_7.items()}
    return Claim(
        "seeds",
        "Losses, AdamW or Adafactor, and schedules are within a few tenths of each other.",
        "table 7",
        ", ".join(f"{name} {mean:.1f}" for name, mean in means.items()) + ", linear schedule 69.9 (text); ± 0.1 to 0.2",
        "table-7",
        weigh(parts, "within half a point"),
    )


def released(found: Found) -> Claim:
    """Weights are what they are: no seeds, and the evaluation is exact."""
    parts = []
    for group in groups(found, "table 3"):
        done = tables.finished(group.runs)
        done = (
            done.assign(value=tables.numbers(done[group.accuracy])).dropna(subset=["value"]) if group.accuracy else done
        )
        rows: dict[tuple[str, int], dict[bool, float]] = {}
        for row in done.to_dict("records"):
            named = identity(str(row.get("model")), str(row.get("pretrained")))
            if named is not None:
                family, tower, patches = named
                best = rows.setdefault((tower, patches), {})
                best[family == "SigLIP"] = max(row["value"], best.get(family == "SigLIP", 0.0))
        for (tower, patches), best in rows.items():
            if len(best) == 2:
                ahead = best[True] - best[False]
                verdict = Verdict.AGREES if ahead > 0 else Verdict.CONTRADICTS
                text = group.named(f"{tower}, {patches} patches: {tables.signed(100 * ahead)}")
                parts.append(said(text, verdict, done["run_id"].astype(str)))
        if len(done) and not parts:
            text = group.named(f"{len(done)} evaluated, no two of one size of which one is SigLIP's")
            parts.append(said(text, Verdict.TOO_FEW, done["run_id"].astype(str)))
    so400m = value(found.published, "table-3", dataset="imagenet1k", model="SigLIP", image_tower="SO (400M)")
    table = where(found.published, source="table-3", dataset="imagenet1k")
    other = table[table["model"] != "SigLIP"]["value"].max()
    return Claim(
        "released",
        "The released SigLIP weights are ahead of public ones of their size.",
        "table 3",
        f"So400m {so400m:.1f} on ImageNet, the best of the others, which is larger, {other:.1f}",
        "table-3",
        weigh(parts, "SigLIP minus the best of the others of the same tower and number of patches"),
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


def _retrieval_first(group: Group) -> list[tuple[str, str, str]]:
    """(metric, its name, what is expected): several languages are judged by retrieval, where there is one."""
    if not group.retrieval:
        return [(group.accuracy, "accuracy", "higher")]
    return [(group.retrieval, "retrieval", "higher"), (group.accuracy, "accuracy", "")]


def _width(model: str) -> int | None:
    """Of the text tower; None for a model whose config is not at hand."""
    try:
        return int(read_config(model)[0]["model_cfg"]["text_cfg"]["width"]) if is_at_hand(model) else None
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _by_size(group: Group) -> list[tuple[int, pd.DataFrame]]:
    return [(int(size), grid) for size, grid in group.runs.groupby("batch_size")]


def _default(group: Group, size: int, grid: pd.DataFrame) -> Part | None:
    """The middle of the grid against each of its other cells; None where the grid has no middle."""
    rates = ["learning_rate", "weight_decay"]
    middle = {name: float(group.runs[name].median()) for name in rates}
    own = where(grid, **middle)
    others = [cell for key, cell in tables.split(grid, rates) if key != middle]
    rivals = [found for cell in others if (found := group.difference(own, cell)) is not None] if len(own) else []
    if not rivals:
        return None
    worst = min(rivals, key=lambda found: found.points)
    text = group.named(f"{tables.signed(min(0.0, worst.points))} from the best at {size}")
    runs = frozenset().union(*(found.runs for found in rivals))
    if not worst.freedom:
        return said(f"{text} (one seed)", Verdict.TOO_FEW, runs)
    verdicts = {judge(found.interval(len(rivals)), "not lower", SMALL_COST) for found in rivals}
    verdict = next(v for v in (Verdict.CONTRADICTS, Verdict.NOT_SHOWN, Verdict.AGREES) if v in verdicts)
    return said(text, verdict, runs)
