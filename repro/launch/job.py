"""Carry out one job: start a run's ranks, watch that they live, and see that however they end is recorded.

The same for local processes and for SLURM (an object that starts and watches ranks is given); light enough to live
beside them, without torch. When one rank dies the others are ended, the run says which and why, and is started again
from its last checkpoint where the settings allow.
"""

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from repro.config.files import write_json
from repro.config.units import format_batch_size, smaller_micro_batch
from repro.launch.cell import Cell, JobSettings
from repro.runs import liveness, ownership
from repro.runs.directory import ENDED, UNFINISHED
from repro.runs.liveness import BUSY, DISK_FULL, TIMED, WAITING

SILENT_SECONDS = 45.0
"""A rank that gave signs of life and gives none for so long is lost: its node, or the way to it."""
LOOK_SECONDS = 5.0
"""Between two looks at the signs of life."""
BEGIN_SECONDS = 600.0
"""Time for the ranks to come to life: clusters are slow to load Python on many nodes."""
END_SECONDS = 10.0
"""Time for the other ranks to end by themselves when one has failed."""
STOP_SECONDS = 60.0
"""Time that ranks which were asked to stop may stand still."""


@dataclass(frozen=True)
class Exit:
    """How a rank's process ended. code: its exit code, or 0 minus the signal's number. text: in words.

    out_of_memory: whether it was killed because the job was over its memory limit.
    """

    rank: int
    code: int
    text: str
    out_of_memory: bool = False


class Ranks(Protocol):
    """The processes of one start of a run."""

    def exits(self) -> list[Exit]:
        """Those that have ended, in the order in which they did."""

    def running(self) -> bool: ...

    def terminate(self) -> None:
        """Ask all to leave a checkpoint and end."""

    def kill(self) -> None: ...

    node_failed: bool
    """Whether a whole node was lost, and the job with it."""


StartRanks = Callable[[Cell, JobSettings], Ranks]


@dataclass
class Job:
    """One run's ranks from their start to a recorded end. `outcome` then says: done, stopped, make-room or busy.

    leaving: whether the job itself is being ended from outside, so that its ranks' ends mean nothing. deaths: earlier
    starts of the same job that did not end in order. log: the job's own, where it has one.
    """

    cell: Cell
    settings: JobSettings
    start_ranks: StartRanks
    say: Callable[[str], None] = lambda text: None
    leaving: Callable[[], bool] = lambda: False
    deaths: int = 0
    log: Path | None = None
    outcome: str = ""
    ranks: Ranks | None = None
    _watch: "SignsOfLife | None" = field(default=None, repr=False)
    _first_failure: float | None = None
    _killed: str = ""

    def start(self) -> None:
        directory = self.cell.directory
        directory.job.mkdir(parents=True, exist_ok=True)
        result = directory.read_result()
        if result is not None and result["status"] in UNFINISHED:
            directory.result_file.unlink()  # so that a result that is there at the end is of this start
        shutil.rmtree(directory.failures, ignore_errors=True)
        self._first_failure, self._killed = None, ""
        self._watch = SignsOfLife(self.cell, self.settings)
        self.ranks = self.start_ranks(self.cell, self.settings)

    def poll(self) -> bool:
        """Look after the ranks; True once the job is over. To be called every second or so."""
        assert self.ranks is not None and self._watch is not None
        failed = [one for one in self.ranks.exits() if one.code != 0]
        if self.ranks.running():
            if self._first_failure is None and (failed or liveness.failures(self.cell.directory)):
                self._first_failure = time.monotonic()
            if self._first_failure is not None:
                if time.monotonic() - self._first_failure > END_SECONDS:
                    self.ranks.kill()
            elif self._killed or (silent := self._watch.silent(self.leaving())):
                self._killed = self._killed or silent
                self.ranks.kill()
            return False
        again = self._conclude(failed)
        if again:
            self.start()
        return not again

    def give_up(self, reason: str) -> None:
        """Record that the run is not started once more."""
        self._record("killed", reason)
        self.outcome = "done"

    def _conclude(self, failed: list[Exit]) -> bool:
        """Record how it ended; whether to start again."""
        directory = self.cell.directory
        busy = any(one.code == BUSY for one in failed)
        result = directory.read_result() or (None if busy else self._told_by_a_rank())
        status = result["status"] if result is not None else ""
        if not status and any(one.out_of_memory for one in failed) and not self.leaving():
            status, result = "oom", {"status": "oom", "reason": self._over_the_limit(failed)}
            directory.write_result(result)
        if status == "oom" and self.settings.auto_micro_batch and self._halve_micro_batch(result):
            return True
        if status and status not in UNFINISHED:
            self.outcome = "done"
        elif busy:
            self.outcome = "busy"
        elif self.leaving() or self.ranks.node_failed:
            self.outcome = "stopped"
        elif self._killed:
            return self._died("killed", self._killed)
        elif any(one.code == DISK_FULL for one in failed):
            self._record("disk-full", f"{directory.path}: the disk is full")
            self.outcome = "done"
        elif failed:
            return self._died(*self._cause(failed))
        elif status == "interrupted":
            self.outcome = "make-room" if result.get("make_room") else "stopped"
        else:
            return self._died("failed", "ended without a result")
        return False

    def _told_by_a_rank(self) -> dict[str, Any] | None:
        """Record the failure that a rank left, where rank 0 could not do so; None where none says why."""
        failure = liveness.root_cause(self.cell.directory)
        if failure is None or failure["lost_contact"]:
            return None
        result = {key: value for key, value in failure.items() if key not in ("lost_contact", "rank")}
        self.cell.directory.write_result(result)
        attempt = ownership.latest(self.cell.directory.attempts)
        if attempt is not None and not attempt.outcome and not attempt.is_alive():
            attempt.end(result["status"])
        return result

    def _cause(self, failed: list[Exit]) -> tuple[str, str]:
        """Status and reason, with what a rank could say of its lost contact where nobody knows more."""
        status, reason = first_cause(failed)
        lost = liveness.root_cause(self.cell.directory)
        return status, f"{reason}: {lost['reason']}" if lost and status == "failed" else reason

    def _died(self, status: str, reason: str) -> bool:
        """A rank died: start again, or record it."""
        directory = self.cell.directory
        logs = [file for file in (directory.output_file, self.log) if file is not None and file.exists()]
        reason = f"{reason}; see {logs[0]}" if status == "failed" and logs else reason
        attempt = ownership.latest(directory.attempts)
        if attempt is not None and not attempt.outcome and not attempt.is_alive():
            attempt.end(f"died: {reason}")
        self.deaths += 1
        if self.deaths <= self.settings.restarts:
            self.say(f"{reason}; started again ({self.deaths} of {self.settings.restarts})")
            return True
        if self.settings.restarts:
            reason += f"; it was started again {self.settings.restarts} times"
        self._record(status, reason)
        self.outcome = "done"
        return False

    def _over_the_limit(self, failed: list[Exit]) -> str:
        killed = next(one for one in failed if one.out_of_memory)
        spec = self.cell.spec
        local = spec.batch_size // self.settings.ranks
        used = min(local, self.cell.directory.read_micro_batch() or spec.micro_batch)
        batch = format_batch_size(spec.batch_size)
        return f"{killed.text}, at batch size {batch}, local batch {local:,}, micro-batch {used:,}"

    def _record(self, status: str, reason: str) -> None:
        """A directory that cannot be written ends this run, and no other that is looked after here."""
        try:
            self.cell.directory.write_result({"status": status, "reason": reason})
        except OSError as error:
            self.say(f"{status}: {reason}; {self.cell.directory.path} cannot be written ({error.strerror})")

    def _halve_micro_batch(self, result: dict[str, Any]) -> bool:
        spec, directory = self.cell.spec, self.cell.directory
        local = spec.batch_size // self.settings.ranks
        used = min(local, directory.read_micro_batch() or spec.micro_batch)
        smaller = smaller_micro_batch(local, used)
        if smaller is None:
            return False
        self.say(f"{result['reason']}; going on with micro-batch {format_batch_size(smaller)}")
        write_json(directory.micro_batch_file, {"micro_batch": smaller, "because": result["reason"]})
        directory.result_file.unlink()
        return True


