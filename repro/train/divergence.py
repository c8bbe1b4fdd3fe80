"""When a loss that is still a number has diverged: it stays far above where it began, for many steps in a row.

The sigmoid loss with b = 0 begins at hundreds and falls, so the bound is a multiple of the first loss. Towers that
begin well have a first loss near zero, of which any multiple is small; so the bound is never below the same multiple
of the loss of towers that know nothing, 1 + ln B: what the best constant similarity gets (softmax: ln B).
"""

import math

from repro.config.errors import Diverged
from repro.config.spec import RunSpec

LEAST_STEPS = 20


class LossBound:
    """Counts the steps in a row whose loss is above the bound."""

    def __init__(self, spec: RunSpec):
        self.ratio, self.batch_size = spec.max_loss_ratio, spec.batch_size
        self.steps = max(LEAST_STEPS, math.ceil(spec.max_loss_share * spec.steps))
        self.first_loss: float | None = None
        self.above = 0

    @property
    def bound(self) -> float:
        if self.ratio is None or self.first_loss is None:
            return math.inf
        return self.ratio * max(self.first_loss, 1 + math.log(self.batch_size))

    def see(self, loss: float, step: int) -> None:
        """The loss of a step (the first is 1), of the global batch and so the same on all ranks.

        Raises Diverged where it is not finite, or too high for too long.
        """
        place = f"at step {step:,}, {(step - 1) * self.batch_size:,} examples"
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} {place}", agreed=True)
        if self.first_loss is None:
            self.first_loss = loss
        self.above = self.above + 1 if loss > self.bound else 0
        if self.above >= self.steps:
            raise Diverged(
                f"the loss is {loss:.4g} {place}, and was above {self.bound:.4g} for {self.above} steps in a row "
                f"(max_loss_ratio {self.ratio:g}; it began at {self.first_loss:.4g})",
                agreed=True,
            )

    def state(self) -> dict[str, float | int | None]:
        return {"first_loss": self.first_loss, "above": self.above}

    def restore(self, state: dict[str, float | int | None]) -> None:
        self.first_loss, self.above = state["first_loss"], state["above"]
