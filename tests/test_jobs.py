"""Ranks follow from the batch size and how much of it a rank holds; runs of the same layout are one array."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.config.cluster import ClusterProfile, Layout, layout, load_profile, plan_jobs
from repro.config.errors import InputError
from repro.config.sweep import Overrides, expand, load_sweep, local_batches

K = 1024


def paper(*batch_sizes, seeds=(0,), **values):
    """Runs of the paper's sweep."""
    axes = {"batch_size": list(batch_sizes), "seed": list(seeds)}
    if not batch_sizes:
        del axes["batch_size"]
    return expand(load_sweep("batch-size"), "paper", Overrides(axes, {"data": "x.tar"} | values))


def spec_of(batch_size, micro_batch=512):
    examples = max(batch_size, 10**9)
    return paper(batch_size, loss="sigmoid", micro_batch=micro_batch, examples_seen=examples, warmup_examples=0)[0]


def nodes_of(ranks_per_node, max_nodes=None, **keys):
    return ClusterProfile(ranks_per_node=ranks_per_node, max_nodes=max_nodes, time="1h", **keys)


@pytest.mark.parametrize(
    ("batch_size", "nodes", "ranks"),
    [
        (512, 1, 8),
        (4 * K, 1, 8),
        (64 * K, 1, 8),
        (98_304, 2, 16),
        (128 * K, 2, 16),
        (307_200, 5, 40),
        (1024 * K, 16, 128),
    ],
)
def test_at_8k_a_rank_nodes_of_8_gpus_grow_with_the_batch(batch_size, nodes, ranks):
    chosen = layout(spec_of(batch_size), 8 * K, load_profile("gpu8"))
    assert (chosen.nodes, chosen.ranks) == (nodes, ranks)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "local_batch", "expected"),
    [
        (4, 512, 512, Layout(1, 4)),  # fewer examples than ranks
        (1, 512, 512, Layout(1, 1)),
        (1530, 1530, 512, Layout(1, 6)),  # 8 does not divide it
        (1280, 256, 512, Layout(1, 8)),
        (3 * K, 1024, 1024, Layout(1, 8)),
        (7 * K, 1024, 1024, Layout(1, 8)),
        (98_304, 4096, 8 * K, Layout(3, 8)),  # 16 ranks would hold 6,144: no multiple of the micro-batch
    ],
)
def test_a_rank_count_that_training_refuses_is_passed_over(batch_size, micro_batch, local_batch, expected):
    chosen = layout(spec_of(batch_size, micro_batch), local_batch, nodes_of(8))
    spec_of(batch_size, micro_batch).check_ranks(chosen.ranks)
    assert chosen == expected


@settings(deadline=None)
@given(
    share=st.integers(1, 600),
    micro_batch=st.integers(1, 600),
    local_batch=st.integers(1, 5000),
    ranks_per_node=st.integers(1, 9),
    max_nodes=st.none() | st.integers(1, 20),
)
def test_whatever_comes_out_can_be_trained_holds_what_was_asked_and_takes_the_fewest_nodes(
    share, micro_batch, local_batch, ranks_per_node, max_nodes
):
    batch_size = share * micro_batch
    spec = SPEC.model_copy(update={"batch_size": batch_size, "micro_batch": micro_batch})
    profile = nodes_of(ranks_per_node, max_nodes)
    try:
        chosen = layout(spec, local_batch, profile)
    except InputError as error:
        local_batch = int(re.search(r"--local-batch (\d+)", str(error))[1])
        chosen = layout(spec, local_batch, profile)
    spec.check_ranks(chosen.ranks)
    assert batch_size <= local_batch * chosen.ranks
    assert chosen.nodes <= (max_nodes or chosen.nodes)
    assert chosen.nodes == 1 or chosen.ranks_per_node == ranks_per_node
    for fewer in range(1, chosen.nodes):
        assert not trains(spec, fewer * ranks_per_node) or batch_size > local_batch * fewer * ranks_per_node


SPEC = spec_of(512)


def trains(spec, ranks):
    try:
        spec.check_ranks(ranks)
    except InputError:
        return False
    return True


def test_more_nodes_than_the_profile_allows_is_answered_with_what_would_fit():
    message = (
        "batch_size 1,048,576 at local_batch 8,192 needs 16 nodes of 8 ranks, and max_nodes is 4; "
        r"the largest batch size that fits is 256k, or local_batch 32,768 \(--local-batch 32768\) would do"
    )
    profile = nodes_of(8, max_nodes=4)
    with pytest.raises(InputError, match=message):
        layout(spec_of(1024 * K), 8 * K, profile)
    assert layout(spec_of(256 * K), 8 * K, profile) == layout(spec_of(1024 * K), 32 * K, profile) == Layout(4, 8)


def test_nodes_that_divide_no_batch_are_answered_with_what_would_fit():
    with pytest.raises(InputError, match=r"no number of nodes of 3 ranks divides .* \(--local-batch 32768\) would do"):
        layout(spec_of(64 * K), 8 * K, nodes_of(3))
    assert layout(spec_of(64 * K), 32 * K, nodes_of(3)) == Layout(1, 2)


def test_300_runs_of_the_papers_grid_are_three_arrays():
    specs = paper(seeds=range(9))
    sweep = load_sweep("batch-size")
    groups = plan_jobs(specs, local_batches(sweep, specs), load_profile("gpu8"))
    assert len(specs) > 300
    assert [group.layout.nodes for group in groups] == [1, 2, 5]
    assert sum(len(group.specs) for group in groups) == len(specs)


def test_an_array_is_no_longer_than_the_cluster_takes_and_keeps_the_order():
    specs = paper(512, 1024, seeds=range(4))
    groups = plan_jobs(specs, [512] * len(specs), nodes_of(4, max_array_size=15))
    assert [len(group.specs) for group in groups] == [15, 15, 2]
    assert [spec for group in groups for spec in group.specs] == specs


def test_no_runs_are_no_jobs():
    assert plan_jobs([], [], nodes_of(4)) == []
