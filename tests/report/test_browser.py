"""The page in a real browser (Debian's chromium, headless): it works from disk, alone, on a phone; its numbers hold."""

import os
import shutil
from urllib.parse import quote

import pandas as pd
import pytest

from repro.report import figures, page
from tests.report.conftest import inputs_of, run_row, sweep_table

ACCURACY = "wds_shapes_objects/acc1"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = "<script>alert(1)</script>"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("REPRO_NO_SKIPS"), reason="chromium is not installed"
)


def table_of_500_runs():
    table = sweep_table(seeds=range(36)).head(497)
    table["run_id"] = [f"{run}-{place}" for place, run in enumerate(table["run_id"])]
    odd = [
        run_row("softmax", 4096, status="oom", run_id="lost-oom"),
        run_row("sigmoid", 4096, status="diverged", run_id="lost-diverged"),
        run_row("sigmoid", 64, seed=99, run_id=EVIL, reason="<img src=x onerror=alert(2)>"),
    ]
    return pd.concat([table, pd.DataFrame(odd)], ignore_index=True)


def curves_of(table):
    lines = [
        {
            "sweep": "batch-size",
            "run_id": run,
            "examples_seen_at": step * 1000,
            "training_loss": 5.0 / step,
            "gradient_norm": 1.0,
        }
        for run in table["run_id"]
        for step in range(1, 41)
    ]
    return pd.DataFrame(lines)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(page file, its table) of 500 runs with training curves."""
    table = table_of_500_runs()
    folder = tmp_path_factory.mktemp("report")
    return page.write(inputs_of(table, logs=curves_of(table)), folder, "test"), table


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, report):
    """opened(width, height, address) → the page in a fresh tab; `requests` and `errors`: all that it asked and said."""
    contexts = []

    def open_page(width=1280, height=900, address="", file=report[0], **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.requests, tab.errors = [], []
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.on("console", lambda message: message.type in ("error", "warning") and tab.errors.append(message.text))
        tab.on("dialog", lambda dialog: (tab.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.goto(file.as_uri() + address)
        return tab

    yield open_page
    for context in contexts:
        context.close()


def cells(tab, column):
    """The shown texts of one column of the table of runs."""
    titles = tab.locator("#table thead th").all_inner_texts()
    place = [title.strip(" ▲▼") for title in titles].index(column)
    return tab.locator(f"#table tbody tr.run td:nth-child({place + 1})").all_inner_texts()


def test_it_asks_for_nothing_and_complains_of_nothing(opened, report):
    tab = opened()

    assert tab.requests == [report[0].as_uri()]
    assert tab.errors == []
    assert report[0].stat().st_size < 5e6


def test_every_run_is_counted(opened):
    tab = opened()

    assert tab.locator("#counted").inner_text() == "500 of 500 runs"


def test_its_numbers_are_the_csvs(opened, report):
    tab = opened()
    tab.locator("#more").click()

    csv = pd.read_csv(report[0].parent / "runs.csv").set_index("run_id")
    shown = dict(zip(cells(tab, "run"), cells(tab, "shapes_objects top-1 accuracy (%)"), strict=True))
    assert len(shown) == 500
    assert shown == {run: "" if value != value else f"{100 * value:.1f}" for run, value in csv[ACCURACY].items()}


def test_names_from_data_are_text(opened):
    tab = opened()
    tab.locator("#search").fill("alert(1)")

    assert cells(tab, "run") == [EVIL]
    tab.locator("#table tbody tr.run").click()
    assert "<img src=x onerror=alert(2)>" in tab.locator("#table .detail").inner_text()
    assert tab.errors == []
    assert tab.locator("main img").count() == 0


def test_it_sorts_both_ways_with_what_is_empty_last(opened):
    tab = opened()
    tab.locator("#search").fill("s3")
    tab.locator("#table thead button", has_text="top-1 accuracy").click()
    rising = [float(text) for text in cells(tab, "shapes_objects top-1 accuracy (%)") if text]
    tab.locator("#table thead button", has_text="top-1 accuracy").click()
    falling = [float(text) for text in cells(tab, "shapes_objects top-1 accuracy (%)") if text]

    assert len(rising) > 10
    assert rising == sorted(rising)
    assert falling == rising[::-1]

    tab.locator("#search").fill("4k")
    tab.locator("#table thead button", has_text="top-1 accuracy").click()
    assert set(cells(tab, "status")) == {"oom", "diverged"}


def test_it_filters_by_words_and_by_lists(opened):
    tab = opened()
    tab.locator("select[aria-label=status]").select_option(label="oom")

    assert cells(tab, "run") == ["lost-oom"]
    assert tab.locator("#counted").inner_text() == "1 of 500 runs"
    tab.locator("select[aria-label=status]").select_option(label="status: all")
    tab.locator("#search").fill("sigmoid diverged")
    assert cells(tab, "run") == ["lost-diverged"]


def test_a_run_opens_with_all_that_is_known_and_its_training_curves(opened, report):
    tab = opened()
    line = tab.locator("#table tbody tr.run").first
    run = cells(tab, "run")[0]
    line.click()

    detail = tab.locator("#table .detail")
    assert run in detail.inner_text()
    assert "spec_hash 0a1b2c3d" in detail.inner_text()
    assert "training loss: 0.125 to 5, to 40,000 examples" in detail.inner_text()
    assert detail.locator("svg path").count() == 2
    line.click()
    assert tab.locator("#table .detail").count() == 0


def test_a_point_of_a_figure_tells_its_run_and_leads_to_its_row(opened, report):
    tab = opened()
    point = tab.locator("figure svg a").first
    href = point.evaluate("link => decodeURIComponent(link.getAttribute('xlink:href'))")
    point.dispatch_event("pointerover")

    assert "batch size" in tab.locator("#tip").inner_text()
    point.dispatch_event("click")
    assert tab.locator("#table tr.open td").last.inner_text() == href.removeprefix("#run-batch-size/")
    assert tab.locator("#table tr.open").evaluate(
        "row => { const b = row.getBoundingClientRect(); return b.top >= 0 && b.top < innerHeight }"
    )


def test_a_link_to_a_late_run_draws_the_table_up_to_its_row(opened, report):
    run = report[1]["run_id"][300]
    tab = opened(address=f"#run-batch-size/{run}")

    assert tab.locator("#table tr.open td").last.inner_text() == run
    assert tab.locator("#table tr.run").count() == 301


def test_of_a_run_in_two_sweeps_each_link_leads_to_its_own_row(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FORMATS", ("svg",))
    table = pd.concat([sweep_table((64, 128)), sweep_table((64, 128), sweep="an/other")], ignore_index=True)
    logs = pd.concat([curves_of(table.head(4)), curves_of(table.head(4)).assign(sweep="an/other", training_loss=7.0)])
    file = page.write(inputs_of(table, logs=logs), tmp_path, "test")

    for sweep, loss in (("batch-size", "0.125 to 5"), ("an/other", "7 to 7")):
        tab = opened(file=file, address=f"#run-{quote(sweep, safe='')}/{table['run_id'][0]}")
        assert tab.locator("#table tr.open td").first.inner_text() == sweep
        assert f"training loss: {loss}" in tab.locator("#table .detail").inner_text()


def test_a_link_that_means_no_run_opens_none(opened):
    tab = opened(address="#run-%E0%A4%A")

    assert tab.errors == []
    assert tab.locator("#table tr.run").count() == 200
    assert tab.locator("#table tr.open").count() == 0


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_key_opens_a_row_and_says_so(opened, key):
    tab = opened()
    line = tab.locator("#table tr.run").first
    assert line.get_attribute("aria-expanded") == "false"

    line.press(key)

    assert line.get_attribute("aria-expanded") == "true"
    assert tab.locator("#table .detail").count() == 1


@pytest.mark.parametrize("width", [375, 768])
def test_a_phone_need_not_scroll_sideways(opened, width):
    tab = opened(width, 800)
    tab.locator("#table tbody tr.run").first.click()

    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_it_has_a_dark_theme(opened):
    colours = {
        scheme: opened(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }

    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}


def test_every_link_within_the_page_has_a_target(opened):
    tab = opened()

    missing = tab.evaluate(
        """[...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1))
           .filter(id => !document.getElementById(id))"""
    )
    doubled = tab.evaluate(
        """(() => { const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
           return ids.filter((id, at) => ids.indexOf(id) !== at) })()"""
    )
    assert missing == []
    assert doubled == []
