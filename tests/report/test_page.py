"""The report's folder: what the page says, that it needs nothing else, and that no table can break it."""

import html
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from repro import results
from repro.report import figures, page, tables
from tests.report.conftest import run_row, sweep_table

ACCURACY = "wds_shapes_objects/acc1"


class Page(HTMLParser):
    """The page as a browser reads it: tags with attributes, ids, and table cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.in_cell = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "td":
            self.cells.append("")
        self.in_cell = tag == "td"

    def handle_endtag(self, tag):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report of fourteen finished runs with one seed."""
    folder = tmp_path_factory.mktemp("report")
    page.write(sweep_table(), results.published(), folder, "batch-size")
    return folder


@pytest.fixture
def write(published, tmp_path, monkeypatch):
    """write(table) → the page's text. PNG files, which take longest, are left out."""
    monkeypatch.setattr(figures, "FORMATS", ("svg",))

    def write_page(table, **options):
        return page.write(table, published, tmp_path, "batch-size", **options).read_text()

    return write_page


def test_the_folder_holds_figures_tables_and_one_page(folder):
    drawn = {f"{name}.{kind}" for name in ("accuracy", "throughput", "memory") for kind in ("png", "svg")}
    found = {f"{name}.{kind}" for name in ("runs", "results", "differences", "provenance") for kind in ("csv", "md")}
    assert drawn | found | {"index.html"} <= {file.name for file in folder.iterdir()}
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_loads_nothing(folder):
    text = (folder / "index.html").read_text()

    tags = Page(text).tags
    assert "script" not in {tag for tag, _ in tags}
    loading = [value for tag, values in tags for name, value in values.items() if name in ("src", "srcset", "data")]
    links = [values.get("href", "") for tag, values in tags if tag in ("link", "use", "image")]
    links += [values.get("xlink:href", "") for _, values in tags]
    assert loading == []
    assert all(link == "" or link.startswith(("#", "data:")) for link in links)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_ids_are_unique_though_figures_share_a_page(folder):
    ids = [values["id"] for _, values in Page((folder / "index.html").read_text()).tags if "id" in values]

    assert len(ids) == len(set(ids))


def test_what_comes_from_runs_is_text(write):
    table = sweep_table()
    table.loc[len(table)] = run_row("sigmoid", 4096, status="failed", run_id="<script>alert(1)</script>")
    table.loc[0, "reason"] = "<img src=x onerror=alert(1)> & $x$"
    table = table.rename(columns={ACCURACY: "<b>$a$</b>/acc1"}).assign(setup="<i>siglip</i>")

    text = write(table, command="repro report '<u>'")

    tags = {tag for tag, _ in Page(text).tags}
    assert not tags & {"script", "img", "b", "i", "u"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b>$a$</b>, top-1 accuracy" in html.unescape(text)


def test_runs_csv_is_the_table_and_the_page_shows_its_numbers(folder, table):
    again = pd.read_csv(
        folder / "runs.csv", keep_default_na=False, na_values={"init_logit_bias": "", "final_logit_bias": ""}
    )
    cells = Page((folder / "index.html").read_text()).cells

    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert all(f"{100 * value:.1f}" in cells for value in table[ACCURACY])
    assert all(run in cells for run in table["run_id"])


def test_results_csv_and_markdown_hold_the_same_numbers(write, tmp_path):
    write(sweep_table(seeds=(0, 1, 2)))

    csv = pd.read_csv(tmp_path / "results.csv")
    row = csv[(csv["metric"] == ACCURACY) & (csv["loss"] == "softmax") & (csv["batch_size"] == 1024)].iloc[0]
    (line,) = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("| 1k ")]
    assert f"{row['mean_percent']:.1f} ± {row['std_percent']:.1f}" in line
    assert len(csv) == 8 * 2 * 7  # the metrics, with both mean recalls; losses; batch sizes


def test_the_page_says_what_was_run(write):
    table = sweep_table()
    table.loc[len(table)] = run_row("softmax", 4096, status="oom")

    text = html.unescape(write(table, command="repro report batch-size --runs elsewhere"))

    assert "15 runs: 14 finished, 1 oom." in text
    assert "Setup siglip at laptop scale; sigmoid and softmax loss; batch sizes 32 to 4k" in text
    assert "do not reproduce the paper's absolute ones" in text
    assert "the reason of oom" in text
    assert "repro report batch-size --runs elsewhere" in text
    assert "arXiv 2303.15343, table 8" in text


def test_findings_are_computed_from_the_table(write):
    rows = [run_row("sigmoid", size, accuracy=value) for size, value in ((64, 0.40), (128, 0.50), (256, 0.45))]
    rows += [run_row("softmax", size, accuracy=value) for size, value in ((64, 0.30), (128, 0.45), (256, 0.46))]

    findings = page.findings(pd.DataFrame(rows), [ACCURACY])

    assert findings[0] == (
        "shapes_objects top-1 accuracy: sigmoid is best at batch size 128 (50.0%, 1 seed), softmax is best at batch "
        "size 256 (46.0%, 1 seed), where the grid ends, so the best may lie beyond; sigmoid is ahead at 2 of 3 batch "
        "sizes, by −1.0 to +10.0 points."
    )
    assert "none of these differences can be told from chance" in findings[1]


def test_the_interval_is_named_only_where_there_is_one(table):
    assert "no interval can be given" in page.interval_sentence(table)
    assert "95% intervals of the mean (Student's t)" in page.interval_sentence(sweep_table(seeds=(0, 1)))


def test_a_metric_can_be_chosen(table, write, tmp_path):
    write(table, metrics=["wds_shapes_objects/acc5"])

    assert "top-5 accuracy" in (tmp_path / "results.md").read_text()
    assert "top-1 accuracy (%)" not in (tmp_path / "runs.md").read_text()


def broken_tables():
    failed = pd.DataFrame(
        [run_row(loss, size, status="failed") for loss in ("sigmoid", "softmax") for size in (64, 128)]
    )
    corrupt = pd.DataFrame(
        [{"run_id": "x", "sweep": "batch-size", "status": "corrupt", "reason": "spec.json: no JSON"}]
    )
    no_metric = sweep_table().drop(columns=[column for column in sweep_table().columns if "/" in column])
    mixed = pd.concat([sweep_table(), corrupt], ignore_index=True)
    odd = sweep_table().astype({ACCURACY: object, "examples_per_second": object})
    odd.loc[0, [ACCURACY, "examples_per_second"]] = "not a number"
    return {
        "no run finished": failed,
        "all corrupt": corrupt.reindex(columns=results.FIRST_COLUMNS),
        "one corrupt": mixed,
        "no evaluation": no_metric,
        "text for numbers": odd,
        "one run": sweep_table(batch_sizes=(64,)).iloc[:1],
        "one loss": sweep_table().query("loss == 'sigmoid'"),
        "odd batch sizes": sweep_table(batch_sizes=(48, 64, 100, 98304)),
    }


@pytest.mark.parametrize("name", broken_tables())
def test_no_table_stops_a_report(name, write):
    table = broken_tables()[name]

    text = write(table)

    assert f"{len(table)} run" in text
    if not len(tables.finished(table)):
        assert "No run has finished" in text


def test_what_stands_in_for_what_is_private_is_said(published, tmp_path):
    text = page.write(sweep_table(scale="paper"), published, tmp_path, "batch-size").read_text()
    assert "WebLI, which the paper trains on, is private" in text
    assert "is private" not in page.write(sweep_table(), published, tmp_path, "batch-size").read_text()
