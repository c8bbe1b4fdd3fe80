"""Sweep and recipe files become runs; what is given later wins; mistakes name the file, the key and the nearest."""

import math
from pathlib import Path

import pytest
import yaml

from repro.config import sweep as sweeps
from repro.config.errors import InputError
from repro.config.files import resource
from repro.config.sweep import (
    Overrides,
    expand,
    list_sweeps,
    load_recipe,
    load_sweep,
    local_batches,
    parse_setting,
    stands_in,
)
from repro.launch.prepare import Options, outline

PAPER_DATA = {"data": "/data/{00000..00009}.tar"}


def runs(scale="laptop", axes=None, values=None, name="batch-size"):
    return expand(load_sweep(name), scale, Overrides(axes or {}, values or {}))


def test_every_sweep_that_comes_along_expands_at_each_of_its_scales():
    for sweep in list_sweeps():
        for scale in sweep.scales:
            assert sweep.bench(scale) or expand(sweep, scale, Overrides({}, PAPER_DATA))


@pytest.mark.parametrize("setup", ["siglip", "siglit", "msiglip", "finetune"])
@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_a_recipe_of_what_is_private_says_what_stands_in(setup, scale):
    assert "private" in stands_in(setup, scale)
    assert "Unlike the authors' code: " in stands_in(setup, scale)
    assert not stands_in(setup, "laptop")


def test_every_value_of_a_recipe_says_where_it_comes_from():
    for file in (resource("sweeps") / "recipes").glob("*.yaml"):
        for line in file.read_text().splitlines():
            assert line.startswith(("#", "  - ")) or "#" in line, f"{file.name}: {line}"


def test_the_batch_size_sweep_pairs_both_losses_at_every_size():
    laptop = runs()
    assert {spec.loss for spec in laptop} == {"sigmoid", "softmax"}
    sizes = {loss: [s.batch_size for s in laptop if s.loss == loss] for loss in ("sigmoid", "softmax")}
    assert sizes["sigmoid"] == sizes["softmax"]


def test_the_losses_differ_in_nothing_but_the_bias():
    pairs = {}
    for spec in runs():
        pairs.setdefault(spec.batch_size, []).append(spec.model_dump(exclude={"loss", "init_logit_bias"}))
    assert all(one == other for one, other in pairs.values())


def test_the_paper_scale_holds_the_papers_values():
    paper = runs("paper", values=PAPER_DATA)
    assert {s.batch_size for s in paper} == {512, 1024, 2048, 4096, 8192, 16_384, 32_768, 98_304, 307_200}
    assert {s.examples_seen for s in paper} == {3 * 10**9, 9 * 10**9}
    spec = paper[0]
    assert (spec.learning_rate, spec.weight_decay, spec.beta1, spec.beta2) == (1e-3, 1e-4, 0.9, 0.95)
    assert spec.init_logit_scale == pytest.approx(2.302585)
    assert (spec.init_logit_bias, spec.warmup_examples, spec.optimizer) == (-10, 200_000_000, "adafactor")


def test_options_replace_an_axis_and_set_changes_any_field():
    chosen = runs(axes={"batch_size": ["512", "1k"], "loss": ["softmax"]}, values={"learning_rate": 0.01})
    assert [(s.loss, s.batch_size, s.learning_rate) for s in chosen] == [
        ("softmax", 512, 0.01),
        ("softmax", 1024, 0.01),
    ]


def test_an_axis_of_the_sweep_can_be_set_to_one_value():
    assert {s.batch_size for s in runs(values={"batch_size": "256"})} == {256}


def test_the_same_run_named_twice_is_one_run():
    assert len(runs(axes={"batch_size": ["1k", "1024"], "loss": ["sigmoid"]})) == 1


def test_a_prior_bias_follows_the_batch_size():
    sizes = ["64", "1k"]
    specs = runs(axes={"loss": ["sigmoid"], "batch_size": sizes}, values={"init_logit_bias": "prior"})
    assert [spec.init_logit_bias for spec in specs] == pytest.approx([-math.log(63), -math.log(1023)])
    with pytest.raises(InputError, match="expected a batch_size of 2 or more"):
        runs(axes={"loss": ["sigmoid"], "batch_size": [1]}, values={"init_logit_bias": "prior"})


