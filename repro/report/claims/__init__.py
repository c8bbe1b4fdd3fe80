"""The paper's claims, declared: its words and numbers, the figure or table to look at, and what they are judged by.

Most compare the same cells in every group of runs (`cells`); the others are functions that yield the claim's parts.
A number of the paper is a row of results/paper/published.csv (tests hold these texts against it), or no number is
published.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pandas as pd

from repro.config.spec import RunSpec
from repro.report.claims import batch_size, experiments
from repro.report.claims.evidence import MARGIN, NOT_RUN, SMALL_COST, Evidence, Part, groups, part, weigh, where
from repro.report.inputs import Inputs
from repro.results.sources import ORIGIN

Cell = dict[str, object]
LOG_10 = math.log(10)


@dataclass(frozen=True)
class Claim:
    """text: the claim. source: where the paper makes it. paper: its number. exhibit: the figure or table to look at.

    parts: what our runs say of it. detail: how it is judged. of: what the runs behind it are called.
    """

    name: str
    text: str
    source: str
    paper: str
    exhibit: str
    parts: Callable[[Inputs], Iterable[Part | None]]
    detail: str = ""
    of: str = "run"
    evidence: Evidence = NOT_RUN


def cells(exhibit: str, expected: str, pairs: dict[str, tuple[Cell, Cell]], probe: str = "") -> Callable:
    """Parts of a claim that compares cells by accuracy in every group of runs: {label: (first, second)}.

    probe: the last of the pairs is compared by each metric of this name instead.
    """

    def parts(inputs: Inputs) -> Iterator[Part | None]:
        for group in groups(inputs, exhibit):
            probes = [column for column in group.runs.columns if column.endswith(f"/{probe}")] if probe else []
            for place, (label, pair) in enumerate(pairs.items()):
                first, second = (where(group.runs, **cell) for cell in pair)
                for metric in probes if probe and place == len(pairs) - 1 else [""]:
                    yield part(group.named(label), group.difference(first, second, metric), expected)

    return parts


def _start(bias: float | None, logit_scale: float = LOG_10) -> Cell:
    return {"init_logit_scale": logit_scale, "init_logit_bias": bias}


def _adafactor(loss: str) -> Cell:
    return {"optimizer": "adafactor", "schedule": "cosine", "loss": loss}


def _negatives(name: str, text: str, parts: Callable, detail: str = "") -> Claim:
    return Claim(name, text, "figure 6", "a figure; no numbers are published", "figure-6", parts, detail)


_FEWER = functools.partial(functools.partial, experiments.fewer_negatives)
_DECAY = ({"setup": "finetune", "image_weight_decay": 0.0}, {"setup": "finetune", "image_weight_decay": None})

CLAIMS = (
    Claim(
        "small-batches",
        "Below 16k the sigmoid loss is clearly ahead of the softmax loss.",
        "figure 2, tables 5 and 8",
        "SigLIP +3.8 at 512, SigLIP +2.0 at 8k, SigLiT +2.6 at 512, SigLiT +0.5 at 8k (3B examples)",
        "figure-2",
        batch_size.small_batches,
        "sigmoid minus softmax, averaged over all batch sizes below 16k that both losses have",
    ),
    Claim(
        "saturation",
        "Both losses are saturated near a batch size of 32k.",
        "figure 2, tables 5 and 8",
        "SigLIP at 9B examples: sigmoid 72.3 at 16k, 73.4 at 32k, 73.0 at 98k; "
        "softmax 71.7 at 16k, 72.9 at 32k, 73.2 at 98k",
        "saturation",
        batch_size.saturation,
        "the saturation point's interval holds 32k and no more than 8k to 128k; needs larger batches",
    ),
    Claim(
        "peaks",
        "SigLIP is best at 32k with the sigmoid and at 98k with the softmax loss.",
        "table 5",
        "sigmoid at 32k, softmax at 98k (9B examples)",
        "table-5",
        batch_size.peaks,
        "the paper's size is among those not told from the peak, all near it; needs batches up to 98k",
    ),
    Claim(
        "too-large",
        "Far beyond the best batch size SigLIP's accuracy falls, with both losses.",
        "table 5",
        "at 307k, from the best: sigmoid −1.8, softmax −0.6 (9B examples)",
        "figure-2",
        batch_size.too_large,
        "the largest batch size minus the best; intervals allow for the best's choice by the same runs",
    ),
    Claim(
        "long-training",
        "Large batches need long training.",
        "figure 3, table 8",
        "256k against 32k: −9.1 at 450M examples, +0.1 at 18B (SigLiT, sigmoid)",
        "figure-3",
        batch_size.long_training,
        "largest batch minus the one where short training is best: in long training minus in short",
    ),
    Claim(
        "multilingual-retrieval",
        "In many languages retrieval falls beyond 32k.",
        "figure 8, table 9",
        "mean R@1 of 36 languages 41.1 at 32k, 38.9 at 240k",
        "figure-8",
        batch_size.retrieval_falls,
        "mean R@1 at the largest batch size minus that at the best one; needs batches beyond 32k",
    ),
    Claim(
        "multilingual-flat",
        "Meanwhile accuracy in English stays flat from 32k on.",
        "table 2",
        "73.2 at 32k, 73.1 at 240k (ImageNet)",
        "table-2",
        batch_size.multilingual_flat,
        f"largest batch size minus 32k: within {MARGIN} points; needs batches beyond 32k",
    ),
    Claim(
        "finetune-ramp",
        "Pretrained weights ramp up quickly.",
        "figure 4",
        "ahead of training from scratch from the first evaluation on (a figure)",
        "figure-4",
        experiments.finetune_ramp,
        "pretrained (no decay on it) minus from scratch: mean of the evaluations in the first quarter",
    ),
    Claim(
        "finetune",
        "A pretrained image tower is fine-tuned best without weight decay on it.",
        "figure 4, table 1",
        "0-shot and the 10-shot probe stay good only without it (a figure; 71.0 on ImageNet, table 1)",
        "figure-4",
        cells("figure 4", "higher", {"0-shot": _DECAY, "10-shot probe": _DECAY}, probe="10shot_acc1"),
        "without minus with decay on the pretrained weights",
    ),
    Claim(
        "beta2",
        "β2 = 0.95 avoids the spikes that β2 = 0.999 has with large batches.",
        "figure 5",
        "spikes of gradient and update norm with 0.999, none with 0.95 (a figure)",
        "figure-5",
        experiments.beta2,
        "the largest gradient norm of a run over its median: ratio of geometric means",
    ),
    _negatives(
        "random-negatives",
        "Leaving out most negatives at random costs accuracy.",
        _FEWER(kind="random", expected="lower"),
    ),
    _negatives("easy-negatives", "Keeping the easiest negatives only fails.", _FEWER(kind="easy", expected="lower")),
    _negatives(
        "hard-negatives",
        "The hardest negatives alone almost keep the quality of all.",
        _FEWER(kind="hard", expected="not lower", shares=(0.1,)),
        f"one tenth of the negatives costs at most {SMALL_COST:g} point",
    ),
    _negatives(
        "matched-negatives",
        "With training lengthened until as many pairs were seen, the hardest negatives surpass all of them.",
        experiments.matched_negatives,
    ),
    Claim(
        "bias",
        "A bias that starts at −10 helps (t' = log 10).",
        "table 4",
        "63.0 with −10, 62.0 without a bias, 61.7 from 0 (ImageNet)",
        "table-4",
        cells(
            "table 4",
            "higher",
            {"−10 minus without": (_start(-10.0), _start(None)), "−10 minus from 0": (_start(-10.0), _start(0.0))},
        ),
    ),
    Claim(
        "bias-temperature",
        "Both starting at zero (b = 0, t' = log 1) is by far the worst.",
        "table 4",
        "53.7 against 63.0 (ImageNet)",
        "table-4",
        cells("table 4", "lower", {"b = 0, t' = log 1 minus b = −10, t' = log 10": (_start(0.0, 0.0), _start(-10.0))}),
    ),
    Claim(
        "noise",
        "The sigmoid loss is more robust to noise than the softmax loss.",
        "figure 7",
        "the sigmoid stays ahead under every kind of noise (a figure; no numbers are published)",
        "figure-7",
        experiments.noise,
        "points that the softmax loses beyond those that the sigmoid loses, mean over all kinds of noise",
    ),
    Claim(
        "vocabulary",
        "A large multilingual vocabulary beats a small one.",
        "section 4.3",
        "by more than 1 % (900M examples)",
        "vocabulary",
        experiments.vocabulary,
    ),
    Claim(
        "bottleneck",
        "A bottlenecked token embedding costs little.",
        "section 4.3",
        "about half a percent (K = 96 of 768 columns)",
        "vocabulary",
        experiments.bottleneck,
        f"an eighth of the columns costs at most {SMALL_COST:g} point; other K are shown",
    ),
    Claim(
        "hyperparameters",
        "One learning rate and weight decay serve all batch sizes.",
        "table 6",
        "the default, from the best of the grid: +0.0 at 8k, +0.0 at 16k, −0.8 at 32k",
        "table-6",
        experiments.default_rates,
        f"the default (the middle of the grid) is surely within {SMALL_COST:g} point of every other cell",
    ),
    Claim(
        "seeds",
        "Losses, AdamW or Adafactor, and schedules are within a few tenths of each other.",
        "table 7",
        "sigmoid 70.1, softmax 69.9, sigmoid with AdamW 70.3, linear schedule 69.9 (text); ± 0.1 to 0.2",
        "table-7",
        cells(
            "table 7",
            "equal",
            {
                "sigmoid minus softmax": (_adafactor("sigmoid"), _adafactor("softmax")),
                "AdamW minus Adafactor": ({"optimizer": "adamw"}, _adafactor("sigmoid")),
                "linear minus cosine": ({"schedule": "linear"}, _adafactor("sigmoid")),
            },
        ),
        "within half a point",
    ),
    Claim(
        "released",
        "The released SigLIP weights are ahead of public ones of their size.",
        "table 3",
        "So400m 83.2 on ImageNet, the best of the others, which is larger, 82.0",
        "table-3",
        experiments.released,
        "SigLIP minus the best of the others of the same tower and number of patches",
    ),
    Claim(
        "ring",
        "D permutes round a ring are faster than two all-gathers.",
        "figure 1",
        "in words",
        "cost-exchange",
        experiments.ring,
        "most settings, each beyond the spread of its repeats",
        "measurement",
    ),
    Claim(
        "memory",
        "The chunked sigmoid loss needs memory for b², not for B².",
        "figure 1",
        "in words",
        "cost-loss",
        experiments.memory,
        f"a rank's peak memory, at most {experiments.SAME_MEMORY} times with more ranks of the same batch",
        "measurement",
    ),
    Claim(
        "capacity",
        "In the same memory the sigmoid loss fits twice the batch of the softmax loss.",
        "section 4.2",
        "4,096 against 2,048 on four chips (Base)",
        "cost-capacity",
        experiments.capacity,
        "the largest batch that fits; ≥ where larger ones were not tried",
        "measurement",
    ),
)


def claims(inputs: Inputs) -> list[Claim]:
    """All of the paper's claims in the order of its sections, with our evidence."""
    inputs = replace(inputs, runs=columns_of_claims(inputs.runs))
    return [replace(claim, evidence=weigh(claim.parts(inputs))) for claim in CLAIMS]


def columns_of_claims(runs: pd.DataFrame) -> pd.DataFrame:
    """Every field of a run (empty where an older version lacks it) and the main metrics: few columns are fast."""
    metrics = [name for name in runs.columns if name.endswith(("acc1", "/mean_recall@1"))]
    columns = ["run_id", "sweep", "status", "reason", ORIGIN, *RunSpec.model_fields, *metrics]
    return runs.reindex(columns=columns)
