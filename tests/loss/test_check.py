"""A mistake on one rank is the same clear error on all, and none of them hangs."""

import os
import re
import warnings

import pytest
import torch
import torch.nn.functional as F

from repro.loss import NonFiniteError, SigmoidLoss, SoftmaxLoss
from tests.ranks import on_ranks


def features(batch=6, dim=4, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(batch, dim, generator=generator), dim=-1).to(dtype)


def call_with_a_mistake_on_rank_1(mistake, exchange, module):
    """What went wrong, as text; '' where nothing did."""
    rank = int(os.environ["RANK"])
    images, texts, scale, bias = features(seed=rank), features(seed=rank + 9), torch.tensor(10.0), torch.tensor(-1.0)
    if rank == 1:
        if mistake == "batch":
            images, texts = images[:4], texts[:4]
        elif mistake == "nan":
            images[2, 1] = torch.nan
        elif mistake == "infinite":
            texts[0, 0] = torch.inf
        elif mistake == "shape":
            texts = texts[:5]
        elif mistake == "dim":
            images, texts = images[:, :3], texts[:, :3]
        elif mistake == "dtype":
            images, texts = images.double(), texts.double()
        elif mistake == "mixed dtype":
            texts = texts.double()
        elif mistake == "device":
            texts = texts.to("meta")
        elif mistake == "scale":
            scale = torch.tensor(11.0)
        elif mistake == "bias":
            bias = None
        elif mistake == "vector scale":
            scale = torch.ones(3)
        elif mistake == "three dimensions":
            images = images[None]
        elif mistake == "empty":
            images, texts = images[:0], texts[:0]
        elif mistake == "exchange":
            exchange = "gather"
    try:
        module(exchange)(images, texts, scale, bias)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("batch", r"local batches differ between ranks.*\[6, 4\] float32 on rank 0, 2; \[4, 4\] float32 on rank 1"),
        ("nan", r"NonFiniteError: image_features holds NaN or infinite values on rank 1"),
        ("infinite", r"NonFiniteError: text_features holds NaN or infinite values on rank 1"),
        ("shape", r"rank 1: image_features \[6, 4\] and text_features \[5, 4\] differ"),
        ("dim", r"local batches differ between ranks.*\[6, 3\] float32 on rank 1"),
        ("dtype", r"local batches differ between ranks.*float64 on rank 1"),
        ("mixed dtype", r"rank 1: image_features is torch.float32 and text_features torch.float64"),
        ("device", r"rank 1: image_features is on cpu and text_features on meta"),
        ("scale", r"logit_scale differs between ranks: .*10 on rank 0, 2; 11 on rank 1"),
        ("bias", r"logit_bias differs between ranks: .*-1 on rank 0, 2; none on rank 1"),
        ("vector scale", r"rank 1: logit_scale has shape \[3\]; expected one number"),
        ("three dimensions", r"rank 1: image_features has shape \[1, 6, 4\]; expected \[local batch, dim\]"),
        ("exchange", r"exchange differs between ranks: .*ring on rank 0, 2; gather on rank 1"),
        ("empty", r"rank 1: image_features has shape \[0, 4\]"),
    ],
)
def test_a_mistake_on_one_rank_is_the_same_error_on_all(mistake, message):
    answers = on_ranks(3, call_with_a_mistake_on_rank_1, mistake, "ring", SigmoidLoss)
    assert len(set(answers)) == 1
    assert re.search(message, answers[0])


@pytest.mark.parametrize("exchange", ["ring-bidirectional", "gather"])
def test_mistakes_are_found_in_every_exchange_and_loss(exchange):
    for answer in on_ranks(3, call_with_a_mistake_on_rank_1, "batch", exchange, SoftmaxLoss):
        assert "local batches differ" in answer


def test_no_exchange_on_several_ranks_is_refused():
    for answer in on_ranks(2, call_with_a_mistake_on_rank_1, "", "none", SigmoidLoss):
        assert "exchange 'none' on 2 ranks would leave out" in answer


def test_an_unknown_exchange_names_those_known():
    with pytest.raises(ValueError, match="exchange 'rings' is not known; expected one of ring, ring-bidirectional"):
        SigmoidLoss("rings")(features(), features(), 10.0)


def test_nan_in_the_temperature_is_named():
    with pytest.raises(NonFiniteError, match="logit_scale holds NaN"):
        SigmoidLoss()(features(), features(), torch.tensor(torch.nan))
    with pytest.raises(NonFiniteError, match="logit_bias holds NaN"):
        SigmoidLoss()(features(), features(), 10.0, torch.tensor(torch.inf))


def test_features_that_are_not_normalised_bring_a_warning_and_the_right_loss():
    images, texts = 3 * features(seed=1).double(), features(seed=2).double()
    with pytest.warns(UserWarning, match="not L2-normalised: norms from 1 to 3, expected 1"):
        value = SigmoidLoss()(images, texts, 2.0, -1.0)
    logits = 2 * images @ texts.T - 1
    signs = 2 * torch.eye(len(images)) - 1
    assert value.item() == pytest.approx(-F.logsigmoid(signs * logits).sum().item() / len(images))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_normalised_features_bring_no_warning(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SigmoidLoss()(features(64, 32, 1, dtype), features(64, 32, 2, dtype), 10.0, -10.0)


def calls_in_groups_of_two_and_one():
    import torch.distributed as dist

    loss, answers = SigmoidLoss(), []
    rank = int(os.environ["RANK"])
    whole = [features(8, seed=s) for s in (1, 2)]
    rows = slice(4 * rank, 4 * rank + 4)
    answers.append(loss(whole[0][rows], whole[1][rows], 10.0, -1.0).item())
    dist.destroy_process_group()
    answers.append(loss(*whole, 10.0, -1.0).item())
    return answers


def test_one_module_serves_a_world_whose_size_changes():
    first, second = on_ranks(2, calls_in_groups_of_two_and_one)
    assert first[1] == second[1] == pytest.approx((first[0] + second[0]) / 2, rel=1e-6)


def call_in_a_group_of_the_last_two():
    import torch.distributed as dist

    group = dist.new_group([1, 2])
    rank = int(os.environ["RANK"])
    if rank == 0:
        return None
    whole = [features(8, seed=s) for s in (1, 2)]
    rows = slice(4 * rank - 4, 4 * rank)
    return [SigmoidLoss(e, group=group)(*(w[rows] for w in whole), 10.0, -1.0).item() for e in ("ring", "gather")]


def test_a_group_of_some_ranks_computes_its_own_loss():
    _, second, third = on_ranks(3, call_in_a_group_of_the_last_two)
    alone = SigmoidLoss()(features(8, seed=1), features(8, seed=2), 10.0, -1.0).item()
    assert [(a + b) / 2 for a, b in zip(second, third, strict=True)] == pytest.approx([alone, alone], rel=1e-6)