def test_a_warm_up_share_is_of_the_training_length():
    (spec,) = runs(axes={"loss": ["sigmoid"], "batch_size": [64]}, values={"examples_seen": "10k"})
    assert spec.warmup_examples == 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_sweep("batchsize"), "unknown sweep 'batchsize'; the nearest is 'batch-size'"),
        (lambda: load_sweep("no/such.yaml"), "no/such.yaml: no such file"),
        (lambda: runs("labtop"), "has no scale 'labtop'; the nearest is 'laptop'"),
        (lambda: runs(axes={"loss": ["sigmod"]}), "loss 'sigmod' is unknown; the nearest is 'sigmoid'"),
        (lambda: runs(values={"lr": 1}), "unknown key 'lr'"),
        (lambda: runs(axes={"setup": ["siglap"]}), "unknown setup 'siglap'; the nearest is 'siglip'"),
        (lambda: parse_setting("learning_rate"), "expected key=value"),
        (lambda: parse_setting("learning_rat=1"), "the nearest is 'learning_rate'"),
        (lambda: parse_setting("local_batch=64"), "changes no result, so no run has it; .*--local-batch"),
    ],
)
def test_mistakes_are_answered_with_the_nearest_that_works(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_recipe_that_is_missing_is_answered_with_those_there_are(tmp_path: Path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "siglip-gpu.yaml").write_text("")
    monkeypatch.setattr(sweeps, "folders", lambda: [tmp_path])
    with pytest.raises(InputError, match="no recipe for setup 'finetune' at scale 'laptop'; known: siglip-gpu"):
        load_recipe("finetune", "laptop")


def test_figure_4_decays_all_weights_or_not_the_pretrained_ones_or_has_none():
    decayed, spared, scratch = runs("paper", values=PAPER_DATA, name="finetune")
    assert [spec.setup for spec in (decayed, spared, scratch)] == ["finetune", "finetune", "siglip"]
    assert (decayed.image_weight_decay, spared.image_weight_decay, scratch.pretrained) == (None, 0, "")
    assert {spec.image_learning_rate_multiplier for spec in (decayed, spared)} == {0.1}
    same = ("model", "batch_size", "examples_seen", "evaluate_at", "evals", "learning_rate", "weight_decay")
    same += ("warmup_examples", "init_logit_bias", "precision", "optimizer")
    for scale in ("laptop", "gpu", "paper"):
        pretrained, *_, scratch = runs(scale, values=PAPER_DATA, name="finetune")
        assert [getattr(pretrained, name) for name in same] == [getattr(scratch, name) for name in same]
    assert (decayed.batch_size, decayed.examples_seen) == (16_384, 2_400_000_000)
    assert decayed.evaluate_at == tuple(n * 10**8 for n in (1, 2, 4, 8, 16))


def test_how_much_a_rank_holds_comes_from_the_option_before_the_sweep_before_the_recipe(tmp_path: Path):
    of_recipe = load_sweep("batch-size")
    specs = runs("paper", values=PAPER_DATA)
    assert set(local_batches(of_recipe, specs)) == {8192}
    file = tmp_path / "mine.yaml"
    file.write_text(
        yaml.safe_dump({"scales": {"paper": {"axes": {"loss": ["sigmoid"]}, "set": {"local_batch": "2k"}}}})
    )
    mine = load_sweep(str(file))
    assert local_batches(mine, expand(mine, "paper", Overrides({}, PAPER_DATA))) == [2048]
    assert local_batches(mine, specs[:2], "1k") == [1024, 1024]


def test_how_much_a_rank_holds_changes_no_run(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"scales": {"laptop": {"axes": {"loss": ["sigmoid"]}, "set": {"local_batch": 64}}}}))
    (with_it,) = expand(load_sweep(str(file)), "laptop", Overrides())
    file.write_text(yaml.safe_dump({"scales": {"laptop": {"axes": {"loss": ["sigmoid"]}}}}))
    (without,) = expand(load_sweep(str(file)), "laptop", Overrides())
    assert with_it.run_id == without.run_id


