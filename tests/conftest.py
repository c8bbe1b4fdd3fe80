"""What tests share: a cache of their own, a small world, offline hubs; and how files of tests run side by side."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that spin take the CPUs from the tests beside

SLOW = ("tests/drill/", "tests/slurm/", "tests/report/test_browser.py", "tests/cli/test_embed.py")
SLOW += tuple(f"tests/launch/test_{name}.py" for name in ("kills", "job", "failures", "detached"))
SLOW += tuple(f"tests/bench/test_{name}.py" for name in ("bench", "gpu", "offline"))
"""What the continuous integration runs beside the usual tests: pytest -m slow."""
FIRST = (
    "tests/slurm/test_sweep.py",
    "tests/launch/test_kills.py",
    "tests/bench/test_gpu.py",
    "tests/launch/",
    "tests/slurm/",
    "tests/bench/test_bench.py",
    "tests/report/",
)
"""What takes longest, so that no worker is left with it at the end; all else follows in the usual order."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For all tests one worker more than CPUs, since many tests wait; a file or a choice of tests starts at once."""
    everything = config.args == config.getini("testpaths") and not config.option.keyword
    return min((os.cpu_count() or 1) + 1, 8) if everything else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")
    items.sort(key=lambda item: next((n for n, start in enumerate(FIRST) if item.nodeid.startswith(start)), len(FIRST)))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests neither read nor fill the person's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["REPRO_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def world(cache: Path):
    """The embedded world with 2,048 examples."""
    from repro.world.source import make_world

    return make_world("shapes:2048")


@pytest.fixture
def make_spec(world):
    """A small complete RunSpec, with any field changed: make_spec(loss='softmax')."""
    from repro.config.sweep import Overrides, expand, load_sweep
    from repro.launch.complete import complete

    def make(**values):
        small = {"data": "shapes:2048", "evals": (), "examples_seen": 512, "batch_size": 64, "loss": "sigmoid"}
        (spec,) = complete(expand(load_sweep("batch-size"), "laptop", Overrides({}, small | values)))
        return spec

    return make


@pytest.fixture(scope="session")
def emoji() -> Path:
    """Drawings with names in ten languages, a set that nobody made for this project; it lies beside the checkout."""
    root = Path(__file__).parents[1]
    found = [folder / "shared" / "data" / "emoji" for folder in (root, root.parent)]
    found = [folder for folder in found if folder.is_dir()]
    if not found:
        pytest.skip("the emoji set (shared/data/emoji) is not here")
    return found[0]


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints folder as a run leaves it: the laptop model with weights of its own. Not to be written into."""
    return _left_by_a_run(tmp_path_factory.mktemp("tower") / "checkpoints", seed=7)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, of a model with a bias."""
    return _left_by_a_run(tmp_path_factory.mktemp("run") / "checkpoints", seed=0, init_logit_bias=-10)


def _left_by_a_run(folder: Path, seed: int, **bias: float) -> Path:
    import torch

    from repro.models import build
    from repro.train.checkpoint import Checkpoints

    build.export("laptop", folder, **bias)
    torch.manual_seed(seed)
    Checkpoints(folder).save_final(build.load(folder).model.state_dict(), {})
    return folder
