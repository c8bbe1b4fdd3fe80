"""The report's folder: what the page says, that it needs nothing else, and that no table can break it."""

import html
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from repro import results
from repro.report import figures, page, words
from repro.results import tables
from tests.report.conftest import inputs_of, run_row, sweep_table

ACCURACY = "wds_shapes_objects/acc1"
SWEEPS = ("bias", "noise", "negatives", "batch-size", "vocabulary", "finetune", "seeds")


class Page(HTMLParser):
    """The page as a browser reads it: tags with attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.in_script = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.in_script = dict(attributes).get("id", "") if tag == "script" else None

    def handle_endtag(self, tag):
        self.in_script = None

    def handle_data(self, data):
        if self.in_script is not None:
            self.scripts[self.in_script] = self.scripts.get(self.in_script, "") + data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The report of fourteen finished runs with one seed."""
    folder = tmp_path_factory.mktemp("report")
    page.write(inputs_of(sweep_table()), folder, "batch-size", "repro report batch-size")
    return folder


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(table) → the page's text. PNG and PDF files, which take longest, are left out."""
    monkeypatch.setattr(figures, "FORMATS", ("svg",))

    def write_page(table, **options):
        return page.write(inputs_of(table, **options), tmp_path, "test").read_text()

    return write_page


def test_the_folder_holds_figures_tables_and_one_page(folder):
    figures_ = {f"figure-2{column}.{kind}" for column in ("", "-column") for kind in ("png", "svg", "pdf")}
    tables_ = {f"{name}.{kind}" for name in ("table-5", "claims", "saturation-points") for kind in ("csv", "md", "tex")}

    assert figures_ <= {file.name for file in (folder / "figures").iterdir()}
    assert tables_ <= {file.name for file in (folder / "tables").iterdir()}
    assert {"index.html", "report.md", "report.tex", "runs.csv"} <= {file.name for file in folder.iterdir()}


def test_the_page_loads_nothing(folder):
    text = (folder / "index.html").read_text()

    tags = Page(text).tags
    loading = [value for _, values in tags for name, value in values.items() if name in ("src", "srcset", "data")]
    links = [values.get("href", "") for tag, values in tags if tag in ("link", "use", "image")]
    assert loading == []
    assert all(link == "" or link.startswith(("#", "data:")) for link in links)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text


def test_what_the_page_links_to_is_in_the_folder(folder):
    hrefs = {values.get("href", "") for tag, values in Page((folder / "index.html").read_text()).tags if tag == "a"}
    files = {href for href in hrefs if href and not href.startswith("#")}

    assert len(files) > 20
    assert [file for file in files if not (folder / file).is_file()] == []


def test_ids_are_unique_though_figures_share_a_page(folder):
    ids = [values["id"] for _, values in Page((folder / "index.html").read_text()).tags if "id" in values]

    assert len(ids) == len(set(ids))


def test_the_same_runs_give_the_same_bytes(folder, tmp_path):
    page.write(inputs_of(sweep_table()), tmp_path, "batch-size", "repro report batch-size")

    for file in folder.rglob("*.*"):
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes(), file


def test_nothing_of_a_run_is_markup_in_the_document(tmp_path):
    table = sweep_table(setup="*a* [b](http://c) `d` <e> &amp; # ~~f~~", machine="| `x` _y_ ![z](w)")
    page.write(inputs_of(table.head(1)), tmp_path, "*1*", "repro report `1``2`")

    text = (tmp_path / "report.md").read_text()

    assert text.startswith(r"# \*1\*" + "\n")
    assert r"\*a\* \[b\](http://c) \`d\` &lt;e> \&amp; \# \~\~f\~\~" in text
    assert r"\| \`x\` \_y\_ !\[z\](w)" in text
    assert "``` repro report `1``2` ```" in text


def test_a_report_made_again_leaves_no_figure_of_the_one_before(write, tmp_path):
    write(sweep_table())
    (tmp_path / "figures/mine.svg").write_text("not of a report")
    write(sweep_table(sweep="other"))

    left = {file.name for file in (tmp_path / "figures").iterdir()}
    assert "figure-2.svg" not in left
    assert {"figure-accuracy-other.svg", "mine.svg"} <= left


