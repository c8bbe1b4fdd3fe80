"""What every column of a published table holds, in which unit: the data card's dictionary."""

import re
from collections.abc import Iterable

COLUMNS: dict[str, tuple[str, str]] = {
    "run_id": ("", "the run: setup, loss, batch size, examples seen, seed, and a hash of all that is not the default"),
    "sweep": ("", "the sweep that the run belongs to"),
    "setup": (
        "",
        "siglip: both towers from scratch; siglit: frozen image tower; msiglip: several languages; finetune: "
        "pretrained image tower; released: evaluation only",
    ),
    "scale": ("", "laptop, gpu or paper: the size of the recipe"),
    "loss": ("", "sigmoid or softmax"),
    "batch_size": ("examples", "of one optimizer step, over all ranks"),
    "examples_seen": ("examples", "training length; steps are examples seen ÷ batch size"),
    "seed": ("", "of initial weights and sample order"),
    "status": ("", "what became of the run; see Statuses"),
    "reason": ("", "why, where the run did not finish"),
    "examples_per_second": ("examples/s", "training speed, evaluation not counted"),
    "step_seconds": ("s", "mean time of an optimizer step"),
    "peak_memory_bytes": ("bytes", "most memory of a rank: of the process on CPUs, of the device on GPUs"),
    "final_logit_scale": ("", "temperature t = exp(t') at the end"),
    "final_logit_bias": ("", "bias b at the end; empty where there is none"),
    "data": ("", "training data: shapes:EXAMPLES is the embedded world, else a pattern of shards"),
    "data_fingerprint": ("", "content of the training data"),
    "shuffle_shards": ("shards", "samples are shuffled within windows of this many"),
    "max_bad_share": ("0 to 1", "share of bad samples above which the run fails"),
    "languages": ("", "of the captions trained on; empty for any"),
    "corruption": ("", "what of the training data is corrupted"),
    "corruption_probability": ("0 to 1", "of an image or text to be corrupted; of the batch's alignment, the share"),
    "evaluate_at": ("examples", "examples seen after which the run was evaluated on the way"),
    "model": ("", "model config, by its name"),
    "model_fingerprint": ("", "content of the model config"),
    "precision": ("", "of training: fp32 or bf16"),
    "deterministic": ("", "whether a GPU run was held to the same bits each time, at some cost of speed"),
    "token_bottleneck": ("columns", "K, where the token embedding is a product of two tables; empty for none"),
    "pretrained": ("", "weights that the image tower starts from, or that are evaluated"),
    "pretrained_fingerprint": ("", "content of these weights"),
    "embeddings": ("", "folder of precomputed embeddings (siglit); empty for the default place"),
    "exchange": ("", "how ranks see each other's embeddings: ring, ring-bidirectional or gather"),
    "init_logit_scale": ("", "t', the logarithm of the temperature, at the start"),
    "init_logit_bias": ("", "b at the start; empty where there is none"),
    "learn_logit_bias": ("", "whether b is learnt"),
    "negatives": ("", "which negatives count: all, random, hard or easy"),
    "negatives_share": ("0 to 1", "of all negatives of the batch"),
    "micro_batch": ("examples", "at most this many pass a tower at once on a rank"),
    "micro_batch_used": ("examples", "the same, after it was halved where memory ran out"),
    "threads": ("threads", "CPU threads of a rank"),
    "optimizer": ("", "adamw, adafactor (big_vision's variant) or lion"),
    "learning_rate": ("", "at the peak of the schedule"),
    "weight_decay": ("", "share of a weight lost a step at the peak of the schedule"),
    "image_learning_rate_multiplier": ("", "of the image tower; 0: it is locked"),
    "text_learning_rate_multiplier": ("", "of the text tower"),
    "image_weight_decay": ("", "of the image tower; empty: as weight_decay"),
    "text_weight_decay": ("", "of the text tower; empty: as weight_decay"),
    "beta1": ("", "of the optimizer"),
    "beta2": ("", "of the optimizer"),
    "epsilon": ("", "of the optimizer"),
    "schedule": ("", "of the learning rate: cosine, linear or constant"),
    "warmup_examples": ("examples", "over which the learning rate rises"),
    "grad_clip": ("", "largest norm of the gradient; empty for no limit"),
    "max_loss_ratio": ("", "a loss above this many times the first is divergence; empty for never"),
    "max_loss_share": ("0 to 1", "of the run's steps for which it must stay so"),
    "spec_hash": ("", "of all that determines the result"),
    "steps": ("steps", "optimizer steps made"),
    "data_seconds": ("s", "of a mean step: waiting for data"),
    "towers_seconds": ("s", "of a mean step: forward and backward passes of both towers"),
    "loss_seconds": ("s", "of a mean step: the loss and its gradients"),
    "exchange_seconds": ("s", "of a mean step: waiting for other ranks, and averaging gradients over them"),
    "optimizer_seconds": ("s", "of a mean step: the optimizer"),
    "other_seconds": ("s", "of a mean step: the rest; the six sum to step_seconds"),
    "data_wait_share": ("0 to 1", "of training time spent waiting for data"),
    "final_loss": ("nats", "training loss of the last logged step"),
    "final_positive_logit": ("", "mean logit of matching pairs, last logged step"),
    "final_negative_logit": ("", "mean logit of all other pairs, last logged step"),
    "checkpoint_share": ("0 to 1", "of training time spent on checkpoints"),
    "ranks": ("processes", "that trained together"),
    "bad_samples": ("samples", "that could not be used"),
    "finished_at": ("ISO 8601, UTC", "when the run ended"),
    "git_commit": ("", "of the code that made the run"),
    "git_dirty": ("", "whether that code had uncommitted changes"),
    "host": ("", "name of the machine"),
    "machine": ("", "processor and cores"),
    "gpu": ("", "empty where there is none"),
    "command": ("", "the command that made the run"),
    "examples_seen_at": ("examples", "seen when this row was measured"),
    "training_loss": ("nats", "of this logged step"),
    "gradient_norm": ("", "L2 norm of the gradient before clipping"),
    "parameter_norm": ("", "L2 norm of all parameters"),
    "update_norm": ("", "L2 norm of the step's update"),
    "logit_scale": ("", "temperature t = exp(t')"),
    "logit_bias": ("", "bias b"),
    "positive_logit": ("", "mean logit of matching pairs"),
    "negative_logit": ("", "mean logit of all other pairs"),
    "step": ("", "optimizer steps made; in capacity: sizes tried are multiples of it, 0 for powers of two"),
    "time": ("s", "since 1970, when the line was logged"),
    "local_batch": ("examples", "of one rank; the largest that fits, in capacity"),
    "dim": ("", "width of the embeddings"),
    "dtype": ("", "precision of the embeddings"),
    "device": ("", "cpu or cuda"),
    "implementation": ("", "whose code of the loss was measured"),
    "memory_limit_bytes": ("bytes", "that the measurement was allowed"),
    "date": ("ISO 8601", "of the measurement"),
    "origin": ("", "under which name the row was imported; empty for runs of this project"),
    "source_file": ("", "the file that it was imported from"),
}
"""Column → unit ('' where it has none) and meaning."""

