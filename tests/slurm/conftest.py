"""The cluster that tests of SLURM share."""

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running two-node cluster; a test that asks for it is skipped where none can be had."""
    if sentence := missing():
        (pytest.fail if os.environ.get("REPRO_NO_SKIPS") else pytest.skip)(sentence)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running
