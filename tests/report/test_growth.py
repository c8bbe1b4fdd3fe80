"""Where growing stops paying, as an exhibit: whose series it holds, how they are called, what is drawn."""

import pandas as pd
import pytest

from repro.report import growth
from tests.report.conftest import inputs_of, run_row, sweep_table


@pytest.fixture(scope="module")
def made():
    """{name: exhibit} of a sweep of a person's own whose name begins as the paper's rows do."""
    return {each.name: each for each in growth.exhibits(inputs_of(sweep_table(sweep="paper-scale")))}


def test_a_sweep_is_ours_whatever_its_name(made):
    assert set(made) == {"saturation-points", "losses-ours", "losses-paper"}
    assert "sigmoid − softmax, paper-scale, siglip, 65.5k, shapes_objects" in made["losses-ours"].table


def test_its_table_and_its_numbers_have_the_same_names(made):
    points = made["saturation-points"]
    assert list(points.data["series"]) == list(points.table["series"])
    assert "paper-scale, siglip, sigmoid, 65.5k, shapes_objects" in set(points.data["series"])


def test_rows_of_the_paper_stand_below_a_rule(made):
    axes = made["saturation-points"].figure.axes[0]
    papers = made["saturation-points"].table["series"].str.startswith("paper, ").sum()
    rules = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert rules == [papers + 0.5] and papers > 0


@pytest.mark.parametrize(("slope", "arrows"), [(0.05, 1), (-0.05, 0)])
def test_an_arrow_points_beyond_the_grid_only_where_accuracy_still_rises(slope, arrows):
    rows = [
        run_row(batch_size=32 * 2**n, seed=s, accuracy=0.5 + slope * n + s / 1000) for n in range(4) for s in (0, 1)
    ]
    (points, *_) = growth.exhibits(inputs_of(pd.DataFrame(rows), metrics=("wds_shapes_objects/acc1",)))
    texts = points.figure.axes[0].texts
    ours = len(points.table) - points.table["series"].str.startswith("paper, ").sum()
    assert len([text for text in texts if text.arrow_patch and text.xy[1] > len(points.table) - ours]) == arrows


def test_a_length_that_is_no_number_is_left_out_of_names():
    (points, *_) = growth.exhibits(inputs_of(sweep_table().assign(examples_seen="x")))
    assert points.table["series"][0] == "siglip, sigmoid, shapes_objects"
