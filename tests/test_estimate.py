"""What a run takes is predicted from counts that can be checked by hand, and from real state where there is some."""

import dataclasses

import pytest
import torch
from timm.optim import Lion

from repro import estimate
from repro.bench import traffic
from repro.bench.implementations import IMPLEMENTATIONS, Setting
from repro.config.cluster import JobGroup, Layout, load_profile, plan_jobs
from repro.config.errors import InputError
from repro.config.sweep import Overrides, expand, load_sweep
from repro.config.units import parse_batch_size
from repro.estimate import Prediction, check_memory, counts, crossover, least_bytes, totals
from repro.estimate.costs import OURS, Machine, Place, place_on, this_place
from repro.estimate.counts import pair_flops, parameters, passes, training_flops, work_of
from repro.models import build
from repro.models.sizes import model_size
from repro.train.optim import make_optimizer
from repro.train.state import size_bytes
from tests.ranks import on_ranks
from tests.test_jobs import K, nodes_of, paper

B16, LAPTOP = model_size("siglip-b16"), model_size("laptop")
ONE = Layout(1, 1)
MACHINE = Machine(
    name="a machine",
    origin="measured by hand",
    flop_seconds={"fp32": 1e-11, "bf16": 5e-12},
    byte_seconds={"fp32": 2e-10, "bf16": 1e-10},
    operation_seconds=2e-6,
    parameter_seconds={"adamw": 2e-9, "adafactor": 1e-9, "lion": 2e-9},
    logged_parameter_seconds=3e-9,
    step_seconds=1e-3,
    pair_seconds={"sigmoid": 1e-9, "softmax": 2e-9},
    loss_flop_seconds={"sigmoid": 6e-12, "softmax": 7e-12},
    start_seconds=4.0,
    evaluated_example_seconds=1e-4,
    process_bytes=800e6,
    state_factor=0.9,
    activation_factor=1.5,
)
GPU = dataclasses.replace(MACHINE, on_gpu=True, process_bytes=0.0, activation_factor=1.1)


def spec_with(batch_size=4 * K, **values):
    return paper(batch_size, **{"loss": "sigmoid", "examples_seen": 10**9} | values)[0]


def place(there=None, machine=GPU, **values):
    return Place("somewhere", machine, there, **values)


def on_the_cluster(specs, profile):
    return [
        Prediction(spec, group.layout, B16, place_on(profile, "gpu8", group.layout))
        for group in plan_jobs(specs, [8 * K] * len(specs), profile)
        for spec in group.specs
    ]


def siglit(spec):
    return spec.model_copy(update={"setup": "siglit"})


def test_a_step_is_counted_from_the_spec_and_the_models_size():
    work = work_of(spec_with(4 * K), B16, ranks=4)
    assert work.pairs == 1024 * 4 * K
    assert work.image_flops == 1024 * 4 * B16.image_flops  # two micro-batches: each embedded twice
    assert work.loss_flops == 6 * 768 * work.pairs
    assert work.operations == 2 * 4 * (B16.image_operations + B16.text_operations)
    assert work.trained == B16.parameters


def test_images_that_were_embedded_before_cost_no_pass_and_keep_nothing():
    work = work_of(siglit(spec_with(4 * K)), B16, ranks=8)
    assert (work.image_flops, work.text_flops) == (0, 512 * 3 * B16.text_flops)
    assert work.moved_bytes == 512 * 3 * B16.text_kept_bytes
    assert work.trained == B16.parameters - B16.image_parameters
    parts = estimate.memory_parts(siglit(spec_with(512, precision="fp32")), ONE, B16, GPU)
    assert parts["activations"] == pytest.approx(1.1 * 512 * B16.text_kept_bytes)


