"""Exhibits of a report: which there are, what they show, and that no table stops them. Drawn, not saved."""

import re
from pathlib import Path

import pandas as pd
import pytest

from repro.config.spec import RunSpec
from repro.estimate.counts import training_flops
from repro.models.sizes import known_size
from repro.report import draw, figures, markup
from repro.report.exhibits import Exhibit, exhibits
from repro.report.exhibits.cost import training_flops_of
from repro.report.exhibits.settings import identity
from repro.report.inputs import reproduced
from tests.report.conftest import inputs_of, run_row, sweep_table

RESULTS = Path(__file__).parents[2] / "results"
ACCURACY = "wds_shapes_objects/acc1"
SWEEPS = ("batch-size", "beta2", "bias", "finetune", "four-chips", "hyperparameters", "negatives", "noise", "released")
SWEEPS += ("seeds", "vocabulary")
BENCH = ("loss", "capacity", "exchange")


@pytest.fixture(scope="module")
def runs():
    """Our published runs of all sweeps."""
    return pd.concat([pd.read_csv(RESULTS / f"{name}.csv", low_memory=False) for name in SWEEPS], ignore_index=True)


@pytest.fixture(scope="module")
def inputs(runs):
    return inputs_of(
        runs,
        evaluations=pd.read_csv(RESULTS / "finetune-evaluations.csv"),
        curves=pd.read_csv(RESULTS / "beta2-curves.csv"),
        bench={name: pd.read_csv(RESULTS / "bench" / f"{name}.csv") for name in BENCH},
    )


@pytest.fixture(scope="module")
def made(inputs):
    """{name: exhibit} of our published runs."""
    return {exhibit.name: exhibit for exhibit in exhibits(inputs)}


def by_name(inputs) -> dict[str, Exhibit]:
    return {exhibit.name: exhibit for exhibit in exhibits(inputs)}


def panels_of(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def lines_of(axes):
    named = (line for line in axes.lines if not line.get_label().startswith("_"))
    return {line.get_label(): line for line in named if line.get_marker() != "x"}


def urls_of(figure):
    return [url for axes in figure.axes for points in axes.collections for url in points.get_urls() if url]


def texts_of(figure):
    return figure.findobj(lambda artist: hasattr(artist, "get_fontsize") and bool(getattr(artist, "get_text", str)()))


def test_every_figure_and_table_of_the_paper_that_has_runs_is_shown_in_its_order(made):
    names = list(made)
    assert [name for name in names if re.fullmatch(r"figure-\d", name)] == [f"figure-{n}" for n in range(2, 9)]
    assert [name for name in names if name.startswith("table")] == [f"table-{n}" for n in range(1, 10)]
    costs = ["cost-throughput", "cost-step-time", "cost-loss-share", "cost-memory", "cost-capacity", "cost-loss"]
    assert names[-9:] == [*costs, "cost-exchange", "pareto-compute", "pareto-core-hours"]
    assert len(names) == len(set(names))


def test_figures_fit_a_page_or_a_column_and_nothing_in_them_is_smaller_than_seven_points(made):
    for exhibit in (exhibit for exhibit in made.values() if exhibit.figure):
        assert exhibit.figure.get_figwidth() * 2.54 == pytest.approx(17) or exhibit.figure.get_figwidth() * 2.54 < 17
        assert exhibit.column.get_figwidth() * 2.54 == pytest.approx(8)
        for figure in (exhibit.figure, exhibit.column):
            assert min(text.get_fontsize() for text in texts_of(figure)) >= 7


def test_each_point_of_one_run_links_to_a_row(made, inputs):
    rows = {f"#run-{sweep}/{run}" for sweep, run in zip(inputs.runs["sweep"], inputs.runs["run_id"], strict=True)}
    linked = urls_of(made["figure-2"].figure)
    assert set(linked) <= rows
    assert len(linked) == (inputs.runs["sweep"] == "batch-size").sum()  # each once; the paper's points have no row
    for exhibit in made.values():
        assert exhibit.figure is None or set(urls_of(exhibit.figure)) <= rows


def test_figure_2_has_ours_in_one_row_and_the_papers_curves_below_and_its_data_are_what_is_drawn(made, runs):
    panels = panels_of(made["figure-2"].figure)
    heads = [head.split("\n")[0] for head in panels]
    assert heads[:3] == [f"{name}, ours (laptop scale)" for name in ("SigLiT", "SigLIP", "mSigLIP")]
    assert heads[3:] == ["SigLiT, paper (table 8)", "SigLIP, paper (table 5)", "mSigLIP, paper (table 9)"]
    line = lines_of(panels["SigLIP, ours (laptop scale)\nshapes_objects"])["sigmoid"]
    own = runs[(runs["sweep"] == "batch-size") & (runs["setup"] == "siglip") & (runs["loss"] == "sigmoid")]
    assert list(line.get_ydata()) == pytest.approx(list(100 * own.groupby("batch_size")[ACCURACY].mean()))
    data = made["figure-2"].data
    same = data[(data["origin"] == "") & (data["metric"] == ACCURACY) & (data["loss"] == "sigmoid")]
    assert set(line.get_ydata()) <= set(same["mean_percent"])
    paper = lines_of(panels["SigLIP, paper (table 5)\nImageNet"])["softmax, 9B"]
    assert dict(zip(paper.get_xdata(), paper.get_ydata(), strict=True))[98304] == pytest.approx(73.2)


def test_the_paper_shares_our_panel_where_data_set_and_metric_are_the_same():
    runs = sweep_table(batch_sizes=(512, 1024, 2048), scale="paper", examples_seen=int(3e9))
    runs = runs.rename(columns={ACCURACY: "imagenet1k/acc1"})
    figure = by_name(inputs_of(runs))["figure-2"].figure
    (axes,) = (axes for head, axes in panels_of(figure).items() if head.startswith("SigLIP"))
    assert axes.get_title(loc="left").startswith("SigLIP, ours (paper scale), paper's")
    assert {"sigmoid", "softmax", "sigmoid, 3B", "softmax, 9B"} <= set(lines_of(axes))


def test_imported_rows_are_series_of_their_own_with_a_colour_and_a_name(inputs):
    theirs = sweep_table(batch_sizes=(64, 128)).assign(origin="their trainer", sweep="theirs")
    theirs["run_id"] = "their-" + theirs["run_id"]
    runs = pd.concat([sweep_table(batch_sizes=(64, 128, 256)), theirs], ignore_index=True)
    figure = by_name(inputs_of(runs))["figure-2"].figure
    axes = next(axes for head, axes in panels_of(figure).items() if head.startswith("SigLIP, ours"))
    assert len([line for line in axes.lines if line.get_label() == "sigmoid"]) == 2
    assert len({line.get_color() for line in axes.lines if line.get_label() == "sigmoid"}) == 2
    assert "their trainer" in {text.get_text() for text in figure.legends[0].get_texts()}


def test_runs_without_a_result_are_crosses_at_their_batch_size_and_counted_in_the_caption():
    runs = sweep_table()
    runs.loc[len(runs)] = run_row("softmax", 4096, status="oom")
    runs.loc[len(runs)] = run_row("sigmoid", 4096, status="diverged")
    exhibit = by_name(inputs_of(runs))["figure-2"]
    axes = next(axes for head, axes in panels_of(exhibit.figure).items() if head.startswith("SigLIP, ours"))
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[4096], [4096]]
    assert "diverged, oom" in {text.get_text() for text in axes.texts}
    assert "2 runs have no result (1 diverged and 1 oom)." in exhibit.caption


