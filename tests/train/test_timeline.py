"""A timeline says how long each part of a step took; on a GPU without waiting for it."""

import time

import pytest
import torch

from repro.train.meters import Timeline

GPU = torch.device("cuda")


def test_time_belongs_to_the_innermost_part(clock):
    timeline = Timeline()
    with timeline.during("loss"):
        with timeline.during("exchange"):
            clock.sleep(5)
        clock.sleep(2)
    clock.sleep(10)
    timeline.end_step(counted=True)
    expected = {"towers": 0, "loss": 2, "exchange": 5, "optimizer": 0}
    assert timeline.read() == pytest.approx(expected, abs=1e-3)


def test_a_step_is_read_once_and_one_that_is_not_counted_never(clock):
    timeline = Timeline()
    for counted in (False, True):
        with timeline.during("towers"):
            clock.sleep(2)
        timeline.end_step(counted)
    assert timeline.read()["towers"] == pytest.approx(2, abs=1e-3)
    assert timeline.read()["towers"] == 0


class FakeEvent:
    """An event on a GPU that has come to event number `past`, one a second."""

    made = recorded = past = 0

    def __init__(self, enable_timing: bool):
        assert enable_timing
        FakeEvent.made += 1

    def record(self):
        self.number = FakeEvent.recorded = FakeEvent.recorded + 1

    def query(self):
        return self.number <= FakeEvent.past

    def synchronize(self):
        FakeEvent.past = max(FakeEvent.past, self.number)

    def elapsed_time(self, end):
        assert end.query()
        return 1e3 * (end.number - self.number)


@pytest.fixture
def on_gpu(monkeypatch):
    """A timeline on a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    for count in ("made", "recorded", "past"):
        monkeypatch.setattr(FakeEvent, count, 0)
    return Timeline(GPU)


def step(timeline):
    """Two events: a second of the towers."""
    with timeline.during("towers"):
        pass
    timeline.end_step(counted=True)


def test_a_step_that_the_gpu_has_not_come_to_the_end_of_is_read_later(on_gpu):
    for _ in range(3):
        step(on_gpu)
    FakeEvent.past = 3
    assert on_gpu.read()["towers"] == 1
    FakeEvent.past = 6
    assert on_gpu.read()["towers"] == 2


def test_a_gpu_is_waited_for_when_asked(on_gpu):
    for _ in range(3):
        step(on_gpu)
    assert on_gpu.read(wait=True)["towers"] == 3


def test_events_that_were_read_are_used_again(on_gpu):
    for _ in range(10):
        step(on_gpu)
        on_gpu.read(wait=True)
    assert FakeEvent.made == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_part_is_the_time_of_its_kernels_and_not_that_of_launching_them():
    timeline, matrix = Timeline(GPU), torch.ones(8192, 8192, device=GPU)
    matrix @ matrix  # the first of all is slow to launch
    torch.cuda.synchronize()
    started = time.perf_counter()
    with timeline.during("towers"):
        for _ in range(20):
            matrix @ matrix
    launched = time.perf_counter() - started
    timeline.end_step(counted=True)
    assert timeline.read(wait=True)["towers"] > 2 * launched
