"""Every column of a published table, its unit and meaning: the data card's dictionary.

A field of a run is described where it is declared, in repro.config.spec.
"""

import re

from repro.config.spec import RunSpec

UNITS = {
    **dict.fromkeys(("batch_size", "examples_seen", "micro_batch", "micro_batch_used", "local_batch"), "examples"),
    **dict.fromkeys(("warmup_examples", "examples_seen_at", "evaluate_at"), "examples"),
    **dict.fromkeys(("max_bad_share", "corruption_probability", "negatives_share", "max_loss_share"), "0 to 1"),
    **dict.fromkeys(("data_wait_share", "checkpoint_share"), "0 to 1"),
    **dict.fromkeys(("final_loss", "training_loss"), "nats"),
    **{"examples_per_second": "examples/s", "time": "s", "finished_at": "ISO 8601, UTC", "date": "ISO 8601"},
    **{"shuffle_shards": "shards", "token_bottleneck": "columns", "threads": "threads", "steps": "steps"},
    **{"ranks": "processes", "bad_samples": "samples"},
}
"""For the others the name's end says it: _seconds, _bytes."""
COLUMNS = {
    "run_id": "the run: setup, loss, batch size, examples seen, seed, and a hash of all that is not the default",
    "sweep": "the sweep that the run belongs to",
    "setup": "siglip: both towers from scratch; siglit: frozen image tower; msiglip: several languages; finetune: "
    "pretrained image tower; released: evaluation only",
    "scale": "laptop, gpu or paper: the size of the recipe",
    "loss": "sigmoid or softmax",
    "status": "what became of the run; see Statuses",
    "reason": "why, where the run did not finish",
    "examples_per_second": "training speed, evaluation not counted",
    "step_seconds": "mean time of an optimizer step",
    "peak_memory_bytes": "most memory of a rank: of the process on CPUs, of the device on GPUs",
    "final_logit_scale": "temperature t = exp(t') at the end",
    "final_logit_bias": "bias b at the end; empty where there is none",
    "data_fingerprint": "content of the training data",
    "evaluate_at": "examples seen after which the run was evaluated on the way",
    "model_fingerprint": "content of the model config",
    "precision": "of training: fp32 or bf16",
    "pretrained_fingerprint": "content of these weights",
    "embeddings": "folder of precomputed embeddings (siglit); empty for the default place",
    "init_logit_bias": "b at the start; empty where there is none",
    "learn_logit_bias": "whether b is learnt",
    "negatives": "which negatives count: all, random, hard or easy",
    "optimizer": "adamw, adafactor (big_vision's variant) or lion",
    "image_weight_decay": "of the image tower; empty: as weight_decay",
    "grad_clip": "largest norm of the gradient; empty for no limit",
    "max_loss_ratio": "a loss above this many times the first is divergence; empty for never",
    "max_loss_share": "of the run's steps for which it must stay so",
    "micro_batch_used": "micro_batch, after it was halved where memory ran out",
    "learning_rate": "at the peak of the schedule",
    "text_learning_rate_multiplier": "of the text tower",
    "text_weight_decay": "of the text tower; empty: as weight_decay",
    **dict.fromkeys(("beta1", "beta2", "epsilon"), "of the optimizer"),
    "schedule": "of the learning rate: cosine, linear or constant",
    "warmup_examples": "over which the learning rate rises",
    "spec_hash": "of all that determines the result",
    "steps": "optimizer steps made",
    "data_seconds": "of a mean step: waiting for data",
    "towers_seconds": "of a mean step: forward and backward passes of both towers",
    "loss_seconds": "of a mean step: the loss and its gradients",
    "exchange_seconds": "of a mean step: waiting for other ranks, and averaging gradients over them",
    "optimizer_seconds": "of a mean step: the optimizer",
    "other_seconds": "of a mean step: the rest; the six sum to step_seconds",
    "data_wait_share": "of training time spent waiting for data",
    "final_loss": "training loss of the last logged step",
    "final_positive_logit": "mean logit of matching pairs, last logged step",
    "final_negative_logit": "mean logit of all other pairs, last logged step",
    "checkpoint_share": "of training time spent on checkpoints",
    "ranks": "that trained together",
    "bad_samples": "that could not be used",
    "finished_at": "when the run ended",
    "git_commit": "of the code that made the run",
    "git_dirty": "whether that code had uncommitted changes",
    "host": "name of the machine",
    "machine": "processor and cores",
    "gpu": "empty where there is none",
    "command": "the command that made the run",
    "examples_seen_at": "seen when this row was measured",
    "training_loss": "of this logged step",
    "gradient_norm": "L2 norm of the gradient before clipping",
    "parameter_norm": "L2 norm of all parameters",
    "update_norm": "L2 norm of the step's update",
    "logit_scale": "temperature t = exp(t')",
    "logit_bias": "bias b",
    "positive_logit": "mean logit of matching pairs",
    "negative_logit": "mean logit of all other pairs",
    "step": "optimizer steps made; in capacity: sizes tried are multiples of it, 0 for powers of two",
    "time": "since 1970, when the line was logged",
    "local_batch": "of one rank; the largest that fits, in capacity",
    "dim": "width of the embeddings",
    "dtype": "precision of the embeddings",
    "device": "cpu or cuda",
    "implementation": "whose code of the loss was measured",
    "memory_limit_bytes": "that the measurement was allowed",
    "date": "of the measurement",
    "origin": "under which name the row was imported; empty for runs of this project",
    "source_file": "the file that it was imported from",
}
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
    (r"(.*)", "{0}"),
)


def describe(column: str) -> tuple[str, str] | None:
    """Unit and meaning; None for a column that nobody described."""
    dataset, _, metric = column.rpartition("/")
    if dataset:
        pattern, text = next(each for each in METRICS if re.fullmatch(each[0], metric))
        words = text.format(*(word.replace("_", " ") for word in re.fullmatch(pattern, metric).groups()))
        return "0 to 1", f"{words}, on {dataset}" + " (mean over languages)" * dataset.endswith("_mean")
    field = RunSpec.model_fields.get(column)
    meaning = COLUMNS.get(column) or (field and field.description)
    if column.endswith("_version"):
        meaning = f"version of {column.removesuffix('_version')}"
    end = {"seconds": "s", "bytes": "bytes"}.get(column.rpartition("_")[2], "")
    return (UNITS.get(column, end), meaning) if meaning else None
