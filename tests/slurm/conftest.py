"""The cluster that tests of SLURM share."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.config import TWO_NODES, Shape


@contextlib.contextmanager
def started(folder: Path, shape: Shape) -> Iterator[Cluster]:
    """A running cluster; a test that asks for it is skipped where none can be had."""
    if sentence := missing():
        (pytest.fail if os.environ.get("REPRO_NO_SKIPS") else pytest.skip)(sentence)
    with Cluster(folder, shape) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("slurm"), TWO_NODES) as running:
        yield running
