"""The setups there are: how the two towers are trained, as far as the code must know."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    """needs_weights: of an image tower, to start from. reads_embeddings: of images, made
    before training by a frozen tower. evaluates_only: trains nothing; weights that somebody else trained (table 3).
    """

    name: str
    needs_weights: bool = False
    reads_embeddings: bool = False
    evaluates_only: bool = False


SETUPS = {
    setup.name: setup
    for setup in (
        Setup("siglip"),
        Setup("siglit", needs_weights=True, reads_embeddings=True),
        Setup("msiglip"),
        Setup("finetune", needs_weights=True),
        Setup("released", evaluates_only=True),
    )
}
