"""repro publish --repo, against a hub on this machine."""

import pytest
from click.testing import CliRunner

from repro.cli import main
from tests.publish.conftest import TOKEN


def push(*arguments):
    return CliRunner().invoke(main, ["publish", "--repo", "ada/siglip", *arguments])


def test_all_files_come_in_one_commit_and_no_others(folder, hub):
    (folder / "notes.txt").write_text("mine")
    result = push()

    assert result.exit_code == 0, result.output
    assert f"pushed: {hub.url}/datasets/ada/siglip/commit/" in result.output
    (commit,) = hub.commits
    assert {"README.md", "batch-size.csv", "all.csv", "tables/batch-size.tex", "citation.bib"} <= set(commit)
    assert "notes.txt" not in commit
    assert hub.repos["ada/siglip"]["README.md"] == (folder / "README.md").read_bytes()


def test_pushed_again_nothing_is_committed(folder, hub):
    push()
    result = push()

    assert result.exit_code == 0, result.output
    assert "nothing has changed" in result.output
    assert len(hub.commits) == 1


def test_the_token_is_sent_and_nowhere_shown_or_written(folder, hub):
    result = push()

    assert {authorization for _, authorization in hub.heard} == {f"Bearer {TOKEN}"}
    assert TOKEN not in result.output
    assert not [file for file in folder.rglob("*") if file.is_file() and TOKEN in file.read_text()]


def test_a_file_with_the_token_in_it_is_not_sent(folder, hub):
    table = folder / "batch-size.csv"
    table.write_text(table.read_text().replace("Some CPU", f"Some CPU --token {TOKEN}"))
    result = push()

    assert result.exit_code == 2
    assert "holds a token of the hub, so nothing is sent" in result.output
    assert TOKEN not in result.output
    assert hub.heard == []


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_the_hub_refuses_is_a_message_and_the_folder_stays_written(folder, hub, status):
    hub.refuse = status
    result = push()

    assert result.exit_code == 2
    assert f"(HTTP {status}); expected a token that may write there" in result.output
    assert TOKEN not in result.output
    assert (folder / "README.md").exists()


def test_without_a_network_the_folder_stays_written(folder, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = push()

    assert result.exit_code == 2
    assert "--repo ada/siglip: " in result.output and "refused (tried 5 times)" in result.output
    assert (folder / "README.md").exists()


def test_without_a_token_it_says_where_one_comes_from(folder, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    result = push()

    assert result.exit_code == 2
    assert "no token of the hub; expected one in HF_TOKEN" in result.output
    assert hub.heard == []


@pytest.mark.parametrize("name", ["siglip", "ada/", "a/b/c", "ada/-x", "ada/a b"])
def test_a_malformed_name_is_refused_before_anything_is_written(folder, name):
    result = CliRunner().invoke(main, ["publish", "--repo", name])

    assert result.exit_code == 2
    assert "expected USER/NAME" in result.output
    assert not (folder / "README.md").exists()


def test_a_dry_run_pushes_and_writes_nothing(folder, hub):
    result = push("--dry-run")

    assert "nothing was written, nothing pushed to ada/siglip" in result.output
    assert hub.heard == [] and not (folder / "README.md").exists()
