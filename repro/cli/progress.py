"""Progress of a launch, as a live table on a terminal or plain lines where the output is piped; then its results."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from repro.cli.status import MOST_LINES
from repro.config.files import CorruptRun
from repro.config.spec import differing, told_value
from repro.config.units import format_batch_size, format_bytes, format_examples
from repro.data.eval_sets import but_languages
from repro.launch import Cell
from repro.launch.records import JobPlace
from repro.runs import liveness, ownership
from repro.runs.directory import UNFINISHED

if TYPE_CHECKING:
    import pandas as pd

    from repro.launch import Cell

STYLES = {
    **{"finished": "green", "running": "bold", "queued": "dim", "pending": "dim"},
    **{"interrupted": "yellow", "cancelled": "yellow"},
}
LINE_SECONDS = 15.0
"""Between two plain lines on the same running run."""


@dataclass(frozen=True)
class RunSummary:
    """One run as a line of the table."""

    label: str
    state: str
    examples_seen: int
    total: int
    rate: float | None
    loss: float | None
    reason: str
    where: str = ""

    @property
    def seconds_left(self) -> float | None:
        if self.state != "running" or not self.rate:
            return None
        return (self.total - self.examples_seen) / self.rate


def summarise(cell: Cell, state: str | None = None, place: JobPlace | None = None) -> RunSummary:
    """One run as it is; state and place where they are known already (launch.states)."""
    state, line = state or cell.state(), cell.directory.last_logged() or {}
    total = cell.spec.steps * cell.spec.batch_size
    seen = total if state == "finished" else line.get("examples_seen", 0)
    label, rate, loss = cell.label, line.get("examples_per_second"), line.get("loss")
    where = place.where if place is not None and state in ("queued", "running") else ""
    return RunSummary(label, state, seen, total, rate, loss, _reason(cell, state, place), where)


def _reason(cell: Cell, state: str, place: JobPlace | None) -> str:
    if state in ("pending", "running", "finished", "cancelled"):
        return ""
    if state == "corrupt":
        return _what_is_corrupt(cell)
    if place is not None and place.reason and state in UNFINISHED:
        return place.reason
    if state == "queued":
        return ""
    if result := cell.directory.read_result():
        return result.get("reason", "")
    if cause := liveness.root_cause(cell.directory):
        return cause["reason"]
    attempt = ownership.latest(cell.directory.attempts)
    if attempt is None or not attempt.job_id:
        return "its process exited without recording a result"
    return f"its job {attempt.job_id} ended without recording a result; see repro logs {cell.directory.path.name}"


def _what_is_corrupt(cell: Cell) -> str:
    try:
        cell.directory.read_result()
    except CorruptRun as error:
        return f"{error}; remove it, and the run goes on from what is there"
    return ""


class Progress:
    """Shows the cells each time `update` is called; a context manager, as the live table must be closed."""

    def __init__(self, cells: Sequence[Cell], console: Console):
        self.cells, self.console = cells, console
        self.live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self.shown: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self.live.__exit__(*exception)

    def update(self) -> None:
        summaries = [summarise(cell) for cell in self.cells]
        if self.live:
            self.live.update(table(summaries), refresh=True)
            return
        done = sum(g.state not in UNFINISHED for g in summaries)
        for cell, g in zip(self.cells, summaries, strict=True):
            if g.state == "interrupted" and cell.directory.read_result() is None:
                continue  # its ranks are gone, and the launch is about to write down why, or to start it
            state, since = self.shown.get(g.label, ("pending", 0.0))
            if g.state != state or (g.state == "running" and time.monotonic() - since > LINE_SECONDS):
                self.shown[g.label] = (g.state, time.monotonic())
                self.console.print(f"[{done}/{len(summaries)}] {sentence(g)}", markup=False, highlight=False)

    def say(self, text: str) -> None:
        """One line that stays, above the table."""
        self.console.print(text, markup=False, highlight=False)


def sentence(g: RunSummary) -> str:
    """'sigmoid 1k s0: running, 32.8k of 65.5k examples, 1,800/s, loss 3.214, 18 s left'."""
    parts = [g.state]
    if g.examples_seen:
        parts.append(f"{format_examples(g.examples_seen)} of {format_examples(g.total)} examples")
    if g.rate:
        parts.append(f"{g.rate:,.0f}/s")
    if g.loss is not None:
        parts.append(f"loss {g.loss:.3f}")
    if g.seconds_left is not None:
        parts.append(f"{duration(g.seconds_left)} left")
    return f"{g.label}: {', '.join(parts)}" + (f": {g.reason}" if g.reason else "")


def table(summaries: Sequence[RunSummary]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("run", no_wrap=True, min_width=max((len(g.label) for g in summaries), default=0))
    shown.add_column("state", no_wrap=True, min_width=max((len(g.state) for g in summaries), default=0))
    for name, width in (("examples seen", 13), ("examples/s", 6), ("loss", 5), ("time left", 7)):
        shown.add_column(name, justify="right", no_wrap=True, min_width=width)
    shown.add_column("where", no_wrap=True)
    for g in summaries:
        shown.add_row(
            g.label,
            f"[{STYLES.get(g.state, 'red')}]{g.state}[/]",
            f"{format_examples(g.examples_seen)} / {format_examples(g.total)}" if g.examples_seen else "",
            f"{g.rate:,.0f}" if g.rate else "",
            f"{g.loss:.3f}" if g.loss is not None else "",
            duration(g.seconds_left) if g.seconds_left is not None else "",
            g.where,
        )
    return shown


def duration(seconds: float) -> str:
    """75 → '1:15', 18 → '18 s'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def lines_on_stderr(what: str) -> Callable[[int, int], None]:
    """Says how far a long piece of work is, every two seconds."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 2:
            last = time.monotonic()
            click.echo(f"{what}: {done:,} of {total:,}", err=True)

    return show


def print_results(cells: "Sequence[Cell]", console: Console) -> None:
    """The cells' rows: loss, batch size, state, metrics, speed, memory."""
    import pandas as pd

    from repro import results

    table = pd.DataFrame([results.row(cell.directory) for cell in cells[:MOST_LINES]])
    console.print(results_table(table))
    if len(cells) > MOST_LINES:
        console.print(f"… and {len(cells) - MOST_LINES:,} more; repro collect {cells[0].sweep} writes all to a file")


