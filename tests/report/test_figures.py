"""Figures of a report: which series, values and labels they show. How they look is for eyes to judge."""

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from repro.report import draw
from repro.report.draw.axes import label_batch_sizes, look
from repro.report.exhibits.cost import memory_unit
from repro.results import tables
from tests.report.conftest import run_row, sweep_table

ACCURACY = "wds_shapes_objects/acc1"


def lines_of(axes):
    """{label: line} of a panel's curves, without crosses and the caps of bars."""
    named = (line for line in axes.lines if not line.get_label().startswith("_"))
    return {line.get_label(): line for line in named if line.get_marker() != "x"}


def urls_of(axes):
    return [url for points in axes.collections for url in points.get_urls() if url]


def batch_size_labels(axes):
    return [axes.xaxis.get_major_formatter()(tick, None) for tick in axes.xaxis.get_majorticklocs()]


def test_a_panel_shows_the_runs_accuracy_in_percent(table):
    axes = draw.accuracy_by_batch_size(table, ACCURACY)

    runs = table[table["loss"] == "sigmoid"]
    line = lines_of(axes)["sigmoid"]
    assert axes.get_ylabel() == "top-1 accuracy (%)"
    assert list(line.get_xdata()) == list(runs["batch_size"])
    assert list(line.get_ydata()) == pytest.approx(list(100 * runs[ACCURACY]))


def test_a_loss_looks_the_same_in_every_panel(table):
    panels = [draw.accuracy_by_batch_size(table, ACCURACY), draw.by_batch_size(table, "peak_memory_bytes", 1, "memory")]

    looks = {
        label.split(",")[0]: (to_hex(line.get_color()), line.get_linestyle())
        for axes in panels
        for label, line in lines_of(axes).items()
    }
    drawn = {
        (label.split(",")[0], to_hex(line.get_color()), str(line.get_linestyle()))
        for axes in panels
        for label, line in lines_of(axes).items()
    }
    assert len(drawn) == len(looks) == 2


@pytest.mark.parametrize(
    ("sizes", "labels"),
    [
        ([64, 512, 4096, 32768, 2**20], ["64", "512", "4k", "32k", "1M"]),
        ([2**power for power in range(5, 12)], ["32", "64", "128", "256", "512", "1k", "2k"]),
        ([2**power for power in range(9, 21)], ["512", "4k", "32k", "256k"]),
        ([16384, 32768, 98304, 307200], ["16k", "32k", "98k", "307k"]),
        ([96], ["96"]),
    ],
)
def test_batch_sizes_are_labelled_as_people_write_them(sizes, labels):
    axes = Figure().add_subplot()

    label_batch_sizes(axes, sizes)

    assert axes.get_xscale() == "log"
    assert batch_size_labels(axes) == labels


def test_a_run_without_a_result_is_a_cross_with_its_status():
    table = sweep_table()
    table.loc[len(table)] = run_row("softmax", 4096, status="oom")

    axes = draw.accuracy_by_batch_size(table, ACCURACY)

    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [4096]
    assert to_hex(cross.get_color()) == look("softmax")["color"]
    assert "oom" in {text.get_text() for text in axes.texts}


def test_seeds_are_points_and_intervals_around_their_mean():
    table = sweep_table(seeds=(0, 1, 2))

    axes = draw.accuracy_by_batch_size(table, ACCURACY)

    mean = 100 * table[(table["loss"] == "sigmoid") & (table["batch_size"] == 64)][ACCURACY].mean()
    line = lines_of(axes)["sigmoid"]
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True))[64] == pytest.approx(mean)
    bars = [drawn for drawn in axes.collections if drawn.get_label() == "_intervals"]
    assert [len(each.get_segments()) for each in bars] == [7, 7]  # one set for each loss
    assert sum(len(points.get_offsets()) for points in axes.collections if len(points.get_urls()) == 21) == 42


def test_one_seed_is_points_without_bars_and_each_point_links_to_its_run(table):
    table.loc[0, "run_id"] = "a run/with <odd> characters"

    axes = draw.accuracy_by_batch_size(table, ACCURACY)

    assert "_intervals" not in {drawn.get_label() for drawn in axes.collections}
    assert len(urls_of(axes)) == len(table)
    assert "#run-batch-size/a%20run%2Fwith%20%3Codd%3E%20characters" in urls_of(axes)


def test_in_a_table_without_sweeps_a_point_links_by_its_id_alone(table):
    axes = draw.accuracy_by_batch_size(table.drop(columns="sweep").head(1), ACCURACY)

    assert urls_of(axes) == [f"#run-{table['run_id'][0]}"]


def test_lengths_have_lines_of_their_own():
    table = pd.concat([sweep_table(), sweep_table(examples_seen=131072)], ignore_index=True)

    axes = draw.accuracy_by_batch_size(table, ACCURACY)

    assert set(lines_of(axes)) == {"sigmoid, 65.5k", "sigmoid, 131.1k", "softmax, 65.5k", "softmax, 131.1k"}


def test_speed_of_two_machines_is_not_averaged():
    table = pd.concat([sweep_table(), sweep_table(machine="Another CPU, 64 cores")], ignore_index=True)

    by = tables.series_columns(table, tables.MACHINE)
    axes = draw.by_batch_size(table, "examples_per_second", 1, "speed (examples/s)", by=by)

    assert len(lines_of(axes)) == 4


@pytest.mark.parametrize(("gibibytes", "unit"), [(0.5, "MiB"), (40, "GiB")])
def test_memory_is_in_the_unit_that_people_would_use(gibibytes, unit):
    assert memory_unit(sweep_table(peak_memory_bytes=gibibytes * 2**30))[0] == unit


def test_a_figure_without_any_result_says_so():
    table = pd.DataFrame([run_row(loss, 64, status="failed") for loss in ("sigmoid", "softmax")])

    axes = draw.accuracy_by_batch_size(table, ACCURACY)

    assert {"no result", "failed"} <= {text.get_text() for text in axes.texts}
