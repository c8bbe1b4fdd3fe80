"""What `repro bench gpu` runs on a GPU; without one it runs on the CPU, so that no test is first run there."""

import math

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def poisoned(device):
    """Memory that nobody has written to holds NaN: whoever reads it is found out."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)  # on which filling depends
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3, device=device).isnan().all()
    if device.type == "cuda":  # what is handed out by other means than torch.empty
        torch.full((2**28,), math.nan, device=device)
    yield
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