def results_table(table: "pd.DataFrame") -> Table:
    metrics = main_metrics(sorted(column for column in table.columns if "/" in column))
    rows = table.to_dict("records")
    told = differing(rows)
    columns = [
        "loss",
        "batch size",
        "seed",
        *(name.replace("_", " ") for name in told),
        "state",
        *map(short_name, metrics),
        "examples/s",
        "peak memory",
    ]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        words = column in ("loss", "state")
        shown.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=words)
    for row in rows:
        rate, memory = row.get("examples_per_second"), row.get("peak_memory_bytes")
        shown.add_row(
            row["loss"] if isinstance(row.get("loss"), str) else "",
            format_batch_size(int(row["batch_size"])) if is_number(row.get("batch_size")) else "",
            f"{row['seed']:.0f}" if is_number(row.get("seed")) else "",
            *(told_value(name, row.get(name)) for name in told),
            str(row["status"]),
            *(f"{row[metric]:.1%}" if is_number(row.get(metric)) else "" for metric in metrics),
            f"{rate:,.0f}" if is_number(rate) else "",
            format_bytes(memory) if is_number(memory) else "",
        )
    return shown


def main_metrics(metrics: Sequence[str]) -> list[str]:
    """Metrics that fit a terminal: accuracy, and recall at 1 of retrievals (the mean of languages)."""
    found = [m for m in metrics if m.endswith(("acc1", "retrieval_recall@1"))] or list(metrics)
    return but_languages(found)[:4]


def short_name(metric: str) -> str:
    """'wds_emoji_en/image_retrieval_recall@1' → 'emoji_en image R@1', to fit a column."""
    dataset, _, name = metric.rpartition("/")
    return f"{dataset.removeprefix('wds_')} {name.replace('_retrieval_recall', ' R')}".strip()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value
