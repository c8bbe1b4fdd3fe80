"""Training images of the embedded world's classes: the `train` split that its classification set needs for a probe.

They lie beside the test split and come from a random stream of their own, so that a world without them, made before or
by hand, gets them where they are wanted, and no byte of it changes.
"""

import json
import shutil
from uuid import uuid4

import numpy as np

from repro.config.errors import InputError
from repro.world.scenes import CLASSES
from repro.world.write import OBJECTS, ShapesWorld, object_samples, write_tar

SHOTS = 10
"""Images of each class: the paper's 10-shot."""
_STREAM = 3
"""Number of the random stream of a seed; write.py has 0 to 2."""


def complete(world: ShapesWorld) -> str:
    """The folder of the world's classification set, with its training split, drawn where it is missing.

    The split appears whole or not at all; of two processes that draw it at once, the first to finish counts.
    Raises InputError where it cannot be written.
    """
    folder = world.folder / OBJECTS
    if (folder / "train").is_dir():
        return str(folder)
    values = json.loads((world.folder / "world.json").read_text())
    partial = folder / f".train.{uuid4().hex[:8]}.partial"
    try:
        partial.mkdir()
        (partial / "nshards.txt").write_text("1\n")
        rng = np.random.default_rng([values["seed"], _STREAM])
        write_tar(partial / "0.tar", object_samples(rng, SHOTS * len(CLASSES), values["image_size"]), 0)
        try:
            partial.rename(folder / "train")
        except OSError:
            if not (folder / "train").is_dir():
                raise
    except OSError as error:
        raise InputError(f"{folder}: its training split cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(folder)