def test_what_comes_from_runs_is_text(write, tmp_path):
    table = sweep_table()
    table.loc[len(table)] = run_row("sigmoid", 4096, status="failed", run_id="</script><script>alert(1)</script>")
    table.loc[0, "reason"] = "<img src=x onerror=alert(1)> & $x$"
    table = table.rename(columns={ACCURACY: "<b>$a$</b>/acc1"}).assign(setup="<i>siglip</i>", sweep="<u>mine</u>")

    text = write(table)

    read = Page(text)
    assert not {tag for tag, _ in read.tags} & {"img", "b", "i", "u"}
    assert len(read.scripts) == 2
    assert "</script><script>alert(1)</script>" in json.loads(read.scripts["data"])["columns"][0]["values"]
    assert "<u>" not in (tmp_path / "report.md").read_text()


def test_the_pages_data_are_the_table_and_so_is_runs_csv(folder):
    table = sweep_table()
    data = json.loads(Page((folder / "index.html").read_text()).scripts["data"])
    csv = pd.read_csv(folder / "runs.csv")

    (accuracies,) = [column for column in data["columns"] if column["name"] == ACCURACY]
    (shown,) = [column for column in data["shown"] if column["by"] == ACCURACY]
    assert accuracies["values"] == pytest.approx(list(table[ACCURACY]), rel=1e-5)
    assert shown["values"] == [f"{100 * value:.1f}" for value in table[ACCURACY]]
    assert list(csv[ACCURACY]) == list(table[ACCURACY])
    assert list(csv["run_id"]) == list(table["run_id"])


@pytest.mark.parametrize(
    ("values", "packed"),
    [
        (["a"] * 9, {"name": "x", "same": "a"}),
        (["a", "b", "a", "a", "b", "a"], {"name": "x", "levels": ["a", "b"], "codes": [0, 1, 0, 0, 1, 0]}),
        ([0.123456789, float("nan"), 3.0], {"name": "x", "values": [0.123457, None, 3]}),
    ],
)
def test_a_column_travels_small(values, packed):
    assert page._packed("x", values) == packed


def test_a_training_curve_is_thinned_and_keeps_its_end(table):
    steps = range(1, 1001)
    lines = {"sweep": "batch-size", "run_id": table["run_id"][3], "examples_seen_at": steps}

    curve = page.payload(table, [ACCURACY], pd.DataFrame(lines).assign(training_loss=[1 / s for s in steps]))["curves"][
        3
    ]

    assert len(curve["examples"]) == page.MOST_POINTS
    assert (curve["examples"][-1], curve["training_loss"][-1]) == (1000, 0.001)


def test_the_page_says_what_was_run(folder):
    text = html.unescape((folder / "index.html").read_text())

    assert "14 runs of 1 sweep (batch-size), all finished." in text
    assert "Setup siglip at laptop scale; sigmoid and softmax loss; batch sizes 32 to 2k" in text
    assert "do not reproduce the paper's absolute ones" in text
    assert "repro report batch-size" in text
    assert "arXiv 2303.15343" in text


def test_what_is_odd_about_runs_is_said():
    table = sweep_table()
    table.loc[len(table)] = run_row("softmax", 4096, status="oom", git_commit="another")
    table.loc[len(table)] = {"run_id": "x", "status": "corrupt", "reason": "spec.json: not JSON"}

    said = " ".join(words.cautions(table))

    assert words.summary(table).startswith("16 runs of 1 sweep (batch-size): 14 finished, 1 oom, 1 corrupt.")
    assert "Runs were made by 2 versions of the code" in said
    assert "1 run cannot be read" in said


def test_verdicts_are_counted_in_words():
    assert words.verdict_counts(["agrees", "agrees", "contradicts", "not run"]) == (
        "Of the paper's 4 claims 2 agree, 1 contradicts, 1 was not run."
    )


def test_the_claims_stand_with_verdict_and_figure(folder):
    text = (folder / "index.html").read_text()
    csv = pd.read_csv(folder / "tables/claims.csv").set_index("name")

    assert csv.loc["small-batches", "verdict"] == "too few runs"
    assert csv.loc["noise", "verdict"] == "not run"
    assert '<a href="#figure-2">Below 16k the sigmoid loss is clearly ahead' in text