def test_of_many_runs_only_means_are_drawn_and_the_caption_says_so():
    runs = sweep_table(batch_sizes=(32, 64, 128, 256, 512), seeds=range(210))
    exhibit = by_name(inputs_of(runs.assign(run_id=[f"r{n}" for n in range(len(runs))])))["figure-2"]
    assert urls_of(exhibit.figure) == []
    assert "up to 210 seeds" in exhibit.caption and "too many to be drawn" in exhibit.caption


def test_figure_3_has_a_line_for_each_length_in_a_panel_for_each_loss():
    runs = pd.concat([sweep_table(setup="siglit", examples_seen=n) for n in (65536, 131072)], ignore_index=True)
    panels = panels_of(by_name(inputs_of(runs))["figure-3"].figure)
    assert [head.split("\n")[0] for head in panels] == [
        *("sigmoid, ours (laptop scale)", "softmax, ours (laptop scale)", "sigmoid, paper", "softmax, paper")
    ]
    ours, _, paper, _ = panels.values()
    assert set(lines_of(ours)) == {"sigmoid, 65.5k", "sigmoid, 131.1k"}
    assert {"sigmoid, 450M", "sigmoid, 18B"} <= set(lines_of(paper))


def test_figure_4_tells_decay_on_pretrained_weights_from_none_and_from_scratch(made, inputs):
    zero_shot, probe = made["figure-4"].figure.axes
    cases = {"pretrained, decay on all weights", "pretrained, no decay on it", "from scratch"}
    assert set(lines_of(zero_shot)) == set(lines_of(probe)) == cases
    assert probe.get_ylabel() == "10-shot accuracy (%)"
    ends = inputs.evaluations[inputs.evaluations["examples_seen_at"] == inputs.evaluations["examples_seen"]]
    scratch = ends[ends["setup"] == "siglip"]["wds_shapes_objects/10shot_acc1"]
    assert lines_of(probe)["from scratch"].get_ydata()[-1] == pytest.approx(100 * scratch.mean())
    assert "numbers are not published; its claim: Pretrained" in made["figure-4"].caption


