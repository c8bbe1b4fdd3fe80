"""Work in the background is waited for, one piece at a time, and its failure is raised where it is looked for."""

import threading

import pytest

from repro.train.checkpoint import Background


def fail():
    raise OSError("the disk is gone")


def test_a_failure_is_raised_by_the_next_check_once():
    with Background() as background:
        background.start(fail)
        while background.busy:
            pass
        with pytest.raises(OSError, match="the disk is gone"):
            background.check()
        background.check()


def test_a_check_does_not_wait():
    go_on = threading.Event()
    with Background() as background:
        background.start(lambda: go_on.wait(30) and None)
        background.check()
        assert background.busy
        go_on.set()


def test_leaving_waits_for_the_work_and_raises_its_failure():
    done = []
    with Background() as background:
        background.start(lambda: done.append(True))
    assert done
    with pytest.raises(OSError, match="the disk is gone"), Background() as background:
        background.start(fail)


def test_leaving_by_an_error_keeps_that_error_and_logs_the_other(caplog):
    with pytest.raises(ZeroDivisionError), Background() as background:
        background.start(fail)
        1 / 0  # noqa: B018
    assert "while ZeroDivisionError ended the run, a checkpoint failed too: the disk is gone" in caplog.text
