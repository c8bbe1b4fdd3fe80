"""results/ as a folder to publish: what is written, what is left alone, what is said to have changed."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from repro import publish
from repro.cli import main
from repro.config.sweep import Overrides, expand, load_sweep
from repro.publish.columns import describe
from repro.report.markup import latex_table
from repro.runs.directory import RunDirectory
from tests.report.conftest import run_row, sweep_table


def repro(*arguments):
    return CliRunner().invoke(main, ["publish", *arguments])


def front_of(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_every_table_has_its_forms_a_citation_and_a_card(folder):
    result = repro()

    assert result.exit_code == 0, result.output
    written = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert written == {
        *("README.md", "all.csv", "batch-size.csv", "citation.bib"),
        *("tables/batch-size.md", "tables/batch-size.tex"),
    }


def test_published_twice_nothing_changes_and_it_says_so(folder):
    repro()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    result = repro()

    assert "results: nothing has changed" in result.output
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_files_of_others_are_left_alone(folder):
    others = [folder / name for name in ("notes.txt", "paper/published.csv", "bench/loss.csv", "imported/x.csv")]
    for file in others:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    repro()

    assert [file.read_text() for file in others] == ["mine"] * 4


def test_a_readme_of_somebody_else_is_refused_before_anything_is_written(folder):
    (folder / "README.md").write_text("# Mine")
    result = repro()

    assert result.exit_code == 2
    assert "README.md: was not written by this command, and is left as it is" in result.output
    assert (folder / "README.md").read_text() == "# Mine" and not (folder / "all.csv").exists()


def test_runs_make_their_sweeps_tables_anew_and_the_changes_are_counted(folder):
    specs = expand(load_sweep("batch-size"), "laptop", Overrides({"batch_size": [64]}, {}))
    for spec in specs:
        directory = RunDirectory(Path("runs/batch-size") / spec.run_id)
        directory.write_spec(spec)
        directory.write_result({"status": "finished", "reason": "", "metrics": {"wds_shapes_objects/acc1": 0.5}})
    result = repro()
    assert "rebuilt from runs: batch-size" in result.output
    assert "updated   batch-size.csv: " in result.output

    directory.write_result({"status": "oom", "reason": "MemoryError"})
    result = repro()
    assert "updated   batch-size.csv: 1 lines added, 1 removed" in result.output


def test_a_sweep_can_be_named_and_a_wrong_name_is_answered_with_the_nearest(folder):
    result = repro("batch-sise")

    assert result.exit_code == 2
    assert "the nearest is 'batch-size'" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--out", "elsewhere"], "nothing to publish"), (["--runs", "rnus"], "--runs rnus: no such folder")],
)
def test_nothing_to_publish_is_a_message(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = repro(*arguments)

    assert result.exit_code == 2
    assert message in result.output


def test_the_card_has_a_configuration_for_each_table_and_describes_each_column(folder):
    repro()
    text = (folder / "README.md").read_text()
    configs = front_of(folder)["configs"]

    assert [(config["config_name"], config["data_files"]) for config in configs] == [
        ("all", "all.csv"),
        ("batch-size", "batch-size.csv"),
    ]
    assert front_of(folder)["license"] == "apache-2.0"
    for column in pd.read_csv(folder / "all.csv").columns:
        assert f"| {column} |" in text
    assert "not described" not in text
    for told in ("0123456789ab", "Some CPU, 2 cores", "torch 2.9.0", "5f3a9c0d1e2b4a67", "do not reproduce the paper"):
        assert told in text


def test_every_column_of_the_tables_in_this_repository_is_described():
    found = {
        column
        for file in (Path(__file__).parents[2] / "results").glob("*.csv")
        for column in pd.read_csv(file, nrows=1).columns
    }

    assert found and not [column for column in found if not describe(column)]


def test_a_column_that_nobody_described_is_said_to_be_so(folder):
    sweep_table((64,)).assign(mood="good").to_csv(folder / "batch-size.csv", index=False)
    result = repro()

    assert "note: column 'mood' is not described in the data card" in result.output


def test_the_table_of_all_runs_keeps_the_numbers_as_they_stand(folder):
    sweep_table((256,), sweep="older").to_csv(folder / "older.csv", index=False)
    repro()
    together = pd.read_csv(folder / "all.csv", dtype=str, keep_default_na=False)
    alone = pd.read_csv(folder / "older.csv", dtype=str, keep_default_na=False)

    assert together["sweep"].value_counts().to_dict() == {"batch-size": 8, "older": 2}
    pd.testing.assert_frame_equal(together[together["sweep"] == "older"][alone.columns].reset_index(drop=True), alone)


def test_a_table_for_a_paper_has_means_over_seeds_and_says_what_has_no_result(folder):
    rows = [run_row(seed=0, accuracy=0.5), run_row(seed=1, accuracy=0.52), run_row(loss="softmax", status="oom")]
    pd.DataFrame(rows).to_csv(folder / "batch-size.csv", index=False)
    repro()
    text = (folder / "tables/batch-size.tex").read_text()

    assert r"sigmoid & 64 & 2 & 51.0 $\pm$ 1.4 &" in text
    assert "softmax & 64 & 0 &" in text and r"& 1 oom \\" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert rule in text


def test_what_tex_reads_as_a_command_is_escaped():
    cells = {"a_b (%)": ["50 % & _more_ #1 {x} ^ ~ \\ $", "[1] ± −2 é 中"]}
    text = latex_table(pd.DataFrame(cells), "100 %", "tab:x")

    assert r"50 \% \& \_more\_ \#1 \{x\} \textasciicircum{} \textasciitilde{} \textbackslash{} \$" in text
    assert r"{[}1{]} $\pm$ $-$2 e {[}U+4E2D{]}" in text
    assert r"a\_b (\%)" in text and r"\caption{100 \%}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
@pytest.mark.parametrize("rows", [3, 60])
def test_tables_compile(tmp_path, rows):
    cells = ['[1] 50 % & _more_ #1 {x} ^ ~ \\ $ < > | " é 中 ± − … β', "1.0 ± 0.1"]
    frame = pd.DataFrame([cells] * rows, columns=["a_b (%)\nsecond, and quite a long line", "c & d"])
    packages = "\\usepackage{booktabs,graphicx,longtable,multirow}"
    table = latex_table(frame, "100 % _", "tab:x")
    (tmp_path / "x.tex").write_text(f"\\documentclass{{article}}{packages}\\begin{{document}}{table}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_table_longer_than_a_page_breaks_between_pages_and_numbers_go_right():
    assert r"\begin{longtable}{r}" in latex_table(pd.DataFrame({"a": ["1"] * 60}), "long", "tab:long")


def test_the_citation_names_the_paper_and_the_commit(folder):
    repro()
    text = (folder / "citation.bib").read_text()

    assert "Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas" in text
    assert "2303.15343" in text and "Results made at 0123456789ab" in text


def test_a_measurement_alone_can_be_published(tmp_path):
    table = pd.DataFrame({"loss": ["sigmoid", "softmax"], "batch_size": [4096, 2048], "status": ["ok", "at least"]})
    table.to_csv(tmp_path / "capacity.csv", index=False)
    publish.write(publish.prepare(tmp_path, tmp_path))

    assert "| sigmoid | 4k | ok |" in (tmp_path / "tables/capacity.md").read_text()
    assert [config["config_name"] for config in front_of(tmp_path)["configs"]] == ["capacity"]
