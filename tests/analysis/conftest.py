"""Made-up series whose truth is known, and the paper's tables."""

import numpy as np
import pandas as pd
import pytest

from repro.results import tables
from tests.report.conftest import run_row

ACCURACY = "wds_shapes_objects/acc1"
IMAGENET = "imagenet1k/acc1"


def series(percents, seeds=3, noise=0.3, loss="sigmoid", seed=0, **changed):
    """Runs with these true accuracies, by batch size, and normal noise in points."""
    draws = np.random.default_rng(seed)
    rows = [
        run_row(loss, size, number, (percent + noise * draws.standard_normal()) / 100, **changed)
        for size, percent in percents.items()
        for number in range(seeds)
    ]
    return pd.DataFrame(rows)


RISE_AND_PLATEAU = {32: 30.0, 64: 40.0, 128: 47.0, 256: 50.0, 512: 50.1, 1024: 50.0}


@pytest.fixture(scope="session")
def paper():
    """Tables of the paper by name."""
    return {name: tables.load(f"paper:{name}") for name in ("table-2", "table-5", "table-7", "table-8", "table-9")}
