"""What one rank does in one step, counted: the quantities that its time and memory are made of."""

from dataclasses import dataclass

from repro.config.spec import RunSpec
from repro.estimate.needs import example_bytes, for_run, loss_flops, parameters, passes
from repro.models.sizes import ModelSize


@dataclass(frozen=True)
class Work:
    """Of one rank in one step."""

    examples: int
    image_flops: int
    """Through the towers, forward and backward."""
    text_flops: int
    moved_bytes: int
    """What layers keep for the backward pass, times the passes: a measure of all that is no matrix product."""
    operations: int
    """Calls of torch's operators, which on small tensors cost more than what they compute."""
    learning: int
    """Numbers that the optimizer changes."""
    logged: float
    """Of these, copied and compared for a log line; a share where not every step has one."""
    log_lines: float
    input_bytes: int
    pairs: int
    """Of this rank's images with all texts."""
    loss_flops: int

    @property
    def tower_flops(self) -> int:
        return self.image_flops + self.text_flops


def work_of(spec: RunSpec, size: ModelSize, ranks: int) -> Work:
    local = spec.batch_size // ranks
    size = for_run(spec, size)
    of_images, of_texts = passes(spec, ranks)
    micro_batches = -(-local // spec.micro_batch)
    trained = parameters(spec, size).learning
    lines = 1 / spec.log_every
    pairs = local * spec.batch_size
    # A tower that keeps nothing moves as much, in its one pass.
    moved = of_images * size.image_kept_bytes + of_texts * size.text_kept_bytes
    return Work(
        examples=local,
        image_flops=local * of_images * size.image_flops,
        text_flops=local * of_texts * size.text_flops,
        moved_bytes=local * moved,
        operations=micro_batches * (of_images * size.image_operations + of_texts * size.text_operations),
        learning=trained,
        logged=trained * lines,
        log_lines=lines,
        input_bytes=local * example_bytes(spec, size),
        pairs=pairs if spec.trains else 0,
        loss_flops=pairs * loss_flops(spec, size) if spec.trains else 0,
    )
