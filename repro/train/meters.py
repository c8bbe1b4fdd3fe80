"""What a run says of itself while it trains: norms, logits, speed, memory. Nothing here changes a result."""

import resource
import time
from dataclasses import dataclass, field

import torch

from repro.train.distributed import sum_over_ranks


@dataclass
class Clock:
    """Seconds and examples of training, the first step after each start aside (it warms up), over resumes too."""

    examples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    steps: int = 0
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

    def skip(self) -> None:
        """What happened since the last tick was not training."""
        self._last = time.perf_counter()

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
