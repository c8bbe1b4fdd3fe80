"""A run directory holds whole files or none, and says what became of its run."""

import json

import pytest

from repro.config.files import CorruptRun, write_json
from repro.runs import ownership
from repro.runs.directory import RunDirectory, find_run


@pytest.fixture
def directory(tmp_path, make_spec):
    directory = RunDirectory(tmp_path / "runs" / "mine" / make_spec().run_id)
    directory.write_spec(make_spec())
    return directory


def test_a_spec_is_read_back_as_it_was_written(directory, make_spec):
    assert directory.read_spec() == make_spec()


def test_states_follow_from_the_files(directory):
    assert directory.status() == "pending"
    directory.log({"step": 1})
    assert directory.status() == "interrupted"
    attempt = ownership.claim(directory.attempts)
    assert directory.status() == "running"
    attempt.end("interrupted")
    assert directory.status() == "interrupted"
    directory.cancelled_file.write_text("{}")
    assert directory.status() == "cancelled"
    directory.write_result({"status": "oom", "reason": "too big"})
    assert directory.status() == "oom"


def test_a_number_that_is_not_finite_is_logged_as_null(directory):
    directory.log({"loss": float("nan")})
    assert directory.read_log() == [{"loss": None}]


def test_a_line_cut_off_by_a_kill_is_left_out(directory):
    directory.log({"step": 1})
    with directory.log_file.open("a") as file:
        file.write('{"step": 2, "lo')
    assert directory.read_log() == [{"step": 1}]
    assert directory.last_logged() == {"step": 1}


@pytest.mark.parametrize(("step", "left"), [(0, []), (2, [1, 2]), (9, [1, 2, 3])])
def test_a_log_is_cut_back_to_the_step_that_a_run_goes_on_from(directory, step, left):
    for number in (1, 2, 3):
        directory.log({"step": number})
    with directory.log_file.open("a") as file:
        file.write('{"step": 4, "lo')
    directory.truncate_log(step)
    assert [line["step"] for line in directory.read_log()] == left
    directory.log({"step": 10})
    assert [line["step"] for line in directory.read_log()] == [*left, 10]


def test_a_log_that_a_crash_left_unreadable_is_cut_back_to_what_can_be_read(directory):
    directory.log({"step": 1})
    with directory.log_file.open("ab") as file:
        file.write(bytes(100) + b"\n")
    directory.log({"step": 2})
    directory.truncate_log(5)
    assert directory.read_log() == [{"step": 1}]


def test_a_log_that_is_not_there_is_not_made(directory):
    directory.truncate_log(3)
    assert not directory.log_file.exists()


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    write_json(tmp_path / "a.json", {"old": True})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "spec.json"),
        ("[]", "expected keys"),
        ('{"format": 99}', "format 99.*reads format 2"),
        ('{"format": 2}', "missing"),
    ],
)
def test_a_spec_that_cannot_be_read_names_the_file_and_why(directory, text, message):
    directory.spec_file.write_text(text)
    with pytest.raises(CorruptRun, match=message):
        directory.read_spec()


def test_a_run_is_found_by_id_by_directory_and_by_any_file_in_it(directory, tmp_path):
    for target in (directory.path.name, str(directory.path), str(directory.final)):
        assert find_run(target, tmp_path / "runs").path == directory.path
    assert find_run("no-run", tmp_path / "runs") is None
