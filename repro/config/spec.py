"""RunSpec: everything that changes a run's result, and nothing else (docs/architecture.md, law 1).

Two runs with the same spec are the same run, with the same id and directory. Where things lie does not
change a result, so places (`data`, `evals`, `pretrained` …) stay out of the hash, and fingerprints of their content
are in it. So do values that are the default: a field that is added later leaves the ids of older runs as they are.
What only changes speed or place (ranks, worker count, executor, folders) is no field at all.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from repro.config.errors import InputError
from repro.config.reading import FROZEN, known_name, validated
from repro.config.setups import SETUPS
from repro.config.units import format_batch_size, format_examples, parse_batch_size, parse_examples
from repro.loss.registry import LOSSES

FORMAT = 2
"""Version of the run directory, part of every id. Raised when older code could not read what newer code writes, or when
a default changes: ids leave defaults out. 2: weight decay is for kernels alone, Adafactor clips no update.
"""

SCALES = ("laptop", "gpu", "paper")
CORRUPTIONS = ("none", "image", "text", "batch", "image-text", "image-text-batch")
PLACES = ("data", "evals", "pretrained", "embeddings")
"""Fields that say where something lies."""
LOG_COLUMNS = (
    *("step", "examples_seen", "time", "loss", "logit_scale", "logit_bias", "positive_logit", "negative_logit"),
    *("gradient_norm", "parameter_norm", "update_norm", "learning_rate", "examples_per_second", "data_wait_share"),
    *("bad_samples", "peak_memory_bytes"),
)
"""Keys of every line of a run's log."""
LOG_LINES = 200
"""About so many lines a run leaves in its log, whatever its length."""
HIDDEN_FIELDS = (
    "data_fingerprint",
    "model_fingerprint",
    "pretrained_fingerprint",
    "warmup_examples",
    "evals",
    "evaluate_at",
)
"""Fields that follow from others, or tell little in a label."""

