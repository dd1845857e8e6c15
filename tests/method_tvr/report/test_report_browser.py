"""The report in a real browser: it needs nothing but its file, and does nothing that other people's data ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from method_tvr.report.report import write_report
from tests.support.browser import Watched, browser_or_skip, expect_in_viewport
from tests.support.report_files import make_report_files

pytest.importorskip("jinja2", reason="jinja2 is not installed (method_tvr/report/requirements.txt)")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = make_report_files(tmp_path_factory.mktemp("report"))
    return write_report([files.predictions, files.write_other("other.json")], gt_path=files.gt)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browser_or_skip() as started:
        yield started


def opened(browser: Any, report: Path, width: int = 1280, **options: object) -> Watched:
    """The page, open."""
    watched = Watched(browser, viewport={"width": width, "height": 900}, **options)
    watched.page.goto(report.as_uri())
    watched.page.wait_for_load_state("networkidle")
    return watched


@pytest.mark.parametrize("scripts", [True, False])
def test_it_asks_for_nothing_and_all_of_it_is_there_with_and_without_scripts(browser, report, scripts):
    watched = opened(browser, report, java_script_enabled=scripts)
    page = watched.page
    assert watched.requests == [report.as_uri()]
    assert watched.complaints == []
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
    page = opened(browser, report).page
    links = page.locator("nav a")
    for number in range(links.count()):
        links.nth(number).click()
        target = page.url.partition("#")[2]
        heading = page.locator(f"#{target} >> :is(h2, h3)").first
        expect_in_viewport(heading)
        page.evaluate("scrollTo(0, 0)")


def test_a_word_leaves_the_entries_that_have_it(browser, report):
    watched = opened(browser, report)
    page = watched.page
    everything = page.locator(".entry").count()
    page.get_by_role("searchbox").fill("NORA show_1")
    left = page.locator(".entry:visible")
    assert 0 < left.count() < everything
    assert all("show_1" in text and "Nora" in text for text in left.all_inner_texts())
    page.get_by_role("searchbox").fill("")
    assert page.locator(".entry:visible").count() == everything
    assert watched.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser, report, width):
    page = opened(browser, report, width).page
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_it_is_dark_where_that_is_preferred_but_not_on_paper(browser, report):
    page = opened(browser, report, color_scheme="dark").page
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure text')).fill"
    assert page.evaluate(ground) == "rgb(21, 24, 28)"
    assert page.evaluate(ink) == "rgb(230, 233, 237)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.evaluate(ink) == "rgb(27, 31, 36)"
