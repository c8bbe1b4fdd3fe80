"""Which GPU a local run gets: one for each of its ranks, and no two runs the same while others are free."""

import contextlib

import pytest

from repro.config import hardware
from repro.launch import JobSettings, default_jobs, launch, local


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """As on a machine with so many GPUs: gpus(8), or gpus(8, 'the value of CUDA_VISIBLE_DEVICES')."""

    def there_are(count, listed=None):
        for name in ["nvidiactl", *(f"nvidia{number}" for number in range(count))]:
            (tmp_path / name).touch()
        monkeypatch.setattr(hardware, "DEVICES", tmp_path)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if listed is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)

    return there_are


@pytest.mark.parametrize(
    ("count", "listed", "visible"),
    [
        (0, None, ()),
        (0, "0", ()),
        (2, None, ("0", "1")),
        (8, "3,5", ("3", "5")),
        (8, "", ()),
        (2, "GPU-1a", ("GPU-1a",)),
    ],
)
def test_the_gpus_of_a_machine_are_those_that_cuda_would_show(gpus, count, listed, visible):
    gpus(count, listed)
    assert hardware.visible_gpus() == visible


@pytest.mark.parametrize(("ranks", "jobs"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_by_default_as_many_runs_go_side_by_side_as_there_are_gpus_for_their_ranks(gpus, ranks, jobs):
    gpus(8)
    assert default_jobs(threads=8, ranks=ranks) == jobs


def test_runs_are_dealt_to_gpus_and_share_one_only_where_none_is_free(cell):
    a, b, c = (cell(seed=seed) for seed in range(3))
    dealt = local.Gpus(["0", "1", "2"])
    assert dealt.take(a, ranks=2) == ("0", "1")
    assert dealt.take(b, ranks=1) == ("2",)
    assert dealt.take(c, ranks=2) == ("0", "1")
    dealt.give_back(a)
    dealt.give_back(c)
    assert dealt.take(c, ranks=2) == ("0", "1")
    assert local.Gpus([]).take(a, ranks=2) == ()


def what_it_sees(directory, settings, rank, port, gpus):
    """In the place of a run: writes down the GPUs that each rank would see, and waits for the others' turn."""
    import os
    import time

    local.run_rank = lambda directory, settings: 0
    with contextlib.suppress(SystemExit):
        the_real_rank(directory, settings, rank, port, gpus)
    (directory.job / f"sees-{rank}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    while len(list(directory.path.parent.glob("*/job/sees-*"))) < 2 * settings.ranks:
        time.sleep(0.1)
    directory.write_result({"status": "finished", "reason": ""})


the_real_rank = local.rank_process


def test_ranks_of_a_run_see_the_runs_gpus_and_no_others(cell, gpus, monkeypatch):
    gpus(4)
    monkeypatch.setattr(local, "rank_process", what_it_sees)
    runs = [cell(seed=seed, evals=()) for seed in range(2)]
    launch(runs, JobSettings(ranks=2), jobs=2)
    seen = {file.read_text() for run in runs for file in run.directory.job.glob("sees-*")}
    assert seen == {"0,1", "2,3"}
