"""Run directories become a tidy table: one row a run, whatever became of it."""

import pytest

from repro import results
from repro.config.errors import InputError
from repro.runs.directory import RunDirectory


@pytest.fixture
def runs(tmp_path, make_spec):
    """Three runs of one sweep: finished, out of memory, and not begun."""
    folder = tmp_path / "runs"
    outcomes = [
        (64, {"status": "finished", "reason": "", "examples_per_second": 10.0, "metrics": {"wds_x/acc1": 0.5}}),
        (128, {"status": "oom", "reason": "MemoryError: 1 TiB"}),
        (256, None),
    ]
    for batch_size, result in outcomes:
        spec = make_spec(batch_size=batch_size)
        directory = RunDirectory(folder / "mine" / spec.run_id)
        directory.write_spec(spec)
        if result:
            directory.write_result(result)
    return folder


def test_every_run_is_a_row_with_its_status_and_reason(runs):
    table = results.load(runs, "mine")
    assert table["status"].tolist() == ["finished", "oom", "pending"]
    assert table["reason"].tolist()[1] == "MemoryError: 1 TiB"
    assert table["wds_x/acc1"].tolist()[0] == 0.5
    assert list(table.columns[: len(results.FIRST_COLUMNS)]) == results.FIRST_COLUMNS


def test_a_corrupt_run_is_a_row_and_does_not_break_the_table(runs):
    victim = next(runs.glob("mine/*bs128*"))
    (victim / "result.json").write_text('{"status"')
    table = results.load(runs, "mine")
    row = table[table["run_id"] == victim.name].iloc[0]
    assert row["status"] == "corrupt"
    assert "result.json" in row["reason"]
    assert len(table) == 3


def test_a_table_of_no_runs_has_the_columns(tmp_path):
    assert list(results.load(tmp_path)) == results.FIRST_COLUMNS


def test_the_most_recent_sweep_is_chosen_and_a_wrong_name_is_answered_with_the_nearest(runs, tmp_path):
    assert results.choose_sweep(runs, None) == "mine"
    with pytest.raises(InputError, match="the nearest is 'mine'"):
        results.choose_sweep(runs, "mime")
    with pytest.raises(InputError, match="repro sweep batch-size"):
        results.choose_sweep(tmp_path / "nothing", None)


def test_a_folder_that_is_not_there_and_a_sweep_without_runs_say_what_would_work(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "runs")
    with pytest.raises(InputError, match=r"runs: no folder of runs here \(.*\); expected one"):
        results.load()
    with pytest.raises(InputError, match=r"no runs of a sweep 'mime' in .*; the nearest is 'mine'"):
        results.load(runs, "mime")


def test_all_sweeps_are_read_at_once_where_none_is_named(runs, make_spec):
    spec = make_spec(batch_size=32, evaluate_at=(256,))
    directory = RunDirectory(runs / "other" / spec.run_id)
    directory.write_spec(spec)
    directory.write_result({"status": "finished", "reason": "", "metrics": {"wds_x/acc1": 0.25}})
    directory.log({"step": 1, "examples_seen": 32, "loss": 3.5})

    assert set(results.load(runs)["sweep"]) == {"mine", "other"}
    assert results.load_evaluations(runs)[["sweep", "wds_x/acc1"]].values.tolist() == [["other", 0.25]]
    curves = results.load_curves(runs, None, ["loss"])
    assert curves[["sweep", "loss", "training_loss"]].values.tolist() == [["other", "sigmoid", 3.5]]


def test_the_papers_tables_come_along():
    published = results.published()
    row = published.query("source == 'table-5' and loss == 'sigmoid' and batch_size == 32768 and examples_seen == 9e9")
    assert row["value"].tolist() == [73.4]


def test_a_place_that_no_table_can_be_written_to_is_named(runs, tmp_path):
    (tmp_path / "file").touch()
    table = results.load(runs, "mine")
    for place, why in ((tmp_path, "Is a directory"), (tmp_path / "file" / "mine.csv", "Not a directory|File exists")):
        with pytest.raises(InputError, match=rf"{place}: cannot be written \(({why})\)"):
            results.write_csv(table, place)


def test_a_csv_reads_back_as_the_table(runs, tmp_path):
    import pandas as pd

    table = results.load(runs, "mine")
    results.write_csv(table, tmp_path / "results" / "mine.csv")
    again = pd.read_csv(tmp_path / "results" / "mine.csv")
    assert again["run_id"].tolist() == table["run_id"].tolist()


def test_a_published_command_names_no_place_of_a_machine():
    command = "__main__.py sweep noise --runs /home/me/runs --data shards/{000..012}.tar"

    assert results.without_places(command) == "repro sweep noise --runs runs --data shards/{000..012}.tar"
