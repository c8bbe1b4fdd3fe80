"""How long a run takes: its steps, its start, its evaluations."""

from repro.config.spec import RunSpec
from repro.data.eval_sets import MULTILINGUAL, dataset_name, languages_of, split_shots, world_sets
from repro.estimate.machine import Machine
from repro.estimate.needs import for_run
from repro.estimate.work import Work
from repro.models.sizes import ModelSize
from repro.world.scenes import CLASSES
from repro.world.write import CLASSIFICATION_IMAGES, RETRIEVAL_IMAGES, TEMPLATES

SIDE_BY_SIDE = 0.9
"""Of a processor that two towers side by side use, and threads that share a tower's operations. Assumed."""
WORLD_CLASSES = len(CLASSES)
WORLD_SET = (CLASSIFICATION_IMAGES, len(TEMPLATES) * WORLD_CLASSES)
WORLD_RETRIEVAL = (RETRIEVAL_IMAGES, RETRIEVAL_IMAGES)
"""Images and texts of the embedded world's sets."""
EVAL_SIZES = {
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


def step_seconds(spec: RunSpec, work: Work, machine: Machine) -> float:
    """By the clock, on a machine that has nothing else to do; messages between ranks are not counted."""
    return tower_seconds(spec, work, machine) + loss_seconds(spec, work, machine) + other_seconds(spec, work, machine)


def tower_seconds(spec: RunSpec, work: Work, machine: Machine) -> float:
    flop, byte = machine.flop_seconds[spec.precision], machine.byte_seconds[spec.precision]
    alone = work.tower_flops * flop + work.moved_bytes * byte + work.operations * machine.operation_seconds
    if machine.on_gpu or spec.threads == 1:
        return alone
    if not (work.image_flops and work.text_flops):  # one tower alone has all threads
        return alone / threads_of(spec, machine)
    larger = max(work.image_flops, work.text_flops) / work.tower_flops
    threads_each = 1 + SIDE_BY_SIDE * (spec.threads // 2 - 1)
    return alone * max(larger / threads_each, 1 / (SIDE_BY_SIDE * spec.threads))


def loss_seconds(spec: RunSpec, work: Work, machine: Machine) -> float:
    if spec.loss not in machine.loss_flop_seconds:
        flop = machine.flop_seconds[spec.precision]
    elif spec.precision == "bf16":
        flop = machine.loss_flop_seconds[spec.loss] * machine.flop_seconds["bf16"] / machine.flop_seconds["fp32"]
    else:
        flop = machine.loss_flop_seconds[spec.loss]
    alone = work.loss_flops * flop + work.pairs * machine.pair_seconds.get(spec.loss, 0.0)
    return alone / threads_of(spec, machine)


def other_seconds(spec: RunSpec, work: Work, machine: Machine) -> float:
    """Optimizer, log lines, reading the batch, and what every step costs."""
    parameters = work.learning * machine.parameter_seconds.get(spec.optimizer, 0.0)
    logged = work.logged * machine.logged_parameter_seconds
    data = work.input_bytes * machine.input_byte_seconds
    return (parameters + logged) / threads_of(spec, machine) + data + machine.step_seconds


def threads_of(spec: RunSpec, machine: Machine) -> float:
    return 1.0 if machine.on_gpu else max(1.0, SIDE_BY_SIDE * spec.threads)


def eval_size(name: str, data: str) -> tuple[int, int] | None:
    """Images and texts of one evaluation; None where they are not known here. Images of several languages once."""
    base, shots = split_shots(name)
    if sets := world_sets(base, data):
        if shots:
            return WORLD_SET[0] + shots * WORLD_CLASSES, 0
        return WORLD_SET[0] + WORLD_RETRIEVAL[0], WORLD_SET[1] + WORLD_RETRIEVAL[1] * (len(sets) - 1)
    known = EVAL_SIZES.get(dataset_name(base).removeprefix("wds_").removeprefix("vtab_"))
    if known is None or shots:
        return known and (known[0], 0)
    return known[0], known[1] * (len(languages_of(base)) if base in MULTILINGUAL else 1)


def unknown_evals(spec: RunSpec) -> list[str]:
    """Evaluations whose size is not known here, and so not counted."""
    return [name for name in spec.evals if eval_size(name, spec.data) is None]


def evaluation_counts(spec: RunSpec) -> tuple[int, int]:
    """Images and texts of all evaluations of a run, also of those on the way."""
    sizes = [eval_size(name, spec.data) or (0, 0) for name in spec.evals]
    times = 1 + sum(0 < at < spec.examples_seen for at in spec.evaluate_at)
    return times * sum(images for images, _ in sizes), times * sum(texts for _, texts in sizes)


def evaluation_seconds(spec: RunSpec, size: ModelSize, machine: Machine) -> float:
    """On one rank, in bf16 as clip-benchmark does it."""
    size, (images, texts) = for_run(spec, size), evaluation_counts(spec)
    flops = images * size.image_flops + texts * size.text_flops
    moved = images * size.image_kept_bytes + texts * size.text_kept_bytes
    towers = flops * machine.flop_seconds["bf16"] + moved * machine.byte_seconds["bf16"]
    return towers / threads_of(spec, machine) + (images + texts) * machine.evaluated_example_seconds