def test_figure_5_has_a_row_for_each_learning_rate_and_a_line_for_each_run(made):
    axes = made["figure-5"].figure.axes
    assert [each.get_ylabel() for each in axes] == ["training loss", "gradient norm", "update norm"] * 2
    assert [len(each.lines) for each in axes] == [4] * 6  # two values of β2, two seeds
    assert {line.get_label() for line in axes[0].lines} == {"β2 0.95", "β2 0.999"}


def test_figure_6_is_drawn_by_ratio_and_pairs_matched_by_longer_training_are_a_kind_of_their_own(inputs, made):
    runs = draw.with_ratios(inputs.of("figure 6"))
    assert sorted(runs["ratio"].round(2).unique()) == [2.55, 25.5, 255]
    assert set(runs["kind"]) == {"all", "random", "hard", "easy", "hard, matched pairs"}
    accuracy, bias, positive, negative = made["figure-6"].figure.axes
    assert list(lines_of(accuracy)["random"].get_xdata()) == pytest.approx([2.55, 25.5, 255])
    assert list(lines_of(accuracy)["hard, matched pairs"].get_xdata()) == pytest.approx([25.5])
    assert [axes.get_ylabel() for axes in (bias, positive, negative)] == ["b", "logit", "logit"]


def test_figure_7_begins_every_panel_with_the_plain_run(made):
    axes = made["figure-7"].figure.axes
    assert len(axes) == 5
    starts = {float(line.get_ydata()[0]) for each in axes for line in [lines_of(each)["sigmoid"]]}
    assert len(starts) == 1
    assert len({each.get_ylim() for each in axes}) == 1


def test_figure_8_names_languages_and_draws_their_mean(made):
    ours = made["figure-8"].figure.axes[0]
    assert {text.get_text() for text in ours.texts} == {"ar", "en", "zh"}
    assert {"mean", "zh"} <= set(lines_of(ours))


def test_a_table_by_batch_size_has_ours_and_the_papers_under_heads_of_their_own(made, runs):
    table = made["table-5"].table
    assert list(table.columns.get_level_values(0).unique()) == ["ours, laptop scale, 65.5k", "paper, 3B", "paper, 9B"]
    assert table.loc["32k", ("paper, 9B", "sigmoid")] == "73.4"
    own = runs[(runs["sweep"] == "batch-size") & (runs["setup"] == "siglip") & (runs["loss"] == "sigmoid")]
    mean = 100 * own.loc[own["batch_size"] == 64, ACCURACY].mean()
    assert table.loc["64", ("ours, laptop scale, 65.5k", "sigmoid")].startswith(f"{mean:.1f} ±")
    assert table.loc["64", ("paper, 3B", "sigmoid")] == ""


def test_tables_of_settings_say_means_best_values_and_seeds(made):
    start = made["table-4"].table.loc["b −10, t′ log 10"]
    assert re.fullmatch(r"\d+\.\d ± \d\.\d", start["ours, laptop scale", "shapes_objects accuracy"])
    assert start["paper", "ImageNet accuracy"] == "63.0"
    grid = made["table-6"].table
    assert [cell.count("best") for cell in grid["ours, laptop scale", "64"]].count(1) == 1
    assert grid.loc["0.001, 0.0001", ("paper, 3B", "8k")] == "70.1 (best)"
    seeds = made["table-7"].table
    assert list(seeds.columns)[-1] == "seeds" and set(seeds["seeds"]) == {"5"}
    assert "70.1 ± 0.2" in set(seeds["ImageNet accuracy"])
    assert len(made["table-1"].table) == 10 and len(made["vocabulary"].table) == 5


@pytest.mark.parametrize(
    ("model", "pretrained", "row"),
    [
        ("ViT-B-16-SigLIP-384", "webli", ("SigLIP", "B", 576)),
        ("ViT-L-14-336-quickgelu", "openai", ("CLIP", "L", 576)),
        ("EVA02-E-14-plus", "laion2b_s9b_b144k", ("EVA-CLIP", "E", 256)),
        ("ViT-SO400M-14-SigLIP-384", "webli", ("SigLIP", "SO", 729)),
        ("laptop", "laptop-tower", None),
    ],
)
def test_a_public_model_is_found_in_the_papers_table(model, pretrained, row):
    assert identity(model, pretrained) == row


def test_released_weights_stand_beside_the_papers_row_of_the_same():
    own = run_row(setup="released", sweep="released", model="ViT-B-16-SigLIP", batch_size=32768, pretrained="webli")
    own = {name: value for name, value in own.items() if "/" not in name} | {"imagenet1k/acc1": 0.7601}
    table = by_name(inputs_of(pd.DataFrame([own])))["table-3"].table
    (row,) = (row for _, row in table.iterrows() if row["", "model"] == "SigLIP" and row["", "patches"] == "196")
    assert (row["ours", "ImageNet"], row["paper", "ImageNet"]) == ("76.0", "76.2")
    assert len(table) == 20


