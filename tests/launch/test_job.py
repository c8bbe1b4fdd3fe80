"""A rank dies: the others end, the run says which one and why, and is started again where that is allowed."""

import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from repro.launch import JobSettings, job, launch
from repro.runs import ownership
from repro.runs.directory import ENDED
from tests.launch.conftest import kill, processes_of, sha256_fits, small_disk

TWO = JobSettings(ranks=2, checkpoint_seconds=0.5)


class Victim:
    """Sends a signal to one rank, some time after training began: called by the launch to show progress."""

    def __init__(self, cell, rank: int, number: int = signal.SIGKILL, times: int = 1):
        self.cell, self.rank, self.number, self.left = cell, rank, number, times
        self.hit_at = 0.0

    def __call__(self) -> None:
        attempt = ownership.latest(self.cell.directory.attempts)
        if not self.left or attempt is None or not attempt.is_alive() or not self.cell.directory.log_file.exists():
            return
        ranks = processes_of(self.cell.directory)
        if len(ranks) == 2 and time.monotonic() - self.hit_at > 5:
            self.left -= 1
            self.hit_at = time.monotonic()
            kill(ranks[self.rank], self.number)


@pytest.mark.parametrize(("rank", "number", "name"), [(0, signal.SIGKILL, "SIGKILL"), (1, signal.SIGSEGV, "SIGSEGV")])
def test_when_a_rank_dies_the_others_end_and_the_run_says_which_and_why(cell, rank, number, name):
    two_ranks = cell(examples_seen=60_000)
    victim = Victim(two_ranks, rank, number)
    launch([two_ranks], TWO, watch=victim)
    assert time.monotonic() - victim.hit_at < 60
    assert two_ranks.state() == "killed"
    assert f"rank {rank} of 2 was killed by {name}" in two_ranks.directory.read_result()["reason"]
    assert not processes_of(two_ranks.directory)


def test_a_run_whose_rank_died_is_started_again_as_often_as_is_allowed(cell):
    resilient, said = cell(examples_seen=10_000), []
    launch([resilient], JobSettings(ranks=2, restarts=1), watch=Victim(resilient, 1), say=said.append)
    assert resilient.state() == "finished"
    assert "rank 1 of 2 was killed by SIGKILL" in said[0]
    assert said[0].endswith("started again (1 of 1)")
    outcomes = [attempt.outcome for attempt in ownership.all_attempts(resilient.directory.attempts)]
    assert outcomes[0].startswith("died: rank 1 of 2") and outcomes[1] == "finished"
    unlucky = cell(examples_seen=60_000)
    launch([unlucky], JobSettings(ranks=2, restarts=1), watch=Victim(unlucky, 1, times=2))
    assert unlucky.state() == "killed"
    assert "it was started again 1 times" in unlucky.directory.read_result()["reason"]


def test_a_rank_that_is_stuck_counts_as_lost(cell, monkeypatch):
    monkeypatch.setattr(job, "SILENT_SECONDS", 12.0)
    stuck = cell(examples_seen=60_000)
    victim = Victim(stuck, 1, signal.SIGSTOP)
    launch([stuck], TWO, watch=victim)
    assert time.monotonic() - victim.hit_at < 60
    assert stuck.state() == "killed"
    assert "rank 1 gave no sign of life for" in stuck.directory.read_result()["reason"]
    assert not processes_of(stuck.directory)


def test_a_run_on_two_ranks_told_to_make_room_leaves_a_checkpoint_and_goes_on(cell):
    moved = cell(examples_seen=10_000)
    with pytest.raises(KeyboardInterrupt):
        launch([moved], JobSettings(ranks=2), watch=Victim(moved, 1, signal.SIGUSR2))
    result = moved.directory.read_result()
    assert (result["status"], result["make_room"]) == ("interrupted", True)
    assert list(moved.directory.checkpoints.glob("step-*.pt"))
    launch([moved], JobSettings(ranks=2))
    assert moved.state() == "finished"


def test_a_run_that_another_process_has_is_left_alone_and_its_end_waited_for(cell):
    taken = cell(examples_seen=128)
    taken.directory.write_spec(taken.spec)
    attempt = ownership.claim(taken.directory.attempts)

    def finish_it():
        if os.path.exists(attempt.file):
            taken.directory.write_result({"status": "finished", "reason": "", "by": "the other"})
            attempt.end("finished")

    launch([taken], JobSettings(), watch=finish_it)
    assert taken.directory.read_result()["by"] == "the other"


class LittleMemory:
    """Gives each start of a run little more address space than it has when it begins."""

    def __init__(self, cell, more_bytes: int):
        self.cell, self.more_bytes, self.limited = cell, more_bytes, set()

    def __call__(self) -> None:
        for pid in set(processes_of(self.cell.directory).values()) - self.limited:
            self.limited.add(pid)
            status = Path(f"/proc/{pid}/status").read_text()
            size = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))
            resource.prlimit(pid, resource.RLIMIT_AS, (size + self.more_bytes, resource.RLIM_INFINITY))