def test_a_persons_own_recipe_may_leave_to_the_option_how_much_a_rank_holds(tmp_path: Path, monkeypatch):
    recipe = (resource("sweeps") / "recipes" / "siglip-laptop.yaml").read_text().replace("local_batch:", "# ")
    (tmp_path / "sweeps" / "recipes").mkdir(parents=True)
    (tmp_path / "sweeps" / "recipes" / "siglip-laptop.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    sweep, specs = load_sweep("batch-size"), runs()
    with pytest.raises(InputError, match=r"siglip-laptop\.yaml: 'local_batch' is missing .*--local-batch"):
        local_batches(sweep, specs)
    assert set(local_batches(sweep, specs, 64)) == {64}


@pytest.mark.parametrize("chosen", ["lots", 0, "-1"])
def test_how_much_a_rank_holds_is_a_batch_size(chosen):
    with pytest.raises(InputError, match="--local-batch"):
        local_batches(load_sweep("batch-size"), runs(), chosen)


@pytest.mark.parametrize(
    ("text", "value"),
    [("learning_rate=3e-4", 3e-4), ("grad_clip=null", None), ("seed=2", 2), ("schedule=linear", "linear")],
)
def test_settings_are_read_as_people_mean_them(text, value):
    assert parse_setting(text)[1] == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": {}}, "unknown key 'scale'; the nearest is 'scales'"),
        ({"scales": {}}, "scales: expected at least one"),
        ({"scales": {"tiny": {}}}, "scales 'tiny' is unknown"),
        ({"scales": {"laptop": {"axis": {}}}}, "unknown key 'axis'"),
        ({"scales": {"laptop": {"axes": {"batchsize": [1]}}}}, "the nearest is 'batch_size'"),
        ({"scales": {"laptop": {"axes": {"batch_size": 1}}}}, "expected a list"),
        ({"scales": {"laptop": {"bench": {"capacity": {}}, "axes": {}}}}, "a scale is a measurement or runs"),
        ({"scales": {"laptop": {"bench": "capacity"}}}, "bench: expected keys and values"),
        ({"scales": {"laptop": {"axes": ["loss"]}}}, "scales.laptop.axes: expected keys and values"),
        ({"scales": {"laptop": {"set": "loss"}}}, "scales.laptop.set: expected keys and values"),
        ({"scales": {"laptop": {"cases": {"loss": "sigmoid"}}}}, "scales.laptop.cases: expected a list"),
        (
            {"scales": {"laptop": {"cases": ["sigmoid"]}}},
            r"cases.0: expected keys and values, found .sigmoid",
        ),
        ({"scales": {"laptop": {"cases": [{"los": "sigmoid"}]}}}, "unknown key 'los'; the nearest is 'loss'"),
        ({"scales": {"laptop": {"cases": [{"loss": []}]}}}, "loss: expected a value"),
        ({"scales": {"laptop": {"cases": [{"local_batch": 4}]}}}, "local_batch changes no result"),
        ({"scales": {"laptop": {"setups": {"siglap": {}}}}}, "setups 'siglap' is unknown; the nearest is 'siglip'"),
        ({"scales": {"laptop": {"setups": {"siglip": {"setup": 1}}}}}, "setups.siglip: unknown key 'setup'"),
        ({"scales": {"laptop": {"setups": {"siglip": 1}}}}, "setups.siglip: expected keys and values"),
        ({"curves": ["gradientnorm"]}, "'gradientnorm' is unknown; the nearest is 'gradient_norm'"),
        ({"curves": "loss"}, "curves: expected a list such as \\[loss\\]"),
        ({"claim": ["a"]}, "claim: expected text"),
        ({"reproduces": 5}, "reproduces: expected text, found 5; put it in quotes"),
        ({"title": 4}, "title: expected text"),
    ],
)
def test_a_persons_own_sweep_file_is_checked(tmp_path: Path, change, message):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"title": "Mine", "scales": {"laptop": {"axes": {"loss": ["sigmoid"]}}}} | change))
    with pytest.raises(InputError, match=message) as error:
        load_sweep(str(file))
    assert str(file) in str(error.value)


def test_yaml_that_is_none_names_the_file(tmp_path: Path):
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"bad\.yaml: cannot be read as YAML"):
        load_sweep(str(tmp_path / "bad.yaml"))


@pytest.fixture
def expanded(tmp_path: Path):
    """expanded({"axes": …, "cases": …}) → the runs of a sweep of one's own; options as of Overrides."""

    def expand_block(block: dict, axes=None, values=None):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({"scales": {"laptop": block}}))
        return expand(load_sweep(str(file)), "laptop", Overrides(axes or {}, values or {}))

    return expand_block


CASES = [{"loss": "softmax"}, {"loss": "sigmoid", "optimizer": ["adamw", "lion"]}]


def chosen(specs, *fields):
    return [tuple(getattr(spec, field) for field in fields) for spec in specs]


def test_cases_are_fields_that_vary_together_and_a_list_in_one_is_several(expanded):
    specs = expanded({"cases": CASES})
    assert chosen(specs, "loss", "optimizer") == [("softmax", "adamw"), ("sigmoid", "adamw"), ("sigmoid", "lion")]


def test_runs_are_the_product_of_axes_and_cases(expanded):
    specs = expanded({"axes": {"seed": [0, 1]}, "cases": CASES})
    assert len(specs) == 6
    assert chosen(specs, "seed", "loss", "optimizer")[2:4] == [(0, "sigmoid", "lion"), (1, "softmax", "adamw")]


def test_cases_win_over_set_and_options_over_cases(expanded):
    block = {"set": {"optimizer": "adafactor", "loss": "sigmoid"}, "cases": [{"optimizer": "lion"}, {"seed": 3}]}
    assert chosen(expanded(block), "optimizer", "seed") == [("lion", 0), ("adafactor", 3)]
    assert chosen(expanded(block, axes={"seed": [5]}), "optimizer", "seed") == [("lion", 5), ("adafactor", 5)]
    assert chosen(expanded(block, values={"optimizer": "adamw"}), "optimizer", "seed") == [("adamw", 0), ("adamw", 3)]


