"""Calibrate this machine for `repro plan`: a few short runs, and what each quantity of work costs that explains them.

Costs are fitted by least squares of the relative error, none of them negative (Lawson and Hanson). The losses are
timed alone, at two embedding dimensions: in short runs of small batches they would be lost beside the towers.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from repro.bench import record
from repro.bench.stopwatch import Reading, read
from repro.config.errors import InputError
from repro.config.layout import Layout
from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, expand, load_sweep
from repro.estimate.machine import Machine
from repro.estimate.memory import memory_parts
from repro.estimate.seconds import evaluation_counts, evaluation_seconds, loss_seconds
from repro.estimate.work import Work, work_of
from repro.launch.complete import complete, prepare_data
from repro.loss.registry import LOSSES
from repro.models.model_config import read_config, vocabulary_file
from repro.models.sizes import ModelSize, model_size

DATA = "shapes:65536"
DIMS = (64, 512)
LOSS_BATCH = 2048
ROUNDS = 2

Case = Mapping[str, Any]
"""Fields of a spec, with `steps` in place of examples_seen; model (width, layers, words) is one made for this."""

CPU_CASES: tuple[Case, ...] = (
    {"batch_size": 32, "steps": 60},
    {"batch_size": 32, "steps": 600},
    {"batch_size": 128, "steps": 40},
    {"batch_size": 512, "steps": 20, "evals": ("shapes",)},
    {"batch_size": 1024, "micro_batch": 64, "steps": 8},
    {"batch_size": 64, "steps": 16, "model": (192, 4, 8706)},
    {"batch_size": 256, "steps": 7, "model": (192, 4, 8706)},
    {"batch_size": 64, "steps": 25, "model": (64, 2, 40_000)},
    {"batch_size": 64, "steps": 20, "model": (192, 4, 8706), "optimizer": "adafactor"},
    {"batch_size": 256, "steps": 20, "precision": "bf16"},
    {"batch_size": 128, "steps": 12, "precision": "bf16", "model": (192, 4, 8706)},
)
GPU_CASES: tuple[Case, ...] = (
    {"batch_size": 256, "steps": 40, "evals": ("shapes",)},
    *(
        {"batch_size": batch_size, "micro_batch": 256, "steps": 12, "model": model, "precision": precision}
        for precision in ("fp32", "bf16")
        for model, batch_size in (
            ("siglip-s16-128", 64),
            ("siglip-s16-128", 512),
            ("siglip-b16", 64),
            ("siglip-b16", 128),
        )
    ),
    {"batch_size": 128, "steps": 12, "model": "siglip-b16", "precision": "bf16", "optimizer": "adafactor"},
)
TIMES = (
    ("step_seconds", None, lambda spec, work: 1.0),
    ("operation_seconds", None, lambda spec, work: work.operations),
    ("flop_seconds", "fp32", lambda spec, work: work.tower_flops * (spec.precision == "fp32")),
    ("byte_seconds", "fp32", lambda spec, work: work.moved_bytes * (spec.precision == "fp32")),
    ("flop_seconds", "bf16", lambda spec, work: work.tower_flops * (spec.precision == "bf16")),
    ("byte_seconds", "bf16", lambda spec, work: work.moved_bytes * (spec.precision == "bf16")),
    ("parameter_seconds", "adamw", lambda spec, work: work.learning * (spec.optimizer == "adamw")),
    ("parameter_seconds", "adafactor", lambda spec, work: work.learning * (spec.optimizer == "adafactor")),
    ("logged_parameter_seconds", None, lambda spec, work: work.logged),
    ("input_byte_seconds", None, lambda spec, work: work.input_bytes),
)
"""A field of Machine (and its key, where it has several), and the quantity of a step whose cost it is."""
MEMORY = (
    ("process_bytes", ("process",)),
    ("state_factor", ("weights", "optimizer", "copies")),
    ("activation_factor", ("activations",)),
    ("input_factor", ("batch",)),
)
"""A field of Machine, and the parts of the memory that it multiplies."""


def calibrate(report: Callable[[str], None], rounds: int = ROUNDS) -> Machine:
    """Raises InputError where a run fails. Imports torch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="repro-calibrate-") as folder:
        specs = [spec_of(case, Path(folder)) for case in (GPU_CASES if device == "cuda" else CPU_CASES)]
        sizes = {spec.model: model_size(spec.model) for spec in specs}
        prepare_data(specs, 1)
        readings = read_all(specs, rounds, report)
        losses = loss_costs(device)
        report("a run forked by a sweep")
        forked = forked_bytes(specs[0])
    origin = record.origin(device)
    versions = f"torch {origin['torch_version']}, {origin['date']}"
    blank = Machine(origin["machine"], f"measured with {versions}", {}, {}, on_gpu=device == "cuda", **losses)
    machine = fit(specs, readings, sizes, blank)
    shared = readings[0].peak_memory_bytes - forked
    return replace_some(machine, forked_process_bytes=machine.process_bytes - shared)