def test_a_step_is_stacked_of_the_parts_that_runs_have():
    parts = {"towers_seconds": 0.3, "loss_seconds": 0.1, "optimizer_seconds": 0.05}
    made = by_name(inputs_of(sweep_table(batch_sizes=(64, 128), step_seconds=0.5, **parts)))
    axes = made["cost-step-time"].figure.axes[0]
    assert max(bar.get_y() + bar.get_height() for bar in axes.patches) == pytest.approx(0.45)
    share = lines_of(made["cost-loss-share"].figure.axes[0])["sigmoid"]
    assert list(share.get_ydata()) == pytest.approx([20, 20])
    assert "cost-step-time" not in by_name(inputs_of(sweep_table(batch_sizes=(64, 128))))


def test_compute_is_counted_as_the_planner_counts_it(inputs):
    runs = inputs.ours[inputs.ours["sweep"] == "batch-size"]
    flops = training_flops_of(runs)
    row = runs.iloc[0]
    spec = RunSpec.model_construct(
        **{name: row[name] for name in ("setup", "loss", "negatives", "model")},
        **{name: int(row[name]) for name in ("batch_size", "micro_batch", "examples_seen", "token_bottleneck")},
        image_learning_rate_multiplier=1.0,
        text_learning_rate_multiplier=1.0,
    )
    assert flops.iloc[0] == training_flops(spec, known_size(row["model"]), 1)
    assert flops.notna().all()


def test_on_the_pareto_front_are_runs_that_none_beats_for_as_little():
    table = pd.DataFrame({"cost": [1, 2, 2, 3, 4], "acc": [0.1, 0.3, 0.2, 0.3, 0.5]})
    assert list(draw.pareto_front(table, "cost", "acc")) == [True, True, False, False, True]


def test_a_sweep_of_the_persons_own_is_drawn_against_batch_size():
    made = by_name(inputs_of(sweep_table(sweep="my sweep")))
    assert "figure-accuracy-my-sweep" in made and "figure-2" not in made
    assert set(lines_of(made["figure-accuracy-my-sweep"].figure.axes[0])) == {"sigmoid", "softmax"}


def test_a_name_with_slashes_leaves_no_folder():
    lines = pd.DataFrame(
        {"run_id": "a", "sweep": "../a/b", "seed": [0, 1], "examples_seen_at": 64, "training_loss": 5.0}
    )
    made = by_name(inputs_of(sweep_table(sweep="../a/b"), curves=lines))
    assert {"figure-accuracy----a-b", "figure-curves----a-b"} <= set(made)


def test_what_a_sweep_reproduces_is_read_from_its_words():
    assert reproduced("figures 2 and 8, tables 5; section 4.3") == {"figure 2", "figure 8", "table 5", "section 4.3"}


def test_a_figure_is_saved_in_three_formats_with_links_and_the_same_bytes(made, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        svg = figures.save(made["figure-3"].figure, tmp_path / folder, "a")
    assert all(
        (tmp_path / "one" / f"a.{f}").read_bytes() == (tmp_path / "two" / f"a.{f}").read_bytes()
        for f in ("png", "svg", "pdf")
    )
    assert svg.startswith("<?xml")
    linked = figures.save(
        figures.panels([lambda axes: draw.accuracy_by_batch_size(sweep_table((64,)), ACCURACY, axes)], 1), tmp_path, "b"
    )
    assert 'xlink:href="#run-batch-size/siglip-sigmoid-bs64-65.5k-s0-0a1b2c3d"' in linked


def test_a_notebook_draws_without_giving_axes():
    axes = draw.accuracy_by_batch_size(sweep_table(), ACCURACY)
    assert set(lines_of(axes)) == {"sigmoid", "softmax"}
    assert axes.get_ylabel() == "top-1 accuracy (%)"


def test_latex_has_booktabs_and_spanning_heads_and_escapes_what_is_latex(made):
    text = markup.latex_table(made["table-5"].table, "50% of a_b", "tab:5")
    assert all(f"\\{rule}" in text for rule in ("toprule", "midrule", "bottomrule", "multicolumn{2}{c}{paper, 9B}"))
    assert "50\\% of a\\_b" in text and "\\label{tab:5}" in text
    hostile = pd.DataFrame({"a&b": ["\\input{x}", "1 ± 2", None]})
    assert "a\\&b" in markup.latex_table(hostile, "", "t") and "\\textbackslash{}input\\{x\\}" in markup.latex_table(
        hostile, "", "t"
    )
