"""A run has one process at a time, and one that was taken for dead writes nothing more."""

import json
import multiprocessing
import os
import time

import pytest

from repro.runs import ownership


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a-run" / "job" / "attempts"


def claim_and_wait(folder, claimed, end):
    ownership.claim(folder)
    claimed.set()
    end.wait(30)


@pytest.fixture
def another_process(folder):
    """A process that has the run, killed at the end."""
    context = multiprocessing.get_context("forkserver")
    claimed, end = context.Event(), context.Event()
    process = context.Process(target=claim_and_wait, args=(folder, claimed, end))
    process.start()
    assert claimed.wait(30)
    yield process
    process.kill()
    process.join()


def change(attempt, **values):
    attempt.file.write_text(json.dumps(json.loads(attempt.file.read_text()) | values))


def elsewhere(folder, **values):
    """An attempt of a process on another machine."""
    attempt = ownership.claim(folder)
    change(attempt, host="elsewhere", **values)
    return attempt.file


def test_two_processes_cannot_have_one_run_and_a_killed_one_lets_go(folder, another_process):
    with pytest.raises(ownership.Busy, match=f"another process.*pid {another_process.pid}"):
        ownership.claim(folder)
    another_process.kill()
    another_process.join()
    assert not ownership.latest(folder).is_alive()
    assert ownership.claim(folder).number == 2


def test_an_attempt_that_ended_is_over_though_its_process_lives(folder):
    ownership.claim(folder).end("interrupted")
    assert ownership.claim(folder).number == 2
    assert [attempt.outcome for attempt in ownership.all_attempts(folder)] == ["interrupted", ""]


def test_who_was_taken_for_dead_and_comes_back_is_refused(folder):
    first = ownership.claim(folder, job_id="7_1")
    first.check_in_force()
    ownership.claim(folder, job_id="7_1")  # the job was requeued: its earlier start is over
    with pytest.raises(ownership.Superseded, match="attempt 2 has taken this run over"):
        first.check_in_force()


def test_a_process_of_another_machine_lives_while_it_gives_signs(folder):
    file = elsewhere(folder)
    assert ownership.latest(folder).is_alive()
    with pytest.raises(ownership.Busy, match="elsewhere"):
        ownership.claim(folder, patience_seconds=0)
    os.utime(file, (0, time.time() - ownership.STALE_SECONDS - 1))
    assert not ownership.latest(folder).is_alive()
    assert ownership.claim(folder, patience_seconds=0).number == 2


def test_the_number_of_a_dead_process_given_to_another_is_not_taken_for_it(folder):
    attempt = ownership.claim(folder)
    change(attempt, process_started="another boot 1")
    assert not ownership.latest(folder).is_alive()


def test_an_attempt_whose_file_was_cut_off_counts_by_its_time(folder):
    attempt = ownership.claim(folder)
    attempt.file.write_text('{"ho')
    assert ownership.latest(folder).is_alive()
    os.utime(attempt.file, (0, 0))
    assert ownership.claim(folder).number == 2


def take(folder, queue, over):
    try:
        queue.put(ownership.claim(folder).number)
        over.wait(60)
    except ownership.Busy:
        queue.put(None)


def test_of_many_at_once_one_gets_the_run(folder):
    context = multiprocessing.get_context("forkserver")
    queue, over = context.Queue(), context.Event()
    processes = [context.Process(target=take, args=(folder, queue, over)) for _ in range(6)]
    for process in processes:
        process.start()
    numbers = [queue.get(timeout=120) for _ in processes]
    over.set()
    for process in processes:
        process.join()
    assert sorted(number for number in numbers if number) == [1]


def test_signs_of_life_come_while_it_lives_and_then_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.05)
    file = tmp_path / "alive-0"
    with ownership.beating(file):
        os.utime(file, (0, 0))
        until = time.monotonic() + 60
        while ownership.seconds_since_beat(file) > 60:
            assert time.monotonic() < until
            time.sleep(0.01)
    os.utime(file, (0, 0))
    time.sleep(0.2)
    assert ownership.seconds_since_beat(file) > 60
    assert ownership.seconds_since_beat(tmp_path / "none") == float("inf")
