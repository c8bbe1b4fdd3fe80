"""Broken evaluation sets: refused before anything starts, or, where they break later, training is kept."""

import os
import shutil
from pathlib import Path

import pytest

from repro import results
from repro.launch import JobSettings, launch
from tests.drill.conftest import eval_folder, overwrite, picture, small_cell


def cut(folder: Path) -> None:
    os.truncate(folder / "test" / "0.tar", 1600)


KINDS = {
    "no nshards.txt": (lambda f: (f / "test/nshards.txt").unlink(), "test/nshards.txt is missing"),
    "nshards.txt is no number": (
        lambda f: (f / "test/nshards.txt").write_text("many"),
        "test/nshards.txt says 'many'; expected the number of tar files",
    ),
    "no classnames": (lambda f: (f / "classnames.txt").unlink(), "classnames.txt is missing"),
    "no templates": (
        lambda f: (f / "zeroshot_classification_templates.txt").unlink(),
        "zeroshot_classification_templates.txt is missing",
    ),
    "a tar is missing": (
        lambda f: (f / "test/nshards.txt").write_text("2"),
        "test/1.tar is missing; nshards.txt says 2",
    ),
    "a tar is cut off": (cut, "test/0.tar is no whole tar file: ReadError: unexpected end of data"),
    "zeros in a tar": (
        lambda f: overwrite(f / "test/0.tar", bytes(2048), at=2048),
        "test/0.tar is no whole tar file: ends at byte 2048",
    ),
    "a tar is empty": (lambda f: (f / "test/0.tar").write_bytes(b""), "test/0.tar is no whole tar file: an empty file"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_broken_evaluation_set_is_refused_before_anything_starts(tmp_path, repro, world, name):
    damage, message = KINDS[name]
    folder = eval_folder(tmp_path / "wds_mine")
    damage(folder)
    done = repro("sweep", "batch-size", "--set", "data=shapes:2048", "--eval", folder, "--runs", tmp_path / "runs")
    assert (done.exit_code, f"--eval {folder}: " in done.output, message in done.output) == (2, True, True), done.output
    assert not (tmp_path / "runs").exists()


LATER = {
    "a tar is cut off": (cut, "test/0.tar is no whole tar file"),
    "the folder is gone": (shutil.rmtree, "no such folder"),
    "an image cannot be decoded": (
        lambda f: eval_folder(f, [{"png": picture(1), "cls": b"0"}, {"png": b"no image", "cls": b"1"}]),
        "UnidentifiedImageError",
    ),
    "no labels": (lambda f: eval_folder(f, [{"png": picture(1), "txt": b"0"}]), "Error"),
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, world) -> dict:
    """Runs whose second evaluation set breaks before it is read, launched together."""
    folder = tmp_path_factory.mktemp("evaluations")
    good = eval_folder(folder / "wds_good")
    cells = {}
    for number, (name, (damage, _)) in enumerate(LATER.items()):
        broken = eval_folder(folder / f"{number}" / "wds_broken")
        cells[name] = small_cell(folder / "runs", evals=(str(broken), str(good)), seed=number)
        damage(broken)
    launch(list(cells.values()), JobSettings(), jobs=2)
    return cells


@pytest.mark.parametrize("name", LATER)
def test_a_set_that_breaks_later_fails_the_run_and_keeps_training_and_the_other_sets(evaluated, name):
    directory = evaluated[name].directory
    row = results.row(directory)
    assert row["status"] == "failed"
    assert "evaluation failed, training is kept: --eval " in row["reason"] and LATER[name][1] in row["reason"]
    assert "wds_broken" in row["reason"]
    assert row["wds_good/acc1"] in (0.5, 1.0) and row["final_loss"] > 0
    assert directory.final.exists() and directory.trained_file.exists()


def test_retry_only_evaluates_again(evaluated):
    cells = list(evaluated.values())
    trained_at = [cell.directory.final.stat().st_mtime_ns for cell in cells]
    for cell in cells:
        eval_folder(Path(cell.spec.evals[0]))
    launch(cells, JobSettings(), jobs=2, retry=True)
    assert {cell.state() for cell in cells} == {"finished"}
    assert [cell.directory.final.stat().st_mtime_ns for cell in cells] == trained_at
    assert "wds_broken/acc1" in results.row(cells[0].directory)
