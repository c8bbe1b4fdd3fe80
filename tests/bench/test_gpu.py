"""repro bench gpu: every section on a CPU, and what becomes of sections that end badly."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from repro.bench.gpu import driver, resident, steps
from repro.bench.gpu.driver import SECTIONS
from repro.bench.gpu.place import Expected, Place, Rows
from repro.cli import main
from repro.config.errors import InputError
from repro.models.model_config import read_config
from tests.bench import gpu_sections as sections


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """Output and folder of one rehearsal of all sections; its limits are generous, so that a busy machine fits them."""
    out = tmp_path_factory.mktemp("gpu")
    done = CliRunner().invoke(main, ["bench", "gpu", "--device", "cpu", "--minutes", "15", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return done.output, out


def test_a_rehearsal_leaves_rows_of_every_section_and_none_failed(rehearsal):
    output, out = rehearsal
    names = [section.name for section in SECTIONS]
    assert sorted(file.name for file in out.iterdir()) == sorted([*(f"{name}.csv" for name in names), "summary.csv"])
    summary = pd.read_csv(out / "summary.csv", keep_default_na=False)
    ends = summary[summary["quantity"] == "section"]
    assert ends["section"].tolist() == names and (ends["status"] == "ok").all()
    for name in names:
        rows = pd.read_csv(out / f"{name}.csv", keep_default_na=False)
        assert (rows["status"] == "ok").any() and set(rows["status"]) <= {"ok", "not run"}
        assert (rows["reason"] != "")[rows["status"] == "not run"].all()
        assert {"machine", "torch_version", "command", "date"} <= set(rows)
    assert all(name in output for name in names)


def quantities(out, section):
    rows = pd.read_csv(out / f"{section}.csv", keep_default_na=False)
    return set(rows[rows["status"] == "ok"]["quantity"])


def test_a_rehearsal_measures_what_each_section_is_for(rehearsal):
    _, out = rehearsal
    assert {"product rate", "read and written", "one core"} <= quantities(out, "machine")
    assert {"tests passed"} <= quantities(out, "correct")
    assert {"seconds", "products", "share of the product rate", "peak memory", "error_images"} <= quantities(
        out, "loss"
    )
    assert {"weights that differ", "log lines that differ"} <= quantities(out, "resume")
    assert {"speed", "towers, of a step", "peak memory"} <= quantities(out, "step")
    assert {"share of the resident speed", "data alone"} <= quantities(out, "feed")
    assert {"wds_shapes_objects/acc1", "examples_per_second"} <= quantities(out, "curve")


def run(tmp_path, *chosen, minutes=10.0):
    """The ends of these sections by name, and all rows."""
    said: list[str] = []
    table = driver.run([sections.section(*each) for each in chosen], minutes, tmp_path / "out", "cpu", said.append)
    ends = table[table["quantity"] == "section"].set_index("section")
    return ends, table, "\n".join(said)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_section_that_raises_or_is_killed_is_a_row_with_its_reason_and_the_others_run(tmp_path):
    ends, table, said = run(tmp_path, [sections.raises], [sections.is_killed], [sections.works])
    assert ends["status"].to_dict() == {"raises": "failed", "is_killed": "failed", "works": "ok"}
    assert ends["reason"]["raises"] == "ValueError: the kernel gave NaN"
    assert "SIGKILL" in ends["reason"]["is_killed"]
    assert (table["quantity"] == "speed").sum() == 3, "rows measured before the end are kept"
    assert driver.failed(table, [sections.section(s) for s in (sections.raises, sections.works)]) == ["raises"]
    assert "the kernel gave NaN" in said


def test_a_section_that_hangs_ends_with_its_share_of_the_time_and_leaves_no_process(tmp_path):
    pid = tmp_path / "out" / f"hangs-{sections.PID_FILE}"
    for seconds in (10, 60, 300):  # until it has come to hang, on a machine however busy
        ends, table, _ = run(tmp_path, [sections.hangs, seconds / 600], [sections.works, 1 - seconds / 600], minutes=10)
        assert ends["status"].to_dict() == {"hangs": "timeout", "works": "ok"}
        assert "not done after" in ends["reason"]["hangs"]
        if pid.exists():
            break
    assert (table["quantity"] == "speed").sum() == 2
    assert not is_running(int(pid.read_text()))


def test_a_section_that_ends_well_leaves_no_process_either(tmp_path):
    ends, _, _ = run(tmp_path, [sections.leaves_a_child])
    assert ends["status"].to_dict() == {"leaves_a_child": "ok"}
    assert not is_running(int((tmp_path / "out" / f"leaves_a_child-{sections.PID_FILE}").read_text()))


def test_a_section_that_knows_it_has_no_time_left_says_for_what(tmp_path):
    ends, table, _ = run(tmp_path, [sections.stops_in_time])
    assert ends["status"]["stops_in_time"] == "timeout" and "a long case" in ends["reason"]["stops_in_time"]
    assert table[table["case"] == "a long case"]["status"].tolist() == ["timeout"]


def test_only_the_named_sections_run_and_rows_of_others_stay_in_the_summary(tmp_path):
    run(tmp_path, [sections.works])
    ends, table, _ = run(tmp_path, [sections.raises])
    assert set(ends.index) == {"works", "raises"}
    assert table[table["section"] == "works"]["quantity"].tolist() == ["section", "speed", ""]


def test_sections_are_named_in_any_order_and_run_in_theirs():
    assert [section.name for section in driver.select(["step", "machine"])] == ["machine", "step"]
    assert driver.select([]) == list(SECTIONS)


def test_an_unknown_section_is_answered_with_the_nearest():
    done = CliRunner().invoke(main, ["bench", "gpu", "--device", "cpu", "--only", "loss", "stepp"])
    assert done.exit_code == 2 and "the nearest is 'step'" in done.output


def test_without_a_gpu_the_command_says_how_to_rehearse(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = CliRunner().invoke(main, ["bench", "gpu"])
    assert done.exit_code == 2 and "--device cpu" in done.output


@pytest.mark.parametrize("name", ["summary.csv", "works.csv"])
@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00"])
def test_a_table_of_something_else_is_not_overwritten(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not written by this benchmark"):
        driver.run([sections.section(sections.works)], 1, tmp_path, "cpu", print)
    assert (tmp_path / name).read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out: cannot be made or written"):
        driver.run([], 1, tmp_path / "file" / "out", "cpu", print)


def test_a_goal_is_met_or_missed():
    assert [Expected("", at_most=2.0).verdict(value) for value in (1.0, 2.0, 3.0)] == ["met", "met", "missed"]
    assert [Expected("", at_least=2.0).verdict(value) for value in (1.0, 2.0)] == ["missed", "met"]
    assert Expected("5 to 6").verdict(1.0) == "" and Expected("5", at_most=2).limit == "≤ 2"


@pytest.fixture
def place(tmp_path):
    rows = Rows.begin("step", tmp_path / "step.csv", "cpu")
    return Place("cpu", rows, tmp_path, tmp_path, deadline=math.inf)


@pytest.mark.parametrize(
    ("error", "status", "is_failure"),
    [(torch.OutOfMemoryError("out of memory"), "oom", False), (RuntimeError("no\nkernel"), "failed", True)],
)
def test_a_step_that_does_not_fit_is_a_row_and_one_that_fails_also_fails_its_section(
    place, monkeypatch, error, status, is_failure
):
    def raises(*_):
        raise error

    monkeypatch.setattr(steps, "trainer_of", raises)
    failures = steps.measure_steps(place, None, "a case", 1, Expected())
    assert failures == (["a case: no kernel"] if is_failure else [])
    rows = pd.read_csv(place.rows.file)
    assert rows["status"].tolist() == [status] and rows["case"].tolist() == ["a case"]


def test_the_gpus_model_has_no_tokenizer_of_the_hub(tmp_path):
    file = resident.without_hub_tokenizer("siglip-b16", tmp_path)
    ours, stock = (read_config(name)[0]["model_cfg"] for name in (file, "siglip-b16"))
    assert "hf_tokenizer_name" in stock["text_cfg"] and "hf_tokenizer_name" not in ours["text_cfg"]
    assert ours["vision_cfg"] == stock["vision_cfg"] and ours["text_cfg"]["width"] == stock["text_cfg"]["width"]