def test_a_step_takes_the_sum_of_what_its_parts_cost():
    spec = spec_with(512, precision="fp32", optimizer="adamw")
    lines = 1 / (spec.steps // 200)
    expected = (
        1e-11 * 3 * 512 * (LAPTOP.image_flops + LAPTOP.text_flops)
        + 2e-10 * 3 * 512 * (LAPTOP.image_kept_bytes + LAPTOP.text_kept_bytes)
        + 2e-6 * 3 * (LAPTOP.image_operations + LAPTOP.text_operations)
        + LAPTOP.parameters * (2e-9 + 3e-9 * lines)
        + 512**2 * (1e-9 + 6e-12 * 6 * 64)
        + 1e-3
    )
    on_one_thread = spec.model_copy(update={"threads": 1})
    assert estimate.step_seconds(on_one_thread, LAPTOP, 1, MACHINE) == pytest.approx(expected)
    assert estimate.step_seconds(spec.model_copy(update={"threads": 2}), LAPTOP, 1, MACHINE) < expected


def test_memory_is_the_sum_of_its_parts():
    spec = spec_with(512, precision="fp32", optimizer="adamw")
    parts = estimate.memory_parts(spec, ONE, LAPTOP, MACHINE)
    assert parts == {
        "process": 800e6,
        "weights": pytest.approx(0.9 * 8 * LAPTOP.parameters),
        "optimizer": pytest.approx(0.9 * 8 * LAPTOP.parameters),
        "activations": pytest.approx(1.5 * 512 * (LAPTOP.image_kept_bytes + LAPTOP.text_kept_bytes)),
        "copies": pytest.approx(0.9 * 8 * LAPTOP.parameters),
        "embeddings": 16 * 64 * 512,
        "batch": 512 * LAPTOP.input_bytes,
        "tile": 12 * 512 * 512,
    }
    assert estimate.peak_bytes(spec, ONE, LAPTOP, MACHINE) == pytest.approx(sum(parts.values()))


def test_on_a_gpu_copies_of_weights_find_room_where_activations_were():
    parts = estimate.memory_parts(spec_with(512), ONE, B16, GPU)
    assert parts["copies"] == 0 and parts["batch"] == 0
    assert estimate.memory_parts(spec_with(512, micro_batch=1), ONE, B16, GPU)["copies"] > 0


def test_the_largest_micro_batch_that_fits_is_found():
    spec, there = spec_with(4 * K), 20 * 2**30
    found = Prediction(spec, Layout(1, 8), B16, place(there)).largest_micro_batch
    needed = {
        size: estimate.peak_bytes(spec.model_copy(update={"micro_batch": size}), Layout(1, 8), B16, GPU)
        for size in (found, 2 * found)
    }
    assert needed[found] <= there < needed[2 * found]
    assert Prediction(spec, Layout(1, 8), B16, place(2**30)).largest_micro_batch is None


def test_released_weights_take_an_evaluation_and_no_step():
    spec = spec_with(512, evals=("imagenet1k",)).model_copy(update={"setup": "released", "examples_seen": 0})
    plan = Prediction(spec, ONE, B16, place())
    assert (plan.train_seconds, plan.tower_flops, plan.loss_flops, plan.sustained_flops) == (0, 0, 0, None)
    assert plan.seconds > 4 + 50_000 * B16.image_flops * 5e-12
    assert plan.memory_bytes == 4 * B16.parameters
    assert counts.checkpoint_bytes(spec, B16) == (0, 0)


def test_evaluations_on_the_way_count_as_often_as_they_come():
    spec = spec_with(512, evals=("shapes",))
    on_the_way = spec.model_copy(update={"evaluate_at": (10**6, 10**7)})
    assert counts.evaluated(spec) == (2016 + 1000, 384 + 1000)
    assert counts.evaluated(on_the_way)[0] == 3 * 3016
    assert counts.eval_size("shapes:10-shot", "") == (2016 + 960, 0)
    assert counts.eval_size("shapes", "shapes-multilingual:2048") == (3016, 384 + 3000)
    assert counts.eval_size("crossmodal3600", "x.tar") == (3600, 36 * 7260)
    assert counts.unknown_evals(spec_with(512, evals=("shapes", "/data/wds_mine"))) == ["/data/wds_mine"]


def test_the_loss_takes_the_share_of_the_towers_where_the_crossover_says():
    batch = crossover(spec_with(307_200), B16, ranks=40, share=0.1)
    assert 6 * 768 * batch == pytest.approx(0.1 * 4 * (B16.image_flops + B16.text_flops))
    assert crossover(siglit(spec_with(307_200)), B16, 40, 0.1) < batch / 10  # nothing but the text tower beside it


@pytest.mark.parametrize("ranks", [2, 8])
def test_the_sigmoids_bytes_are_those_of_the_exchange_benchmark(ranks):
    spec = spec_with(4 * K, precision="fp32")
    found = counts.sent_bytes(spec, B16, ranks)
    assert found[0] == traffic.count_bytes(ranks, 4 * K // ranks, 768, 4)
    assert found[1] == pytest.approx(2 * (ranks - 1) / ranks * 4 * B16.parameters)
    assert counts.sent_bytes(spec, B16, 1) == (0.0, 0.0)


def _counted():
    found = {}
    for loss in ("sigmoid", "softmax"):
        setting = Setting(loss, ranks=2, local_batch=64, dim=64, dtype="fp32", device="cpu", threads=1)
        (implementation,) = (i for i in IMPLEMENTATIONS if (i.name, i.loss) == ("repro-ring", loss))
        rank = torch.distributed.get_rank()
        found[loss] = traffic.count(rank, setting, "ring", implementation)["loss"].sent_bytes
    return found


def test_the_losses_bytes_are_those_that_ranks_send():
    for counted in on_ranks(2, _counted):
        for loss, sent in counted.items():
            predicted = counts.sent_bytes(spec_with(128, loss=loss, precision="fp32"), LAPTOP, 2)[0]
            assert predicted <= sent < predicted + 1000  # and a few numbers, which say that all ranks hold the same


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_checkpoint_takes_what_a_real_ones_tensors_take(optimizer, tmp_path):
    spec = spec_with(512, optimizer=optimizer)
    build.export("laptop", tmp_path)
    model = build.load(tmp_path).model
    made = make_optimizer(model, spec)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    resumable, final = counts.checkpoint_bytes(spec, LAPTOP)
    assert resumable == pytest.approx(size_bytes([model.state_dict(), made.state_dict()]), rel=0.03)
    assert final == pytest.approx(size_bytes(model.state_dict()), rel=0.01)


def test_final_weights_are_whole_models_and_what_is_resumed_is_what_trains():
    everything = spec_with(512, optimizer="lion")
    whole = 4 * B16.parameters
    assert counts.checkpoint_bytes(everything, B16) == (2 * whole, whole)
    text = 4 * (B16.parameters - B16.image_parameters)
    assert counts.checkpoint_bytes(siglit(everything), B16) == (2 * text, whole)
    thin = spec_with(512, optimizer="lion", token_bottleneck=96)
    assert counts.checkpoint_bytes(thin, B16) == (2 * (whole - 4 * (32_000 * 768 - 32_768 * 96)), whole)


def test_shards_are_measured_where_they_are_and_assumed_where_not(tmp_path):
    (tmp_path / "0.tar").write_bytes(bytes(1000))
    specs = [spec_with(512), spec_with(512, data="shapes:1000"), spec_with(512, data=str(tmp_path / "0.tar"))]
    assert counts.shard_bytes(specs[1:]) == (1000 + 6144 * 1000, False)
    assert counts.shard_bytes(specs[:1]) == (25_000 * 10**9, True)


def test_embedding_images_once_is_counted_beside_the_runs():
    spec = siglit(spec_with(512))
    plans = [Prediction(each, ONE, B16, place()) for each in (spec, spec.model_copy(update={"seed": 1}))]
    found = totals(plans)
    a_second = B16.image_flops * 5e-12 + B16.image_kept_bytes * 1e-10
    assert found.embedded_images == 10**9
    assert found.embedding_hours == pytest.approx(10**9 * a_second / 3600)
    assert found.embeddings_bytes == 10**9 * (2 * 768 + 4 * 16)


def test_images_of_a_world_that_is_seen_often_are_embedded_once():
    specs = [siglit(spec_with(512, data="shapes:2048", examples_seen=n, warmup_examples=0)) for n in (1024, 65_536)]
    assert counts.images_to_embed(specs) == {("shapes:2048", "siglip-b16"): 2048}


def test_totals_are_sums_and_the_clock_goes_by_what_runs_side_by_side():
    specs = [spec_with(512, seed=seed, evals=()) for seed in range(4)]
    plans = [Prediction(spec, Layout(1, 2), B16, place(at_once=2)) for spec in specs]
    found, one = totals(plans), plans[0]
    assert found.runs == 4
    assert found.processor_hours == pytest.approx(4 * 2 * one.seconds / 3600)
    assert found.seconds == pytest.approx(2 * one.seconds)
    assert found.checkpoint_bytes == 2 * 3 * counts.checkpoint_bytes(one.spec, B16)[0]


def test_on_a_cluster_speed_is_assumed_from_the_profile_and_runs_have_its_layouts():
    profile = load_profile("gpu8")
    specs = [spec_with(size) for size in (4 * K, 307_200)]
    small, large = on_the_cluster(specs, profile)
    assert (small.layout.ranks, large.layout.ranks) == (8, 40)
    assert small.sustained_flops == pytest.approx(200e12)
    assert (small.fits, large.fits) == (True, True)
    assert large.row()["speed"].startswith("assumed: 200 TFLOP/s")


def test_without_a_speed_memory_is_predicted_and_time_is_not():
    profile = load_profile("gpu8", ["tflops_per_rank=null"])
    (plan,) = on_the_cluster([spec_with(4 * K)], profile)
    assert (plan.fits, plan.seconds, plan.processor_hours) == (True, None, None)


def test_the_papers_sizes_are_planned_within_the_profile():
    sizes = [parse_batch_size(text) for text in ("512", "32k", "98k", "307k")]
    profile = load_profile("gpu8")
    plans = on_the_cluster([spec_with(size) for size in sizes], profile)
    assert len(plans) == 4 and all(plan.fits and plan.loss_share < 0.02 for plan in plans)


TOWERS = B16.image_flops + B16.text_flops


def gpus(gpu_memory, **keys):
    return nodes_of(8, gpus_per_node=8, gpu_memory=gpu_memory, **keys)


def test_a_share_of_one_micro_batch_passes_the_towers_three_times_and_a_larger_one_four_times():
    spec = spec_with(4 * K)
    examples, loss = spec.steps * spec.batch_size, 6 * 4 * K * 768
    assert training_flops(spec, B16, ranks=8) == examples * (3 * (B16.image_flops + B16.text_flops) + loss)
    assert training_flops(spec, B16, ranks=4) == examples * (4 * (B16.image_flops + B16.text_flops) + loss)


def test_the_softmax_loss_makes_four_products_where_the_sigmoid_makes_three():
    sigmoid, softmax = (training_flops(spec_with(4 * K, loss=loss), B16, 8) for loss in ("sigmoid", "softmax"))
    step = spec_with(4 * K).steps
    assert softmax - sigmoid == step * 2 * (4 * K) ** 2 * 768


def test_memory_is_at_least_weights_one_micro_batch_and_the_embeddings_of_a_rank():
    needed = least_bytes(spec_with(4 * K), Layout(1, 8), B16, on_gpu=True)
    activations = 512 * (B16.image_kept_bytes + B16.text_kept_bytes) // 2  # in bf16
    embeddings = (16 + 2 * 6) * 768 * 512  # images and texts with gradients, and two blocks of texts in the ring
    assert needed == 10 * B16.parameters + activations + embeddings + 2 * 512**2


def test_a_gather_holds_all_texts_and_a_ring_does_not():
    ring, gather = (
        least_bytes(spec_with(32 * K, exchange=exchange), Layout(1, 8), B16, on_gpu=True)
        for exchange in ("ring", "gather")
    )
    assert gather - ring == (32 * K - 2 * 4 * K) * 768 * 6


def test_on_cpus_a_rank_holds_its_share_of_the_batch_too():
    spec, layout = spec_with(4 * K), Layout(1, 8)
    more = least_bytes(spec, layout, B16, on_gpu=False) - least_bytes(spec, layout, B16, on_gpu=True)
    assert more > 512 * B16.input_bytes


def test_a_run_that_cannot_fit_is_refused_with_the_micro_batch_that_would():
    profile = gpus("16GiB")
    spec = spec_with(4 * K)
    message = (
        r"batch_size 4,096, micro_batch 512, sigmoid: a rank of 8 needs at least 32\.5 GiB, and gpu_memory is 16\.0 "
        r"GiB; micro_batch 128 \(--set micro_batch=128\) would fit, or auto_micro_batch: true"
    )
    with pytest.raises(InputError, match=message):
        check_memory(plan_jobs([spec], [8 * K], profile), profile)
    check_memory(plan_jobs([spec_with(4 * K, micro_batch=128)], [8 * K], profile), profile)


def test_with_auto_micro_batch_only_what_no_micro_batch_makes_fit_is_refused():
    small, tiny = gpus("16GiB", auto_micro_batch=True), gpus("2GB", auto_micro_batch=True)
    groups = plan_jobs([spec_with(4 * K)], [8 * K], small)
    check_memory(groups, small)
    with pytest.raises(InputError, match="no micro-batch would fit: expected more memory, a smaller model, or less"):
        check_memory(groups, tiny)


def test_on_cpus_a_rank_has_its_share_of_the_nodes_memory():
    spec, groups = spec_with(512), [JobGroup(Layout(1, 4), (spec_with(512),))]
    needed = least_bytes(spec, Layout(1, 4), B16, on_gpu=False)
    check_memory(groups, nodes_of(4, memory=str(4 * needed)))
    with pytest.raises(InputError, match="memory ÷ 4 ranks of a node is"):
        check_memory(groups, nodes_of(4, memory=str(4 * needed - 4)))


@pytest.mark.parametrize("memory", [None, "all"])
def test_where_the_profile_does_not_say_how_much_there_is_nothing_is_refused(memory):
    check_memory([JobGroup(Layout(1, 1), (spec_with(4 * K),))], nodes_of(1, memory=memory))


def test_hours_are_of_gpus_or_of_the_cores_asked_for():
    spec = spec_with(4 * K, evals=())
    (on_gpus,) = on_the_cluster([spec], gpus("80GB", tflops_per_rank=100))
    assert on_gpus.processors == 8
    assert on_gpus.seconds == pytest.approx(training_flops(spec, B16, 8) / 8e14)
    assert on_gpus.processor_hours == pytest.approx(8 * on_gpus.seconds / 3600)
    (on_cores,) = on_the_cluster([spec], nodes_of(8, cpus_per_rank=4))
    assert on_cores.processors == 32
    assert on_cores.processor_hours == pytest.approx(32 * on_cores.seconds / 3600)


MEASURED = [
    ("laptop", {"batch_size": 64, "loss": "softmax"}, 0.0277, 871.1),
    ("laptop", {"batch_size": 256}, 0.0856, 949.6),
    ("laptop", {"batch_size": 2048, "micro_batch": 256, "loss": "softmax"}, 0.852, 936.7),
    ("laptop", {"batch_size": 8192}, 3.667, 1069.8),
    ("siglip-s16-128", {"batch_size": 8}, 1.303, 2404.2),
    ("laptop", {"batch_size": 128, "optimizer": "lion", "token_bottleneck": 16}, 0.0453, 891.9),
    ("laptop", {"setup": "siglit", "batch_size": 512}, 0.0774, 984.9),
    *(
        ("a sweep", {"batch_size": batch_size, "loss": loss}, seconds, megabytes)
        for batch_size, loss, seconds, megabytes in (
            *((32, "sigmoid", 0.0173, 668.6), (128, "sigmoid", 0.0392, 699.0), (512, "sigmoid", 0.1405, 852.5)),
            *((32, "softmax", 0.0172, 668.6), (128, "softmax", 0.0387, 701.6), (512, "softmax", 0.1403, 861.1)),
        )
    ),
]
"""Runs of the machine OURS, alone or forked by a sweep: seconds of a step, and megabytes at the peak."""


@pytest.mark.parametrize(("how", "values", "seconds", "megabytes"), MEASURED)
def test_predictions_of_measured_runs_are_within_15_percent_in_memory_and_25_in_time(how, values, seconds, megabytes):
    model = "laptop" if how == "a sweep" else how
    overrides = Overrides({}, {"model": model, "loss": "sigmoid", "evals": [], "examples_seen": "65536"} | values)
    (spec,) = expand(load_sweep("batch-size"), "laptop", overrides)
    machine = this_place(1, 1, 2).machine if how == "a sweep" else OURS
    predicted = Prediction(spec, ONE, model_size(model), place(machine=machine))
    assert predicted.step_seconds == pytest.approx(seconds, rel=0.25)
    assert predicted.memory_bytes == pytest.approx(megabytes * 1e6, rel=0.15)


def test_a_locked_tower_is_passed_once_and_one_embedded_before_not_at_all():
    locked = spec_with(4 * K, image_learning_rate_multiplier=0.0)
    before = spec_with(4 * K).model_copy(update={"setup": "siglit"})
    assert (passes(spec_with(4 * K), 8), passes(spec_with(4 * K), 4)) == ((3, 3), (4, 4))
    assert (passes(locked, 8), passes(before, 8), passes(before, 4)) == ((1, 3), (0, 3), (0, 4))
    loss = 6 * 4 * K * 768
    assert training_flops(before, B16, 8) == before.steps * 4 * K * (3 * B16.text_flops + loss)


def test_weights_that_do_not_learn_have_no_gradient_and_no_moments():
    everything, layout = spec_with(512, optimizer="adamw"), Layout(1, 1)
    locked = everything.model_copy(update={"image_learning_rate_multiplier": 0.0})
    before = everything.model_copy(update={"setup": "siglit"})
    least = [least_bytes(spec, layout, B16, on_gpu=True) for spec in (everything, locked, before)]
    activations = 512 * B16.image_kept_bytes // 2
    assert least[0] - least[1] == 12 * B16.image_parameters + activations
    assert least[1] - least[2] == 4 * B16.image_parameters


def test_a_bottleneck_holds_two_thin_matrices_in_place_of_the_token_table():
    spec = spec_with(512, token_bottleneck=96)
    saved = B16.parameters - parameters(spec, B16).all
    assert saved == 32_000 * 768 - 32_000 * 96 - 96 * 768


def test_negatives_chosen_by_their_logits_cost_two_products_more():
    assert [pair_flops(spec_with(512), B16), pair_flops(spec_with(512, loss="softmax"), B16)] == [6 * 768, 8 * 768]
    chosen = {kind: spec_with(512, negatives=kind, negatives_share=0.5) for kind in ("random", "hard")}
    assert {kind: pair_flops(spec, B16) for kind, spec in chosen.items()} == {"random": 6 * 768, "hard": 10 * 768}


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion"])
def test_the_optimizers_state_takes_the_bytes_that_a_real_one_takes(name, tmp_path):
    build.export("laptop", tmp_path)
    model = build.load(tmp_path).model
    spec = paper(512, loss="sigmoid", optimizer=name, examples_seen=10**9)[0]
    optimizer = Lion(model.parameters(), lr=1e-3) if name == "lion" else make_optimizer(model, spec)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    found = sum(tensor.nbytes for tensor in tensors)
    counted = counts.MOMENT_BYTES[name] * model_size("laptop").parameters
    assert counted <= found < 1.1 * counted  # Adafactor's second moments: of vectors, and by rows and columns
