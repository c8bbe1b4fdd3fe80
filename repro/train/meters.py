"""What a run says of itself while it trains: norms, logits, speed, memory. Nothing here changes a result."""

import resource
import time
from dataclasses import dataclass, field

import torch

from repro.train.distributed import sum_over_ranks


@dataclass
class Clock:
    """Seconds and examples of training, the first step after each start aside (it warms up), over resumes too.

    blocked_seconds: what checkpoints took from training, in all; not part of seconds.
    """

    examples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    steps: int = 0
    blocked_seconds: float = 0.0
    last_blocked_seconds: float = 0.0
    _last: float | None = field(default=None, repr=False)

    def tick(self, examples: int, data_seconds: float) -> None:
        """One step done."""
        now = time.perf_counter()
        if self._last is not None:
            self.examples += examples
            self.seconds += now - self._last
            self.data_seconds += data_seconds
            self.steps += 1
        self._last = now

    def blocked_since(self, started: float) -> None:
        """From `started` (time.perf_counter) to this moment a checkpoint held training up."""
        self.last_blocked_seconds = time.perf_counter() - started
        self.blocked_seconds += self.last_blocked_seconds
        if self._last is not None:
            self._last += self.last_blocked_seconds

    def paused_since(self, started: float) -> None:
        """From `started` (time.perf_counter) to this moment nothing was trained, and nothing is measured."""
        if self._last is not None:
            self._last += time.perf_counter() - started

    @property
    def blocked_share(self) -> float:
        total = self.seconds + self.blocked_seconds
        return self.blocked_seconds / total if total else 0.0

    def affords(self, share: float) -> bool:
        """Whether one more checkpoint that blocks as long as the last keeps the share of all within this one."""
        return self.blocked_seconds + self.last_blocked_seconds <= share * (self.seconds + self.blocked_seconds)

    def state(self) -> dict[str, float]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


def peak_memory_bytes(device: torch.device) -> int:
    """GPU: the most that tensors took. CPU: the most that the process held (resident set)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mean_logits(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: float, logit_bias: float
) -> tuple[float, float]:
    """Mean logit of the positives, and of all negatives of the global batch, from this rank's [b, d] embeddings.

    Σᵢⱼ xᵢ·yⱼ = (Σᵢ xᵢ)·(Σⱼ yⱼ), so no B × B matrix is needed.
    """
    images, texts = image_features.double(), text_features.double()
    dim = images.shape[1]
    paired = (images * texts).sum()
    sums = torch.cat([images.sum(0), texts.sum(0), paired.view(1), paired.new_tensor([len(images)])])
    sums = sum_over_ranks(sums)
    all_pairs, paired, count = (sums[:dim] @ sums[dim : 2 * dim]).item(), sums[-2].item(), sums[-1].item()
    negatives = (all_pairs - paired) / max(1.0, count * count - count)
    return logit_scale * paired / count + logit_bias, logit_scale * negatives + logit_bias


def norm(tensors: list[torch.Tensor]) -> float:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors))).item()
