"""How many images and texts the evaluations of a run have."""

from repro.config.spec import RunSpec
from repro.data.eval_sets import MULTILINGUAL, dataset_name, languages_of, split_shots, world_sets
from repro.world.scenes import CLASSES
from repro.world.write import CLASSIFICATION_IMAGES, RETRIEVAL_IMAGES, TEMPLATES

SIZES = {
    "imagenet1k": (50_000, 80_000),
    "imagenetv2": (10_000, 80_000),
    "imagenet-a": (7_500, 16_000),
    "imagenet-r": (30_000, 16_000),
    "objectnet": (18_574, 9_040),
    "cifar100": (10_000, 1_800),
    "pets": (3_669, 37),
    "mscoco_captions": (5_000, 25_000),
    "flickr30k": (1_000, 5_000),
    "flickr8k": (1_000, 5_000),
    "crossmodal3600": (3_600, 7_260),
    "xtd10": (1_000, 1_000),
}
"""Images, and texts with all templates, of clip-benchmark's test splits; of those in many languages, of one."""


def eval_size(name: str, data: str) -> tuple[int, int] | None:
    """Images and texts of one evaluation; None where they are not known here. Images of several languages once."""
    base, shots = split_shots(name)
    if sets := world_sets(base, data):
        if shots:
            return CLASSIFICATION_IMAGES + shots * len(CLASSES), 0
        texts = len(TEMPLATES) * len(CLASSES) + RETRIEVAL_IMAGES * (len(sets) - 1)
        return CLASSIFICATION_IMAGES + RETRIEVAL_IMAGES, texts
    known = SIZES.get(dataset_name(base).removeprefix("wds_").removeprefix("vtab_"))
    if known is None or shots:
        return known and (known[0], 0)
    return known[0], known[1] * (len(languages_of(base)) if base in MULTILINGUAL else 1)


def unknown_evals(spec: RunSpec) -> list[str]:
    """Evaluations whose size is not known here, and so not counted."""
    return [name for name in spec.evals if eval_size(name, spec.data) is None]


def evaluated(spec: RunSpec) -> tuple[int, int]:
    """Images and texts of all evaluations of a run, also of those during training."""
    sizes = [eval_size(name, spec.data) or (0, 0) for name in spec.evals]
    times = 1 + sum(0 < at < spec.examples_seen for at in spec.evaluate_at)
    return times * sum(images for images, _ in sizes), times * sum(texts for _, texts in sizes)
