"""Dropped into open_clip's own training loop, our losses train the very model that its losses train."""

import argparse
import os

import pytest
import torch

from repro.loss import SigmoidLoss, SoftmaxLoss
from tests.ranks import on_ranks

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
    "init_logit_scale": 2.3,
}
STEPS, BATCH = 6, 12


class Batches(list):
    num_batches, num_samples = STEPS, STEPS * BATCH


class Data(argparse.Namespace):
    def set_epoch(self, epoch):
        pass


def theirs(name, rank, ranks):
    from open_clip.loss import ClipLoss, SigLipLoss

    if name == "sigmoid":
        return SigLipLoss(rank=rank, world_size=ranks)
    return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=ranks)


def ours(name, rank, ranks):
    return SigmoidLoss() if name == "sigmoid" else SoftmaxLoss()


def trained(make_loss, name, precision="fp32", accum_freq=1):
    """The weights after one epoch of open_clip's train_one_epoch, on every rank of a group if there is one."""
    from open_clip import CLIP
    from open_clip_train.train import train_one_epoch

    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(0)
    model = CLIP(**MODEL, init_logit_bias=-5.0 if name == "sigmoid" else None, output_dict=True)
    rows = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    examples = [(torch.randn(BATCH, 3, 16, 16), torch.randint(1, 50, (BATCH, 8))) for _ in range(STEPS)]
    data = {"train": Data(dataloader=Batches((images[rows], texts[rows]) for images, texts in examples))}
    args = argparse.Namespace(device="cpu", precision=precision, distill=False, accum_freq=accum_freq)
    args.skip_scheduler, args.grad_clip_norm, args.horovod = True, None, False
    args.rank, args.world_size, args.local_rank, args.batch_size = rank, ranks, rank, BATCH // ranks
    args.log_every_n_steps, args.wandb, args.log_local = 100, False, False
    whole = torch.nn.parallel.DistributedDataParallel(model) if ranks > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_one_epoch(whole, data, make_loss(name, rank, ranks), 0, optimizer, None, None, None, args)
    return {key: value.detach().numpy() for key, value in model.state_dict().items()}


def assert_same(mine, others, tolerance):
    for key, value in mine.items():
        torch.testing.assert_close(torch.from_numpy(value), torch.from_numpy(others[key]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("accum_freq", [1, 2])
@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_on_one_rank(name, accum_freq):
    assert_same(trained(ours, name, accum_freq=accum_freq), trained(theirs, name, accum_freq=accum_freq), 1e-5)


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_under_ddp_on_three_ranks(name):
    for mine, others in zip(on_ranks(3, trained, ours, name), on_ranks(3, trained, theirs, name), strict=True):
        assert_same(mine, others, 1e-5)


def distance(some, others):
    return sum(((some[key] - others[key]) ** 2).sum() for key in some) ** 0.5


def test_under_bf16_autocast_ours_stays_as_near_to_fp32():
    exact, mine, others = trained(theirs, "sigmoid"), *(trained(loss, "sigmoid", "amp_bf16") for loss in (ours, theirs))
    assert 0 < distance(mine, exact) < 1.2 * distance(others, exact)


def test_training_moves_the_weights_further_than_the_losses_differ():
    untrained = trained(lambda *_: lambda image_features, **__: {"none": 0 * image_features.sum()}, "softmax")
    assert distance(trained(ours, "softmax"), untrained) > 0.1