def test_a_run_out_of_memory_is_oom_or_goes_on_with_a_smaller_micro_batch(cell):
    large = cell(batch_size=8192, micro_batch=8192, examples_seen=8192, warmup_examples=0)
    launch([large], JobSettings(), watch=LittleMemory(large, 700 << 20))
    assert large.state() == "oom"
    reason = large.directory.read_result()["reason"]
    assert reason.startswith("out of memory on rank 0 at batch size 8k, local batch 8,192, micro-batch 8,192")
    said: list[str] = []
    settings = JobSettings(auto_micro_batch=True)
    launch([large], settings, retry=True, watch=LittleMemory(large, 700 << 20), say=said.append)
    assert large.state() == "finished"
    assert "going on with micro-batch 4k" in said[0]
    assert large.directory.read_result()["micro_batch_used"] < 8192


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_ends_the_run_with_that_word_and_the_last_good_checkpoint(cell, tmp_path, ranks):
    with small_disk(tmp_path / "runs", megabytes=24) as filled_up:
        full = cell(examples_seen=30_000)
        assert full.directory.path.is_relative_to(tmp_path / "runs")
        launch([full], JobSettings(checkpoint_seconds=0.2, ranks=ranks), watch=filled_up)
        assert full.state() == "disk-full"
        assert "the disk is full" in full.directory.read_result()["reason"]
        good = [file for file in full.directory.checkpoints.glob("step-*.pt") if sha256_fits(file)]
        assert good and not list(full.directory.path.rglob("*.unfinished"))
        filled_up.make_room()
        launch([full], JobSettings(), retry=True)
        assert full.state() == "finished"


def test_a_rank_that_left_in_order_is_not_taken_for_lost(cell, monkeypatch):
    monkeypatch.setattr(job, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    evaluating = cell()
    evaluating.directory.job.mkdir(parents=True)
    signs = job.SignsOfLife(evaluating, TWO)
    for rank in (0, 1):
        evaluating.directory.alive_file(rank).write_text("host 1\n")
    assert signs.silent() == ""
    evaluating.directory.alive_file(1).write_text(ENDED)
    time.sleep(0.01)
    evaluating.directory.alive_file(0).touch()
    assert signs.silent() == ""
    evaluating.directory.alive_file(0).touch()
    signs.silent()
    time.sleep(0.01)
    assert signs.silent().startswith("rank 0 gave no sign of life")


def test_a_rank_that_never_begins_is_noticed(cell, monkeypatch):
    monkeypatch.setattr(job, "BEGIN_SECONDS", -1.0)
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    slow = cell()
    assert job.SignsOfLife(slow, TWO).silent() == "rank 0 did not begin within -1 s"


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (["41 computing 7", "39 waiting 7"], "rank 0 of 2 has not moved on for 0 s (computing in step 7), and"),
        (["41 waiting 7", "39 reading 7"], "rank 1 of 2 has not moved on for 0 s (reading in step 7), and"),
        (["41 waiting 7", "41 waiting 7"], "the ranks wait for each other in an exchange"),
        (["41 computing 7", "41 computing 7"], ""),
        (["41 preparing 7", "41 waiting 7"], ""),
    ],
)
def test_who_stands_still_is_told_from_who_waits_and_who_may_take_any_time(cell, monkeypatch, places, sentence):
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    training = cell()
    training.directory.job.mkdir(parents=True)
    signs = job.SignsOfLife(training, replace(TWO, timeout_seconds=0.0))
    for rank, place in enumerate(places):
        training.directory.alive_file(rank).write_text(f"host 1\n{place}\n")
    assert signs.silent() == ""
    time.sleep(0.01)
    assert signs.silent().startswith(sentence) and bool(signs.silent()) == bool(sentence)
    training.directory.alive_file(1).write_text(f"host 1\n42 {places[1].partition(' ')[2]}\n")
    assert signs.silent() == "", "it has moved"


def test_ranks_that_have_left_while_the_first_evaluates_stop_nothing(cell, monkeypatch):
    monkeypatch.setattr(job, "LOOK_SECONDS", 0.0)
    evaluating = cell()
    evaluating.directory.job.mkdir(parents=True)
    signs = job.SignsOfLife(evaluating, replace(TWO, timeout_seconds=0.0))
    evaluating.directory.alive_file(0).write_text("host 1\n50 evaluating 8\n")
    evaluating.directory.alive_file(1).write_text(ENDED)
    for _ in range(2):
        assert signs.silent() == ""
        time.sleep(0.01)