STATUSES = {
    "finished": "trained and evaluated to the end",
    "pending": "not begun",
    "queued": "waits for the scheduler",
    "running": "at work when the table was made",
    "interrupted": "stopped; goes on from its checkpoint when asked again",
    "cancelled": "stopped by a person",
    "failed": "ended by an error, which is the reason",
    "killed": "ended from outside, for example by the system for its memory",
    "oom": "needs more memory than there is",
    "diverged": "the loss is no finite number, or stays far above where it began",
    "bad-data": "more samples of the data cannot be used than is allowed",
    "disk-full": "a file could not be written",
    "corrupt": "its directory cannot be read",
    "ok": "measured: this size fits, the next does not",
    "at least": "measured: this size fits, larger ones were not tried",
    "not run": "not measured; the reason says why",
}
METRICS = (
    (r"acc(\d+)", "zero-shot accuracy, top {0}"),
    (r"(\d+)shot_acc(\d+)", "accuracy of a linear probe on {0} images a class, top {1}"),
    (r"mean_per_class_recall", "zero-shot recall, mean over classes"),
    (r"image_retrieval_recall@(\d+)", "share of texts whose image is among the {0} nearest"),
    (r"text_retrieval_recall@(\d+)", "share of images with one of their texts among the {0} nearest"),
    (r"mean_recall@(\d+)", "mean of image and text recall among the {0} nearest"),
    (r"mean_average_precision", "mean average precision"),
)


def describe(column: str) -> tuple[str, str] | None:
    """Unit and meaning; None for a column that nobody described."""
    if column in COLUMNS:
        return COLUMNS[column]
    dataset, _, metric = column.rpartition("/")
    if dataset:
        for pattern, text in METRICS:
            if found := re.fullmatch(pattern, metric):
                over = " (mean over languages)" if dataset.endswith("_mean") else ""
                return "0 to 1", f"{text.format(*found.groups())}, on {dataset}{over}"
        return "0 to 1", f"{metric.replace('_', ' ')}, on {dataset}"
    if column.endswith("_version"):
        return "", f"version of {column.removesuffix('_version')}"
    return None


def undescribed(columns: Iterable[str]) -> list[str]:
    return [column for column in dict.fromkeys(columns) if describe(column) is None]
