"""What other projects call data sets and metrics → clip-benchmark's names, which are ours."""

import re

from repro.data.eval_sets import MULTILINGUAL

DATASETS = {
    **dict.fromkeys(
        ("imagenet", "imagenet2012", "imagenet-1k", "imagenet_1k", "in1k", "i1k", "ilsvrc2012"), "imagenet1k"
    ),
    **dict.fromkeys(("imagenet_v2", "imagenet-v2"), "imagenetv2"),
    "imagenet_a": "imagenet-a",
    "imagenet_r": "imagenet-r",
    "imagenet-sketch": "imagenet_sketch",
    "imagenet2012_real": "imagenet1k_real",
    "imagenet2012_minival": "imagenet1k_minival",
    **dict.fromkeys(("coco", "coco_captions", "mscoco"), "mscoco_captions"),
    **dict.fromkeys(("flickr", "flickr30k_captions"), "flickr30k"),
    "xm3600": "crossmodal3600",
}
_ACCURACY = re.compile(
    r"(lp_)?(\d+shot_)?acc\d*|\w*recall@\d+|(lp_)?mean_per_class_recall|mean_average_precision|\w+_acc(uracy)?|accuracy"
)


def is_accuracy(metric: str) -> bool:
    """Whether a metric goes from 0 to 1, as accuracies and recalls do; ranks, losses and captions' scores do not."""
    return _ACCURACY.fullmatch(metric) is not None


def is_metric(column: str) -> bool:
    """Whether a column is a metric as our table names them: <dataset>/<metric>."""
    dataset, _, metric = column.rpartition("/")
    return bool(dataset) and is_accuracy(metric)


def dataset(name: str, language: str = "en") -> str:
    """'wds/vtab/cifar100' → 'vtab_cifar100'; of a set in several languages the language too: 'crossmodal3600_de'."""
    name = re.sub("[/:]", "_", name.removeprefix("wds/"))
    name = DATASETS.get(name.lower(), name)
    told = language != "en" or name in MULTILINGUAL
    return f"{name}_{language}" if told and not name.endswith(f"_{language}") else name