def test_the_report_is_a_document_of_markdown_and_of_latex(folder):
    markdown, latex = (folder / "report.md").read_text(), (folder / "report.tex").read_text()

    for picture in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (folder / picture).is_file()
    assert "| too few runs |" in markdown
    inputs = re.findall(r"\\(?:input|includegraphics\[.*?\])\{(.*?)\}", latex)
    assert len(inputs) >= 10
    assert all((folder / name).is_file() for name in inputs)
    assert latex.count(r"\begin{figure}") == latex.count(r"\end{figure}") > 2


def test_a_metric_can_be_chosen(table, write):
    text = write(table, metrics=("wds_shapes_objects/acc5",))

    titles = [column["name"] for column in json.loads(Page(text).scripts["data"])["shown"]]
    assert "shapes_objects top-5 accuracy (%)" in titles
    assert "shapes_objects top-1 accuracy (%)" not in titles


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
    imported = sweep_table(origin="theirs", sweep="theirs").drop(columns=["machine", "git_commit"])
    return {
        "no run finished": failed,
        "all corrupt": corrupt.reindex(columns=results.FIRST_COLUMNS),
        "one corrupt": mixed,
        "no evaluation": no_metric,
        "text for numbers": odd,
        "text for examples": sweep_table().astype({"examples_seen": object}).assign(examples_seen="x"),
        "one run": sweep_table(batch_sizes=(64,)).iloc[:1],
        "one loss": sweep_table().query("loss == 'sigmoid'"),
        "odd batch sizes": sweep_table(batch_sizes=(48, 64, 100, 98304)),
        "only imported": imported,
        "only loss, batch size and metric": sweep_table()[["loss", "batch_size", ACCURACY]],
        "status without reason": sweep_table().drop(columns="reason"),
        "no rows": sweep_table()[:0],
        "older, with less columns": sweep_table()[["run_id", "sweep", "setup", "loss", "batch_size", ACCURACY]],
        "another loss": sweep_table().assign(loss="triplet"),
        "other sweeps, failed": pd.DataFrame([run_row(status="failed", sweep=sweep) for sweep in SWEEPS]),
        "other sweeps, columns of an older version": pd.DataFrame([run_row(sweep=sweep) for sweep in SWEEPS]),
        "ours and imported": pd.concat([sweep_table(), imported], ignore_index=True),
    }


@pytest.mark.parametrize("name", broken_tables())
def test_no_table_stops_a_report(name, write):
    table = broken_tables()[name]

    text = write(table, curves=pd.DataFrame({"sweep": ["beta2"]}))

    ours = table[table["origin"].isna()] if "origin" in table else table
    assert (f"{len(ours)} run" if len(ours) or table.empty else "14 imported rows, no runs of ours.") in text
    assert json.loads(Page(text).scripts["data"])["count"] == len(table)
    if not len(tables.finished(table)):
        assert "No run has finished" in text


def test_what_stands_in_for_what_is_private_is_said(write):
    assert "WebLI, which the paper trains on, is private" in html.unescape(write(sweep_table(scale="paper")))
    assert "is private" not in write(sweep_table())


def test_provenance_names_commits_versions_machines_and_data(table):
    table.loc[0, ["git_dirty", "git_commit"]] = [True, "fedcba9876543210" + 24 * "0"]
    theirs = sweep_table(batch_sizes=(64,), origin="theirs", sweep="theirs", source_file="theirs.json")
    both = pd.concat([table, theirs], ignore_index=True)
    inputs = inputs_of(both)

    ours, imported, paper = sorted(
        words.provenance(inputs.all, inputs.published).to_dict("records"), key=lambda row: row["series"]
    )[:3]

    assert ours["series"] == "batch-size, siglip, laptop"
    assert ours["source"] == "14 runs, 14 finished"
    assert ours["commits"] == "0123456789ab, fedcba987654 (some with uncommitted changes)"
    assert "torch 2.9.0" in ours["versions"]
    assert ours["data fingerprints"] == "5f3a9c0d1e2b4a67"
    assert (imported["series"], imported["files"]) == ("imported: theirs, siglip, laptop", "theirs.json")
    assert paper["source"].startswith("arXiv 2303.15343; 688 numbers")
