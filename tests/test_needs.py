"""FLOPs and memory of a run are known before it starts; what cannot fit is refused with what would."""

import pytest
import torch
from timm.optim import Lion

from repro.config.errors import InputError
from repro.config.layout import JobGroup, Layout, plan_jobs
from repro.estimate.needs import (
    MOMENT_BYTES,
    check_memory,
    for_run,
    loss_flops,
    memory_needed,
    needs_of,
    parameters,
    passes,
    training_flops,
)
from repro.models import build
from repro.models.sizes import model_size
from repro.train.optim import make_optimizer
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


def test_a_locked_tower_is_passed_once_and_one_embedded_before_not_at_all():
    locked = spec_of(4 * K, image_learning_rate_multiplier=0.0)
    before = spec_of(4 * K).model_copy(update={"setup": "siglit"})
    assert (passes(spec_of(4 * K), 8), passes(spec_of(4 * K), 4)) == ((3, 3), (4, 4))
    assert (passes(locked, 8), passes(before, 8), passes(before, 4)) == ((1, 3), (0, 3), (0, 4))
    loss = 6 * 4 * K * 768
    assert training_flops(before, SIZE, 8) == before.steps * 4 * K * (3 * SIZE.text_flops + loss)


def test_weights_that_do_not_learn_have_no_gradient_and_no_moments():
    everything, layout = spec_of(512, optimizer="adamw"), Layout(1, 1)
    locked = everything.model_copy(update={"image_learning_rate_multiplier": 0.0})
    before = everything.model_copy(update={"setup": "siglit"})
    least = [memory_needed(spec, layout, SIZE, on_gpu=True) for spec in (everything, locked, before)]
    activations = 512 * SIZE.image_kept_bytes // 2
    assert least[0] - least[1] == 12 * SIZE.image_parameters + activations
    assert least[1] - least[2] == 4 * SIZE.image_parameters


def test_released_weights_are_evaluated_only():
    spec = spec_of(512).model_copy(update={"setup": "released", "examples_seen": 0})
    assert training_flops(spec, SIZE, 1) == 0
    assert memory_needed(spec, Layout(1, 1), SIZE, on_gpu=True) == 4 * SIZE.parameters


def test_a_bottleneck_holds_two_thin_matrices_in_place_of_the_token_table():
    spec = spec_of(512, token_bottleneck=96)
    saved = SIZE.parameters - parameters(spec, for_run(spec, SIZE)).all
    assert saved == 32_000 * 768 - 32_000 * 96 - 96 * 768


def test_negatives_chosen_by_their_logits_cost_two_products_more():
    assert [loss_flops(spec_of(512), SIZE), loss_flops(spec_of(512, loss="softmax"), SIZE)] == [6 * 768, 8 * 768]
    chosen = {kind: spec_of(512, negatives=kind, negatives_share=0.5) for kind in ("random", "hard")}
    assert {kind: loss_flops(spec, SIZE) for kind, spec in chosen.items()} == {"random": 6 * 768, "hard": 10 * 768}


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
    counted = MOMENT_BYTES[name] * model_size("laptop").parameters
    assert counted <= found < 1.1 * counted  # Adafactor's second moments: of vectors, and by rows and columns


def test_over_embeddings_no_image_tower_is_passed_and_none_is_held():
    spec, layout = spec_of(4 * K), Layout(1, 8)
    siglit = spec.model_copy(update={"setup": "siglit", "image_learning_rate_multiplier": 0.0})
    less = training_flops(spec, SIZE, ranks=8) - training_flops(siglit, SIZE, ranks=8)
    assert less == spec.steps * spec.batch_size * 3 * SIZE.image_flops
    held = memory_needed(spec, layout, SIZE, on_gpu=True) - memory_needed(siglit, layout, SIZE, on_gpu=True)
    assert held == 10 * SIZE.image_parameters + 512 * SIZE.image_kept_bytes // 2
