"""Where the numbers of a report come from."""

import pandas as pd

from repro import results
from repro.report.inputs import Inputs
from repro.report.words import provenance
from tests.report.conftest import sweep_table


def test_provenance_names_commits_versions_machines_and_data(table):
    table.loc[0, ["git_dirty", "git_commit"]] = [True, "fedcba9876543210" + 24 * "0"]
    theirs = sweep_table(batch_sizes=(64,), origin="theirs", sweep="theirs", source_file="theirs.json")
    both = pd.concat([table, theirs], ignore_index=True)
    found = Inputs(both, pd.DataFrame(), pd.DataFrame(), results.published(), {})

    ours, imported, paper = sorted(
        provenance(found.all, found.published).to_dict("records"), key=lambda row: row["series"]
    )[:3]

    assert ours["series"] == "batch-size, siglip, laptop"
    assert ours["source"] == "14 runs, 14 finished"
    assert ours["commits"] == "0123456789ab, fedcba987654 (some with uncommitted changes)"
    assert "torch 2.9.0" in ours["versions"]
    assert ours["data fingerprints"] == "5f3a9c0d1e2b4a67"
    assert (imported["series"], imported["files"]) == ("imported: theirs, siglip, laptop", "theirs.json")
    assert paper["source"].startswith("arXiv 2303.15343; 688 numbers")
