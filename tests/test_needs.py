"""FLOPs and memory of a run are known before it starts; what cannot fit is refused with what would."""

import pytest

from repro.errors import InputError
from repro.jobs import JobGroup, Layout, plan_jobs
from repro.model_size import model_size
from repro.needs import check_memory, memory_needed, needs_of, training_flops
from tests.test_jobs import K, nodes_of, paper

SIZE = model_size("siglip-b16")
TOWERS = SIZE.image_flops + SIZE.text_flops


def spec_of(batch_size, loss="sigmoid", **values):
    return paper(batch_size, loss=loss, examples_seen=10**9, **values)[0]


def gpus(gpu_memory, **keys):
    return nodes_of(8, gpus_per_node=8, gpu_memory=gpu_memory, **keys)


def test_a_share_of_one_micro_batch_passes_the_towers_three_times_and_a_larger_one_four_times():
    spec = spec_of(4 * K)
    examples, loss = spec.steps * spec.batch_size, 6 * 4 * K * 768
    assert training_flops(spec, SIZE, ranks=8) == examples * (3 * TOWERS + loss)
    assert training_flops(spec, SIZE, ranks=4) == examples * (4 * TOWERS + loss)


def test_the_softmax_loss_makes_four_products_where_the_sigmoid_makes_three():
    sigmoid, softmax = (training_flops(spec_of(4 * K, loss), SIZE, 8) for loss in ("sigmoid", "softmax"))
    step = spec_of(4 * K).steps
    assert softmax - sigmoid == step * 2 * (4 * K) ** 2 * 768


def test_memory_is_at_least_weights_one_micro_batch_and_the_embeddings_of_a_rank():
    needed = memory_needed(spec_of(4 * K), Layout(1, 8), SIZE, on_gpu=True)
    activations = 512 * (SIZE.image_kept_bytes + SIZE.text_kept_bytes) // 2  # in bf16
    assert needed == 10 * SIZE.parameters + activations + 16 * 768 * 512 + 2 * 512**2


def test_a_gather_holds_all_texts_and_a_ring_does_not():
    ring, gather = (
        memory_needed(spec_of(32 * K, exchange=exchange), Layout(1, 8), SIZE, on_gpu=True)
        for exchange in ("ring", "gather")
    )
    assert gather - ring == 32 * K * 768 * 6


def test_on_cpus_a_rank_holds_its_share_of_the_batch_too():
    spec, layout = spec_of(4 * K), Layout(1, 8)
    more = memory_needed(spec, layout, SIZE, on_gpu=False) - memory_needed(spec, layout, SIZE, on_gpu=True)
    assert more > 512 * SIZE.input_bytes


def test_adamw_needs_more_than_adafactor():
    adafactor, adamw = (
        memory_needed(spec_of(4 * K, optimizer=name), Layout(1, 8), SIZE, on_gpu=True)
        for name in ("adafactor", "adamw")
    )
    assert adamw - adafactor == 6 * SIZE.parameters


def test_a_run_that_cannot_fit_is_refused_with_the_micro_batch_that_would():
    profile = gpus("16GiB")
    spec = spec_of(4 * K)
    message = (
        r"batch_size 4,096, micro_batch 512, sigmoid: a rank of 8 needs at least 32\.5 GiB, and gpu_memory is 16\.0 "
        r"GiB; micro_batch 128 \(--set micro_batch=128\) would fit, or auto_micro_batch: true"
    )
    with pytest.raises(InputError, match=message):
        check_memory(plan_jobs([spec], [8 * K], profile), profile)
    check_memory(plan_jobs([spec_of(4 * K, micro_batch=128)], [8 * K], profile), profile)


def test_with_auto_micro_batch_only_what_no_micro_batch_makes_fit_is_refused():
    small, tiny = gpus("16GiB", auto_micro_batch=True), gpus("2GB", auto_micro_batch=True)
    groups = plan_jobs([spec_of(4 * K)], [8 * K], small)
    check_memory(groups, small)
    with pytest.raises(InputError, match="no micro-batch would fit: expected more memory, a smaller model, or less"):
        check_memory(groups, tiny)


def test_on_cpus_a_rank_has_its_share_of_the_nodes_memory():
    spec, groups = spec_of(512), [JobGroup(Layout(1, 4), (spec_of(512),))]
    needed = memory_needed(spec, Layout(1, 4), SIZE, on_gpu=False)
    check_memory(groups, nodes_of(4, memory=str(4 * needed)))
    with pytest.raises(InputError, match="memory ÷ 4 ranks of a node is"):
        check_memory(groups, nodes_of(4, memory=str(4 * needed - 4)))


@pytest.mark.parametrize("memory", [None, "all"])
def test_where_the_profile_does_not_say_how_much_there_is_nothing_is_refused(memory):
    check_memory([JobGroup(Layout(1, 1), (spec_of(4 * K),))], nodes_of(1, memory=memory))


def test_hours_are_of_gpus_or_of_the_cores_asked_for():
    spec = spec_of(4 * K)
    group = JobGroup(Layout(1, 8), (spec, spec))
    (needs,) = needs_of([group], gpus("80GB", tflops_per_rank=100))
    assert needs.most_hours == 2 * 8 * 1
    assert needs.estimated_hours == pytest.approx(2 * training_flops(spec, SIZE, 8) / 1e14 / 3600)
    assert needs.longest_seconds == pytest.approx(training_flops(spec, SIZE, 8) / 8e14)
    (needs,) = needs_of([group], nodes_of(8, cpus_per_rank=4))
    assert (needs.most_hours, needs.processors, needs.estimated_hours) == (2 * 32, 32, None)


def test_over_embeddings_no_image_tower_is_passed_and_none_is_held():
    spec, layout = spec_of(4 * K), Layout(1, 8)
    siglit = spec.model_copy(update={"setup": "siglit", "image_learning_rate_multiplier": 0.0})
    less = training_flops(spec, SIZE, ranks=8) - training_flops(siglit, SIZE, ranks=8)
    assert less == spec.steps * spec.batch_size * 3 * SIZE.image_flops
    held = memory_needed(spec, layout, SIZE, on_gpu=True) - memory_needed(siglit, layout, SIZE, on_gpu=True)
    assert held == 10 * SIZE.image_parameters + 512 * SIZE.image_kept_bytes // 2