def first_cause(failed: list[Exit]) -> tuple[str, str]:
    """Status and reason: a rank that was killed says more than the others, which lost contact with it."""
    killed = [one for one in failed if one.code < 0 and one.code != -signal.SIGTERM]  # with SIGTERM srun ends the rest
    return ("killed", killed[0].text) if killed else ("failed", failed[0].text)


class SignsOfLife:
    """Each rank renews a file while it lives (liveness.py). Judged by this process's clock alone."""

    def __init__(self, cell: Cell, settings: JobSettings):
        self.files = [cell.directory.alive_file(rank) for rank in range(settings.ranks)]
        self.timeout_seconds = settings.timeout_seconds
        self.began = self.last_look = time.monotonic()
        for file in self.files:
            file.unlink(missing_ok=True)  # the signs of an earlier start
        self.beats: dict[int, tuple[float, float]] = {}
        self.places: dict[int, tuple[str, float]] = {}

    def silent(self, stopping: bool = False) -> str:
        """A sentence about a rank that has gone silent, or for which the others wait too long; '' if there is none."""
        now = time.monotonic()
        if now - self.last_look < LOOK_SECONDS:
            return ""
        self.last_look = now
        for rank, file in enumerate(self.files):
            beat = ownership.beat_time(file)
            if beat is None and rank not in self.beats and now - self.began > BEGIN_SECONDS:
                return f"rank {rank} did not begin within {BEGIN_SECONDS:.0f} s"
            if beat is None:
                continue
            previous, since = self.beats.get(rank, (None, now))
            if beat != previous:
                self.beats[rank] = (beat, now)
            elif now - since > SILENT_SECONDS and file.read_text() != ENDED:
                return f"rank {rank} gave no sign of life for {now - since:.0f} s: its node or process is lost or stuck"
        return self._standing_still(now, min(STOP_SECONDS, self.timeout_seconds) if stopping else self.timeout_seconds)

    def _standing_still(self, now: float, limit_seconds: float) -> str:
        """Some ranks wait for others in the middle of training, and no rank moves: a sentence that names whom."""
        for rank, file in enumerate(self.files):
            place = liveness.read_place(file)
            if place != self.places.get(rank, ("", 0.0))[0]:
                self.places[rank] = (place, now)
        still = {r: place.split() for r, (place, since) in self.places.items() if place and now - since > limit_seconds}
        doing = {rank: words[1] for rank, words in still.items()}
        if len(doing) < len(self.files) or WAITING not in doing.values() or not set(doing.values()) <= set(TIMED):
            return ""
        seconds = now - max(since for _, since in self.places.values())
        limit = f"(--timeout {limit_seconds:g})"
        if (stuck := next((rank for rank in doing if doing[rank] != WAITING), None)) is None:
            return f"the ranks wait for each other in an exchange, for {seconds:.0f} s {limit}"
        where = f"{doing[stuck]} in step {int(still[stuck][2]):,}"
        who = f"rank {stuck} of {len(self.files)}"
        return f"{who} has not moved on for {seconds:.0f} s ({where}), and the others wait for it {limit}"
