"""The memory of a whole training step on one rank: weights, optimizer, activations, embeddings and the loss."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from repro.bench import resident
from repro.bench.implementations import Implementation
from repro.bench.measure import limit_card
from repro.bench.ranks import watch_from_here
from repro.bench.setting import LOGIT_BIAS, LOGIT_SCALE, Setting
from repro.config.spec import RunSpec
from repro.data.pairs import PairBatch
from repro.loss.registry import LOSSES
from repro.models import build
from repro.train import distributed
from repro.train.optim import make_optimizer
from repro.train.step import accumulate_gradient

STEPS = 2
"""The first step makes the optimizer's moments; the second has them beside the activations."""


def peak_memory(
    rank: int,
    implementation: Implementation,
    setting: Setting,
    model: str,
    micro_batch: int,
    most_bytes: int | None = None,
) -> int:
    """Bytes at the peak of two optimizer steps on random pairs, over what the process held before it made the model.

    setting.dtype bf16 is autocast, as in training: weights, embeddings and loss are in fp32.
    """
    if setting.device == "cuda" and most_bytes is not None:
        limit_card(most_bytes)
    with tempfile.TemporaryDirectory() as folder:
        bias = LOGIT_BIAS if LOSSES[setting.loss].has_bias else None
        build.export(model, Path(folder), math.log(LOGIT_SCALE), bias)
        watch_from_here()
        work = _steps(implementation, setting, Path(folder), model, micro_batch, rank)
        return resident.peak_growth_bytes(work, setting.device)


def _steps(
    implementation: Implementation, setting: Setting, folder: Path, model: str, micro_batch: int, rank: int
) -> Callable[[], None]:
    loss = implementation.make(rank, setting.ranks)
    autocast = torch.autocast(setting.device, torch.bfloat16, enabled=setting.dtype == "bf16")

    def work() -> None:
        towers = build.load(folder, setting.device)
        trained = towers.model.train()
        optimizer = make_optimizer(trained, _spec(setting, model))
        height, width = towers.image_size
        images = torch.randint(256, (setting.local_batch, 3, height, width), dtype=torch.uint8)
        tokens = torch.randint(1, 1000, (setting.local_batch, towers.context_length))
        batch = PairBatch(images, tokens)

        def embed_images(images: torch.Tensor) -> torch.Tensor:
            with autocast:
                return F.normalize(trained.encode_image(towers.normalize(images)).float(), dim=-1)

        def embed_texts(tokens: torch.Tensor) -> torch.Tensor:
            with autocast:
                return F.normalize(trained.encode_text(tokens.to(setting.device)).float(), dim=-1)

        def loss_of(image_features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
            bias = (trained.logit_bias,) if LOSSES[setting.loss].has_bias else ()
            return loss(image_features, text_features, trained.logit_scale.exp(), *bias)

        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=False)
            accumulate_gradient(embed_images, embed_texts, loss_of, batch, micro_batch)
            distributed.average_gradients(trained.parameters())
            optimizer.step()

    return work


def _spec(setting: Setting, model: str) -> RunSpec:
    """The laptop recipe's optimizer; sizes do not change what it holds."""
    size = setting.batch_size
    return RunSpec(
        setup="siglip",
        scale="laptop",
        data="random",
        model=model,
        loss=setting.loss,
        batch_size=size,
        micro_batch=size,
        examples_seen=size,
        learning_rate=1e-3,
        weight_decay=1e-4,
    )
