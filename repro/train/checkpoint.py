"""Resumable state on disk: written whole under a temporary name, synced, renamed; the last two are kept.

A checkpoint that cannot be read is passed over, with a warning, for the one before.
"""

import logging
from pathlib import Path
from typing import Any

import torch

from repro.model import WEIGHTS_NAME
from repro.rundir import write_atomically

KEPT = 2

logger = logging.getLogger(__name__)


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write step-<step>.pt and drop all but the newest two."""
    write_atomically(folder / f"step-{step:09d}.pt", lambda temporary: torch.save(state, temporary))
    for old in _checkpoints(folder)[:-KEPT]:
        old.unlink()


def load_latest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None."""
    for file in reversed(_checkpoints(folder)):
        try:
            return torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # whatever a damaged zip or pickle raises
            logger.warning("%s cannot be read (%s); going on from the one before", file, error)
    return None


def save_final(folder: Path, model: torch.nn.Module) -> None:
    """final.pt, as open_clip.create_model(..., pretrained=) and its local-dir find it."""
    write_atomically(folder / "final.pt", lambda temporary: torch.save(model.state_dict(), temporary))
    link = folder / WEIGHTS_NAME
    link.unlink(missing_ok=True)
    link.symlink_to("final.pt")


def drop_resumable(folder: Path) -> None:
    """Remove the checkpoints of a run that came to its end."""
    for old in _checkpoints(folder):
        old.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.pt"))