def spec_of(case: Case, folder: Path) -> RunSpec:
    """A laptop run of these values, with a model made in `folder` where it names one by its sizes."""
    values = {"loss": "sigmoid", "evals": (), "micro_batch": 512, "warmup_examples": 0, "max_loss_ratio": None}
    values |= {"data": DATA, "threads": 1} | dict(case)
    values["examples_seen"] = values.pop("steps") * values["batch_size"]
    if isinstance(values.get("model"), tuple):
        values["model"] = str(make_model(*values["model"], folder))
    (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({}, values)))
    return spec


def make_model(width: int, layers: int, words: int, folder: Path) -> Path:
    """The laptop model's config with towers of another size and a longer token table."""
    config, source = read_config("laptop")
    model = config["model_cfg"]
    model["embed_dim"] = width
    model["vision_cfg"] |= {"width": width, "layers": layers}
    model["text_cfg"] |= {"width": width, "layers": layers, "heads": width // 32, "vocab_size": words}
    model["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(vocabulary_file(config, source))
    file = folder / f"width-{width}-layers-{layers}-words-{words}.json"
    file.write_text(json.dumps(config))
    return file


def read_all(specs: Sequence[RunSpec], rounds: int, report: Callable[[str], None]) -> list[Reading]:
    """Of each spec the least time of `rounds`, in turn, and the median of the memory."""
    found: list[list[Reading]] = [[] for _ in specs]
    for number in range(rounds):
        for spec, readings in zip(specs, found, strict=True):
            report(f"round {number + 1} of {rounds}: {spec.label}, {Path(spec.model).stem}, {spec.precision}")
            readings.append(read(spec))
    return [_best(readings) for readings in found]


def _best(readings: Sequence[Reading]) -> Reading:
    values = {name: min(asdict(reading)[name] for reading in readings) for name in asdict(readings[0])}
    memory = statistics.median(reading.peak_memory_bytes for reading in readings)
    return Reading(**values | {"peak_memory_bytes": int(memory)})


def seconds_of(reading: Reading, machine: Machine) -> float:
    """Of a step: by the clock on a GPU, of the processor on CPUs."""
    return reading.step_seconds if machine.on_gpu else reading.step_cpu_seconds


def fit(
    specs: Sequence[RunSpec], readings: Sequence[Reading], sizes: Mapping[str, ModelSize], blank: Machine
) -> Machine:
    """blank: a machine of which only the losses are known."""
    works = [work_of(spec, sizes[spec.model], 1) for spec in specs]
    costs = _fit_times(specs, works, readings, blank)
    factors = _fit_memory(specs, readings, sizes, blank)
    start = min(reading.start_cpu_seconds for reading in readings)
    machine = replace_some(blank, **costs, **factors, start_seconds=start)
    return replace_some(machine, evaluated_example_seconds=_evaluated(specs, readings, sizes, machine))


def replace_some(machine: Machine, **values: Any) -> Machine:
    return Machine(**asdict(machine) | values)


def _fit_times(
    specs: Sequence[RunSpec], works: Sequence[Work], readings: Sequence[Reading], blank: Machine
) -> dict[str, Any]:
    fp32 = [spec.model_copy(update={"precision": "fp32"}) for spec in specs]  # what bf16 saves them is lost in towers
    losses = [loss_seconds(spec, work, blank) for spec, work in zip(fp32, works, strict=True)]
    seconds = [seconds_of(reading, blank) - loss for reading, loss in zip(readings, losses, strict=True)]
    quantities = [[quantity(spec, work) for _, _, quantity in TIMES] for spec, work in zip(specs, works, strict=True)]
    costs: dict[str, Any] = {}
    for (field, key, _), cost in zip(TIMES, non_negative(quantities, seconds), strict=True):
        if key is None:
            costs[field] = cost
        else:
            costs.setdefault(field, {})[key] = cost
    costs["parameter_seconds"]["lion"] = costs["parameter_seconds"]["adamw"]
    return costs


def _fit_memory(
    specs: Sequence[RunSpec], readings: Sequence[Reading], sizes: Mapping[str, ModelSize], blank: Machine
) -> dict[str, float]:
    """With factors of one a part is its bytes."""
    ones = replace_some(blank, process_bytes=1.0)
    parts = [memory_parts(spec, Layout(1, 1), sizes[spec.model], ones) for spec in specs]
    fitted = {part for _, names in MEMORY for part in names}
    rest = [sum(count for name, count in each.items() if name not in fitted) for each in parts]
    bytes_held = [reading.peak_memory_bytes - other for reading, other in zip(readings, rest, strict=True)]
    quantities = [[sum(each[name] for name in names) for _, names in MEMORY] for each in parts]
    return {field: cost for (field, _), cost in zip(MEMORY, non_negative(quantities, bytes_held), strict=True)}


def non_negative(quantities: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Costs of the quantities [runs, kinds] that explain what was measured [runs]; relative errors weigh alike."""
    matrix, values = np.asarray(quantities, float), np.asarray(measured, float)
    largest = np.where(matrix.max(0) > 0, matrix.max(0), 1.0)
    costs, _ = nnls(matrix / largest / values[:, None], np.ones(len(values)))
    return (costs / largest).tolist()


def _evaluated(
    specs: Sequence[RunSpec], readings: Sequence[Reading], sizes: Mapping[str, ModelSize], machine: Machine
) -> float:
    """Seconds of an example in an evaluation, beside the towers."""
    spec, reading = next((s, r) for s, r in zip(specs, readings, strict=True) if s.evals)
    nothing = min(reading.evaluation_cpu_seconds for reading in readings)
    towers = evaluation_seconds(spec, sizes[spec.model], machine)
    return max(0.0, reading.evaluation_cpu_seconds - nothing - towers) / sum(evaluation_counts(spec))


def loss_costs(device: str) -> dict[str, dict[str, float]]:
    """Seconds of a FLOP of each loss's products, and of a pair beside them: from two dimensions, on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = {
            (loss, dim): min(_loss_seconds(loss, dim, device) for _ in range(3)) for loss in LOSSES for dim in DIMS
        }
    finally:
        torch.set_num_threads(threads)
    pairs, flops = LOSS_BATCH**2, {name: kind.flops for name, kind in LOSSES.items()}
    products = {
        loss: max(0.0, seconds[loss, DIMS[1]] - seconds[loss, DIMS[0]]) / (pairs * flops[loss] * (DIMS[1] - DIMS[0]))
        for loss in LOSSES
    }
    beside = {
        loss: max(0.0, seconds[loss, DIMS[0]] / pairs - flops[loss] * DIMS[0] * products[loss]) for loss in LOSSES
    }
    return {"loss_flop_seconds": products, "pair_seconds": beside}


def _loss_seconds(loss: str, dim: int, device: str) -> float:
    import torch
    import torch.nn.functional as F

    images, texts = (
        F.normalize(torch.randn(LOSS_BATCH, dim, device=device), dim=-1).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(10.0, device=device, requires_grad=True)
    call = LOSSES[loss].make()
    clock = time.process_time if device == "cpu" else time.perf_counter
    found = []
    for _ in range(2):
        began = clock()
        call(images, texts, scale, scale - 20 if LOSSES[loss].has_bias else None).backward()
        float(images.grad.sum())  # waits for a GPU
        found.append(clock() - began)
    return found[-1]


def forked_bytes(spec: RunSpec) -> int:
    """Peak memory of a run as `repro sweep` starts it, forked from a process that has imported all."""
    from repro.launch import Cell, JobSettings, launch

    with tempfile.TemporaryDirectory(prefix="repro-forked-") as folder:
        cell = Cell.of(spec, Path(folder), "calibrate")
        launch([cell], JobSettings(), "local", 1, False, lambda *_: None, lambda *_: None)
        result = cell.directory.read_result() or {"status": "failed", "reason": "ended without a result"}
    if result["status"] != "finished":
        raise InputError(f"the run to measure {result['status']}: {result['reason']}")
    return result["peak_memory_bytes"]