BatchSize = Annotated[int, BeforeValidator(parse_batch_size), Field(gt=0)]
Examples = Annotated[int, BeforeValidator(parse_examples), Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RunSpec(BaseModel):
    """One cell of a sweep. Frozen; unknown keys and impossible combinations are InputErrors (see `parse`)."""

    model_config = FROZEN

    format: Literal[2] = FORMAT
    setup: Annotated[str, AfterValidator(partial(known_name, SETUPS))]
    scale: Literal["laptop", "gpu", "paper"]
    seed: int = Field(0, ge=0, lt=2**31, description="initial weights and sample order")

    data: str = Field(description="shapes:EXAMPLES[:seed=N] (the embedded world) or a pattern of shards")
    data_fingerprint: str = Field("", description="content of the data; found by the sweep when empty")
    shuffle_shards: int = Field(64, gt=0, description="samples are shuffled within windows of this many shards")
    max_bad_share: Share = Field(0.01, description="the run fails when more of the samples than this are bad")
    languages: tuple[str, ...] = Field((), description="captions are of these, each position of one; none: of any")
    corruption: Literal["none", "image", "text", "batch", "image-text", "image-text-batch"] = Field(
        "none", description="what of the training data is corrupted (section 4.9)"
    )
    corruption_probability: Share = Field(0.0, description="of an image or text; of the batch's alignment, the share")
    evals: tuple[str, ...] = Field((), description="clip-benchmark data sets: folders or names")
    evaluate_at: tuple[Examples, ...] = Field((), description="examples seen after which to evaluate on the way")

    model: str = Field(description="a name known to open_clip, or of ours, or a model config (JSON file)")
    model_fingerprint: str = Field("", description="content of the model config; found by the sweep")
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = Field(True, description="the same bits each time on the same GPUs; false is faster")
    init: Literal["open_clip", "authors"] = Field(
        "open_clip", description="how initial weights are drawn: as open_clip and timm do, or as the authors' code does"
    )
    interpolation: Literal["bicubic", "bilinear", "bilinear-aliased"] | None = Field(
        None, description="of images resized for training; null: the model's; bilinear-aliased: big_vision's default"
    )
    token_bottleneck: int | None = Field(
        None, gt=0, description="K: the token embedding is a table of K columns times K × width (section 4.3)"
    )
    pretrained: str = Field(
        "", description="weights to start from (of the image tower) or to evaluate: checkpoint, timm, open_clip's tag"
    )
    pretrained_fingerprint: str = Field("", description="content of these weights; found by the sweep")
    embeddings: str = Field("", description="siglit: folder of `repro data embed`; empty for the cache's")

    loss: Annotated[str, AfterValidator(partial(known_name, LOSSES))]
    exchange: Literal["ring", "ring-bidirectional", "gather"] = Field(
        "ring", description="how ranks see each other's embeddings"
    )
    init_logit_scale: float = Field(math.log(10), description="t', the logarithm of the temperature")
    init_logit_bias: float | None = Field(
        None, description="b; null for none, prior for −log(B − 1) in sweeps and --set. Sigmoid only"
    )
    learn_logit_bias: bool = Field(True, description="false: b stays where it starts")
    negatives: Literal["all", "random", "hard", "easy"] = Field(
        "all", description="which count (section 4.8). Sigmoid only"
    )
    negatives_share: float = Field(1.0, gt=0, le=1, description="of all negatives of the global batch")

    batch_size: BatchSize = Field(description="global: the examples of one optimizer step over all ranks")
    micro_batch: BatchSize = Field(description="at most this many examples pass a tower at once, on each rank")
    examples_seen: Examples = Field(description="training length; steps = examples seen ÷ batch size")
    threads: int = Field(1, gt=0, description="CPU threads of a rank: they split sums, so change last bits")

    optimizer: Literal["adamw", "adafactor", "lion"] = Field("adamw", description="adafactor: big_vision's variant")
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0, description="share of a weight lost a step at the peak of the schedule")
    image_learning_rate_multiplier: float = Field(1.0, ge=0, description="of the image tower; 0: it is locked")
    text_learning_rate_multiplier: float = Field(1.0, ge=0)
    decay_on: Literal["kernels", "matrices"] = Field(
        "kernels", description="which weights decay: those of dense, convolution and attention layers, or all matrices"
    )
    image_weight_decay: float | None = Field(None, ge=0, description="of the image tower; null: as weight_decay")
    text_weight_decay: float | None = Field(None, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    momentum_precision: Literal["fp32", "bf16"] = Field("bf16", description="of adafactor's momentum")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    schedule_at: Literal["start", "end"] = Field(
        "end", description="where in a step warm-up is read; start: the first step's rate is 0, as in big_vision"
    )
    warmup_examples: Examples = 0
    grad_clip: float | None = Field(None, gt=0, description="largest norm of the gradient; null for no limit")

    max_loss_ratio: float | None = Field(
        4.0, gt=1, description="diverged when the loss stays above this many times the first step's; null for never"
    )
    max_loss_share: Share = Field(0.01, description="… for this share of the run's steps in a row, and 20 at least")

    @model_validator(mode="after")
    def _combinations(self) -> "RunSpec":
        problems = itertools.chain(self._sizes(), self._setup(), self._loss(), self._corruption())
        if problem := next(problems, None):
            raise InputError(problem)
        return self

    def _sizes(self) -> Iterator[str]:
        """What is wrong with batch, micro-batch and length together, with the nearest that works; likewise below."""
        if not self.trains and self.examples_seen:
            yield f"examples_seen {self.examples_seen:,}: setup {self.setup} trains nothing; expected examples_seen 0"
        if self.examples_seen < self.batch_size and self.trains:
            yield (
                f"examples_seen {self.examples_seen:,} is less than batch_size {self.batch_size:,}: not one step; "
                f"use --examples {self.batch_size} or more, or a smaller batch size"
            )
        if self.batch_size > self.micro_batch and self.batch_size % self.micro_batch:
            yield (
                f"micro_batch {self.micro_batch:,} does not divide batch_size {self.batch_size:,}; "
                f"the nearest that does is {_nearest_divisor(self.batch_size, self.micro_batch):,}"
            )
        if self.warmup_examples > self.examples_seen:
            yield (
                f"warmup_examples {self.warmup_examples:,} is more than examples_seen {self.examples_seen:,}; "
                f"use --set warmup_examples={self.examples_seen // 10} or a share such as 10%"
            )

    def _setup(self) -> Iterator[str]:
        kind = SETUPS[self.setup]
        if kind.needs_weights and not self.pretrained:
            yield (
                f"pretrained is empty: setup {self.setup} starts from the weights of an image tower; expected a "
                "checkpoint, timm, laptop-tower or a tag of open_clip's"
            )
        if not (kind.needs_weights or kind.evaluates_only) and self.pretrained:
            yield (
                f"pretrained {self.pretrained}: setup {self.setup} trains both towers from scratch; expected it empty, "
                "or setup finetune or siglit"
            )
        if not kind.reads_embeddings and self.embeddings:
            yield f"embeddings {self.embeddings}: setup {self.setup} reads images; expected setup siglit"
        if kind.reads_embeddings and self.image_learning_rate_multiplier:
            yield (
                f"image_learning_rate_multiplier {self.image_learning_rate_multiplier:g}: setup siglit locks the image "
                "tower; expected 0, or setup finetune"
            )
        if (kind.reads_embeddings or kind.evaluates_only) and self.interpolation:
            yield (
                f"interpolation {self.interpolation}: setup {self.setup} prepares images as its weights' own config "
                "says; expected null"
            )
        if kind.reads_embeddings and self.languages:
            yield "languages: setup siglit reads the captions that were embedded with the images; expected none"

    def _loss(self) -> Iterator[str]:
        """Fewer than one negative a positive is no choice of negatives: the threshold would be one of chance."""
        kind, share = LOSSES[self.loss], self.negatives_share
        if not kind.has_bias and self.init_logit_bias is not None:
            yield f"init_logit_bias: the {kind.name} loss has no bias; expected null with loss {kind.name}"
        if not kind.chooses_negatives and self.negatives != "all":
            yield f"negatives {self.negatives}: the {kind.name} loss takes all; expected all with loss {kind.name}"
        if self.negatives == "all" and share != 1:
            yield f"negatives_share {share:g} with negatives all; expected random, hard or easy"
        if self.negatives != "all" and self.batch_size == 1:
            yield f"negatives {self.negatives} with batch_size 1: a batch of one pair has no negatives"
        if self.negatives != "all" and (kept := share * (self.batch_size - 1)) < 1:
            yield (
                f"negatives_share {share:g} keeps {kept:.2g} negatives a positive at batch_size "
                f"{self.batch_size:,}, less than one; expected {_rounded_up(1 / (self.batch_size - 1))} or more"
            )
        if self.init_logit_bias is None and not self.learn_logit_bias:
            yield "learn_logit_bias: there is no bias to hold still; expected a number in init_logit_bias"

    def _corruption(self) -> Iterator[str]:
        kind, probability = self.corruption, self.corruption_probability
        if kind == "none" and probability:
            yield (
                f"corruption_probability {probability:g} with corruption none; expected one of "
                f"{', '.join(CORRUPTIONS[1:])}, or corruption_probability 0"
            )
        if kind != "none" and not probability:
            yield f"corruption {kind} with corruption_probability 0: corrupts nothing; expected more than 0"
        if "image" in kind and self.reads_embeddings:
            yield (
                f"corruption {kind}: siglit's images are embeddings made beforehand; expected text or batch, "
                "or another setup"
            )
        if "batch" in kind and round(probability * self.batch_size) < 2:
            yield (
                f"corruption_probability {probability:g} of batch_size {self.batch_size:,} is less than the two pairs "
                f"that can be shuffled; expected {_rounded_up(2 / self.batch_size)} or more"
            )

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> "RunSpec":
        """A spec from plain values. Raises InputError naming `where`, the key, and the nearest that works."""
        if (found := values.get("format", FORMAT)) != FORMAT:
            raise InputError(f"{where}: format {found}; this version of repro reads format {FORMAT}")
        return validated(cls, values, where)

    @property
    def trains(self) -> bool:
        return not SETUPS[self.setup].evaluates_only

    @property
    def reads_embeddings(self) -> bool:
        return SETUPS[self.setup].reads_embeddings

    @property
    def steps(self) -> int:
        return self.examples_seen // self.batch_size

    @property
    def log_every(self) -> int:
        """Steps from one log line to the next."""
        return max(1, self.steps // LOG_LINES)

    def check_ranks(self, ranks: int) -> None:
        """Raises InputError where the batch cannot be dealt to the ranks, or a rank's share to micro-batches."""
        if self.batch_size % ranks:
            raise InputError(f"batch_size {self.batch_size:,} cannot be divided among {ranks} ranks")
        local = self.batch_size // ranks
        if local > self.micro_batch and local % self.micro_batch:
            raise InputError(
                f"micro_batch {self.micro_batch:,} does not divide the local batch {local:,} "
                f"(batch_size {self.batch_size:,} over {ranks} ranks)"
            )

    @property
    def spec_hash(self) -> str:
        """Eight hexadecimal digits of all that is not the default, places aside."""
        values = self.model_dump(exclude=set(PLACES), exclude_defaults=True) | {"format": FORMAT}
        if self.model_fingerprint:
            del values["model"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def run_id(self) -> str:
        """Readable, and unique by the hash: siglip-sigmoid-bs1024-65.5k-s0-3f2a91c4."""
        examples = format_examples(self.examples_seen)
        return f"{self.setup}-{self.loss}-bs{self.batch_size}-{examples}-s{self.seed}-{self.spec_hash}"

    @property
    def label(self) -> str:
        """The fields that usually differ within a sweep, for progress lines: 'sigmoid 1k s0'."""
        return f"{self.loss} {format_batch_size(self.batch_size)} s{self.seed}"


def labels(specs: Sequence[RunSpec]) -> list[str]:
    """Labels that distinguish the runs of a sweep: 'sigmoid 1k s0', then fields that differ where these do not."""
    rows = [dict(spec) for spec in specs]
    told = differing(rows)
    return [
        " ".join([spec.label, *(told_value(name, row[name]) for name in told)])
        for spec, row in zip(specs, rows, strict=True)
    ]


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields in which runs of the same loss, batch size and seed differ. rows: fields of specs, by name."""
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row.get("loss"), row.get("batch_size"), row.get("seed")), []).append(row)
    fields = [name for name in RunSpec.model_fields if name not in HIDDEN_FIELDS]
    return [name for name in fields if any(len({str(r.get(name)) for r in group}) > 1 for group in groups.values())]


def told_value(name: str, value: Any) -> str:
    """A field's value in few characters."""
    if value is None or value in ("", ()) or value != value:  # a table's missing value is NaN
        return "none"
    if name == "examples_seen":
        return format_examples(value)
    if name in PLACES:
        value = value.rstrip("/").rpartition("/")[2]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rounded_up(share: float) -> str:
    """0.00782 for 1/128: three digits, none of them too small."""
    step = 10.0 ** (math.floor(math.log10(share)) - 2)
    return f"{math.ceil(share / step) * step:.3g}"


def _nearest_divisor(number: int, to: int) -> int:
    divisors = [d for d in range(1, min(number, 2 * to) + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(d - to))
