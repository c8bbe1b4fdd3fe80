"""One combination to measure, and the inputs that every implementation gets for it."""

from dataclasses import dataclass

import torch

from repro.config.units import format_batch_size
from repro.loss.registry import LOSSES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
LOGIT_SCALE, LOGIT_BIAS = 10.0, -10.0
"""t and b where SigLIP starts (section 3.2)."""


@dataclass(frozen=True)
class Setting:
    """local_batch: the examples of one rank. threads: CPU threads of one rank."""

    loss: str
    ranks: int
    local_batch: int
    dim: int
    dtype: str
    device: str
    threads: int

    @property
    def batch_size(self) -> int:
        return self.ranks * self.local_batch

    @property
    def operations(self) -> int:
        """Multiplications and additions of one rank's matrix products."""
        return LOSSES[self.loss].products * 2 * self.local_batch * self.batch_size * self.dim

    @property
    def label(self) -> str:
        ranks = f"{self.ranks} rank" + "s" * (self.ranks > 1)
        size = format_batch_size(self.local_batch)
        return f"{self.loss}, {ranks} × {size}, d {self.dim}, {self.dtype}, {self.device}"


def embeddings(setting: Setting, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A rank's images and texts, [b, d] each, L2-normalised in fp32 and then cast: the same numbers at every call.

    They resemble a trained model's: a text lies at 45° from its image, and all else is nearly orthogonal.
    """
    generator = torch.Generator(setting.device).manual_seed(rank)
    shape = (setting.local_batch, setting.dim)
    images, noise = (
        torch.nn.functional.normalize(torch.randn(shape, generator=generator, device=setting.device), dim=-1)
        for _ in range(2)
    )
    texts = torch.nn.functional.normalize(noise.add_(images), dim=-1)
    return images.to(DTYPES[setting.dtype]), texts.to(DTYPES[setting.dtype])


def scalars(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """t and b, in fp32 as trainers hold them (fp64 for fp64)."""
    dtype = torch.float64 if setting.dtype == "fp64" else torch.float32
    return tuple(torch.tensor(value, dtype=dtype, device=setting.device) for value in (LOGIT_SCALE, LOGIT_BIAS))