def test_cases_that_an_option_makes_equal_are_one_run(expanded):
    assert len(expanded({"cases": CASES}, axes={"loss": ["sigmoid"]})) == 2


def test_a_field_is_an_axis_or_in_cases_and_not_both(expanded):
    with pytest.raises(InputError, match=r"mine\.yaml: scales.laptop: loss is in axes and in cases"):
        expanded({"axes": {"loss": ["sigmoid"]}, "cases": CASES})


def test_what_is_corrupted_with_probability_0_is_one_plain_run(expanded):
    case = {"loss": "sigmoid", "corruption": ["image", "batch"], "corruption_probability": [0, 0.5]}
    specs = expanded({"cases": [case]})
    assert chosen(specs, "corruption", "corruption_probability") == [("none", 0), ("image", 0.5), ("batch", 0.5)]


def test_each_setup_has_what_varies_in_all_and_its_own(tmp_path: Path, monkeypatch):
    (tmp_path / "sweeps" / "recipes").mkdir(parents=True)
    recipe = (resource("sweeps") / "recipes" / "siglip-laptop.yaml").read_text()
    (tmp_path / "sweeps" / "recipes" / "finetune-laptop.yaml").write_text(
        recipe.replace("seed:", "#") + "\npretrained: timm\n"
    )
    monkeypatch.chdir(tmp_path)
    block = {
        "setup": ["siglip", "finetune"],
        "axes": {"seed": [0, 1]},
        "set": {"batch_size": 64, "beta2": 0.9},
        "cases": [{"loss": "sigmoid"}, {"loss": "softmax"}],
        "setups": {
            "finetune": {"axes": {"seed": [2]}, "set": {"batch_size": 32}, "cases": [{"loss": "sigmoid"}]},
        },
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"scales": {"laptop": block}}))
    sweep = load_sweep("mine.yaml")
    specs = expand(sweep, "laptop", Overrides())
    assert [spec for spec in chosen(specs, "setup", "seed", "loss", "batch_size", "beta2")] == [
        *[("siglip", seed, loss, 64, 0.9) for seed in (0, 1) for loss in ("sigmoid", "softmax")],
        ("finetune", 2, "sigmoid", 32, 0.9),
    ]
    only = expand(sweep, "laptop", Overrides({"setup": ["finetune"]}))
    assert chosen(only, "setup") == [("finetune",)]


def test_a_sweep_says_what_the_paper_claims_and_which_curves_show_it(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    values = {"claim": "Large batches\n  saturate.", "curves": ["loss", "update_norm"], "reproduces": "figure 5"}
    file.write_text(yaml.safe_dump({**values, "scales": {"laptop": {"axes": {"loss": ["sigmoid"]}}}}))
    sweep = load_sweep(str(file))
    assert (sweep.title, sweep.reproduces, sweep.claim) == ("mine", "figure 5", "Large batches saturate.")
    assert sweep.curves == ("loss", "update_norm")


@pytest.mark.parametrize("sweep", list_sweeps(), ids=lambda sweep: sweep.name)
def test_a_sweep_of_the_papers_has_its_claim_and_all_scales_and_is_planned_to_fit_its_time(sweep):
    assert sweep.title and sweep.reproduces and sweep.claim
    assert set(sweep.scales) == {"laptop", "gpu", "paper"}
    if not sweep.bench("laptop"):
        launch = outline(sweep, "laptop", Overrides(), Path("runs"), Options())
        assert sum(each.processor_hours for each in launch.predictions()) <= 0.2  # six minutes on two cores


def test_the_papers_other_sweeps_hold_its_values():
    def at_paper_scale(name):
        return runs("paper", values=PAPER_DATA, name=name)

    bias = chosen(at_paper_scale("bias"), "init_logit_bias", "init_logit_scale", "batch_size", "examples_seen")
    log_10 = pytest.approx(math.log(10))
    starts = [(None, log_10), (-10, log_10), (-10, 0), (0, log_10), (0, 0), (pytest.approx(-math.log(8191)), log_10)]
    assert bias == [(*start, 8192, 900_000_000) for start in starts]
    assert len(at_paper_scale("hyperparameters")) == 27
    assert len(at_paper_scale("seeds")) == 25
    assert {spec.beta2 for spec in at_paper_scale("beta2")} == {0.95, 0.999}
    noise = at_paper_scale("noise")
    assert {(s.model, s.batch_size, s.examples_seen, s.warmup_examples) for s in noise} == {
        ("siglip-m16", 16_384, 3_600_000_000, 360_000_000)
    }
    ratios = {spec.negatives_share * (spec.batch_size - 1) for spec in at_paper_scale("negatives")}
    assert sorted(ratios) == pytest.approx([1.6, 16, 164, 1638, 16_383], rel=0.03)
