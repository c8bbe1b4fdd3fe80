"""What a process holds in memory, for as long as it lives."""

import os

import pytest

from repro.bench.resident import resident_bytes


def test_a_process_that_has_ended_has_no_memory():
    assert resident_bytes() > 0
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie still
    with pytest.raises(ProcessLookupError, match="has ended"):
        resident_bytes(pid)
    os.waitpid(pid, 0)
