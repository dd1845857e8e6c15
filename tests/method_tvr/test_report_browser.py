"""The report in a real browser: it needs nothing but its file, and does nothing that other people's data ask for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from method_tvr.report import write_report
from tests.method_tvr.report_files import make_report_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("jinja2", reason="jinja2 is not installed (method_tvr/report_requirements.txt)")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (tests/requirements.txt)")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = make_report_files(tmp_path_factory.mktemp("report"))
    return write_report([files.predictions, files.write_other("other.json")], gt_path=files.gt)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, report: Path, width: int = 1280, **options: object) -> tuple[Page, list[str], list[str]]:
    """The page, what it asked for and what went wrong in it."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    requests: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    return page, requests, faults


@pytest.mark.parametrize("scripts", [True, False])
def test_it_asks_for_nothing_and_all_of_it_is_there_with_and_without_scripts(browser, report, scripts):
    page, requests, faults = opened(browser, report, java_script_enabled=scripts)
    assert requests == [report.as_uri()]
    assert faults == []
    assert page.title() == "predictions.json: report"  # no sentence has changed it
    entries = page.locator(".entry")
    assert entries.count() > 12
    for entry in (entries.first, entries.last):
        entry.scroll_into_view_if_needed()
        assert entry.is_visible()
        assert entry.locator(".timeline").is_visible()
    assert page.locator("figure svg").first.bounding_box()["height"] > 100
    assert page.locator("img").count() == 0
    assert page.get_by_role("search").count() == (1 if scripts else 0)


def test_its_contents_lead_to_its_sections(browser, report):
    page, _, _ = opened(browser, report)
    links = page.locator("nav a")
    for number in range(links.count()):
        links.nth(number).click()
        target = page.url.partition("#")[2]
        heading = page.locator(f"#{target} >> :is(h2, h3)").first
        sync_api.expect(heading).to_be_in_viewport()
        page.evaluate("scrollTo(0, 0)")


def test_a_word_leaves_the_entries_that_have_it(browser, report):
    page, _, faults = opened(browser, report)
    everything = page.locator(".entry").count()
    page.get_by_role("searchbox").fill("NORA show_1")
    left = page.locator(".entry:visible")
    assert 0 < left.count() < everything
    assert all("show_1" in text and "Nora" in text for text in left.all_inner_texts())
    page.get_by_role("searchbox").fill("")
    assert page.locator(".entry:visible").count() == everything
    assert faults == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser, report, width):
    page, _, _ = opened(browser, report, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_it_is_dark_where_that_is_preferred_but_not_on_paper(browser, report):
    page, _, _ = opened(browser, report, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure text')).fill"
    assert page.evaluate(ground) == "rgb(21, 24, 28)"
    assert page.evaluate(ink) == "rgb(230, 233, 237)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.evaluate(ink) == "rgb(27, 31, 36)"
