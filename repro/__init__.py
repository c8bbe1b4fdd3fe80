"""Sigmoid against softmax loss in language-image pre-training, batch size by batch size (SigLIP)."""

__version__ = "0.1.0"
