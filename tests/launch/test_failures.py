"""One rank of two fails alone, while the other is stuck in an exchange that will never be: the run ends all the same,
with the right status, rank and reason, and no process is left. Leaving the group is made to block, as NCCL's does.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro.launch import JobSettings, job, launch, local
from repro.runs import ownership

FAULT, STRUCK = "fault.json", "struck"
TWO = JobSettings(ranks=2)


def raise_out_of_memory():
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")


def raise_bad_data():
    from repro.config.errors import BadData

    raise BadData("12 of 100 samples are bad", {("00000.tar", "not an image"): 12})


def raise_diverged():
    from repro.config.errors import Diverged

    raise Diverged("the loss is nan at step 2")


def raise_what_nobody_expects():
    raise RuntimeError("an unexpected thing")


def stand_still():
    while True:
        time.sleep(1)


def rank_with_a_fault(directory, settings, rank, port, gpus):
    """As local.rank_process, but for put_fault."""
    put_fault(directory, rank)
    local_rank(directory, settings, rank, port, gpus)


def put_fault(directory, rank):
    """The fault that job/fault.json names, in one rank's second optimizer step of this process."""
    import torch

    from repro.train import trainer

    fault = json.loads((directory.job / FAULT).read_text())
    (directory.job / f"pid-{rank}").write_text(str(os.getpid()))
    if not directory.micro_batch_file.exists():  # started again after it was out of memory, it is to end
        torch.distributed.destroy_process_group = stand_still
    make_optimizer = trainer.make_optimizer

    def make_faulty(*arguments):
        optimizer = make_optimizer(*arguments)
        steps = []

        def strike(*_):
            steps.append(1)
            if rank == fault["rank"] and len(steps) == 2 and not directory.micro_batch_file.exists():
                (directory.job / STRUCK).touch()
                globals()[fault["kind"]]()

        optimizer.register_step_pre_hook(strike)
        return optimizer

    if rank == fault["rank"]:
        trainer.make_optimizer = make_faulty


local_rank = local.rank_process


@pytest.fixture
def faulty(cell, monkeypatch):
    """A run on two ranks of which one will fail: faulty(rank, kind)."""
    monkeypatch.setattr(local, "rank_process", rank_with_a_fault)

    def make(rank, kind, **values):
        made = cell(**{"examples_seen": 60_000, "warmup_examples": 0} | values)
        made.directory.write_spec(made.spec)
        (made.directory.job / FAULT).write_text(json.dumps({"rank": rank, "kind": kind.__name__}))
        return made

    return make


def left_running(run):
    pids = [int(file.read_text()) for file in run.directory.job.glob("pid-*")]
    assert len(pids) == run.directory.read_spec().batch_size // 32
    return [pid for pid in pids if ownership.process_started(pid)]


ENDS = {
    raise_out_of_memory: (
        "oom",
        "out of memory on rank {rank} at batch size 64, local batch 32, micro-batch 32: tried",
    ),
    raise_bad_data: ("bad-data", "rank {rank} of 2: 12 of 100 samples are bad"),
    raise_diverged: ("diverged", "rank {rank} of 2: the loss is nan at step 2"),
    raise_what_nobody_expects: ("failed", "rank {rank} of 2: RuntimeError: an unexpected thing"),
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", ENDS, ids=lambda kind: kind.__name__)
def test_a_rank_that_fails_alone_ends_the_run_with_its_status_and_reason(faulty, kind, rank):
    run = faulty(rank, kind)
    launch([run], TWO)
    status, reason = ENDS[kind]
    result = run.directory.read_result()
    assert (result["status"], run.state()) == (status, status)
    assert result["reason"].startswith(reason.format(rank=rank))
    assert ownership.latest(run.directory.attempts).outcome == status
    assert not left_running(run)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_stands_still_is_found_while_the_others_wait_for_it(faulty, rank):
    run = faulty(rank, stand_still)
    launch([run], JobSettings(ranks=2, timeout_seconds=3))
    result = run.directory.read_result()
    assert result["status"] == "killed"
    assert result["reason"].startswith(f"rank {rank} of 2 has not moved on for")
    assert "(computing in step 2), and the others wait for it" in result["reason"]
    assert not left_running(run)


@pytest.mark.parametrize("rank", [0, 1])
def test_out_of_memory_on_any_rank_halves_the_micro_batch_where_that_is_wanted(faulty, rank):
    run, said = faulty(rank, raise_out_of_memory, examples_seen=640), []
    launch([run], JobSettings(ranks=2, auto_micro_batch=True), say=said.append)
    assert "going on with micro-batch 16" in said[0]
    assert run.state() == "finished"
    assert run.directory.read_result()["micro_batch_used"] == 16


def test_a_launch_that_is_ended_leaves_no_rank_behind_that_stands_still(faulty, monkeypatch):
    monkeypatch.setattr(job, "STOP_SECONDS", 2.0)
    run = faulty(1, stand_still)

    def end_the_launch():
        with contextlib.suppress(FileNotFoundError):
            (run.directory.job / STRUCK).unlink()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        launch([run], TWO, watch=end_the_launch)
    assert not left_running(run)


def test_under_torchrun_where_no_launch_looks_on_a_rank_that_fails_alone_ends_the_run_too(faulty):
    run = faulty(1, raise_what_nobody_expects)
    program = (
        "import os; from repro.cli import main; from repro.runs.directory import RunDirectory; "
        "from tests.launch.test_failures import put_fault; "
        f"put_fault(RunDirectory({str(run.directory.path)!r}), int(os.environ['RANK'])); main()"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, sys.executable, "-c", program, "run", str(run.directory.spec_file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode != 0
    result = run.directory.read_result()
    assert (result["status"], result["reason"]) == ("failed", "rank 1 of 2: RuntimeError: an unexpected thing")
    assert not left_running(run)
