"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser_or_skip() -> Iterator[Any]:
    """A headless browser; the test is skipped, with the reason, where there is none."""
    reason = "the playwright package is not installed (tests/requirements.txt)"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"there is no {PROGRAMS[0]} on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def visitor_or_skip() -> Iterator[Any]:
    """Somebody with such a browser, who opens pages that find in its cache what those before them asked for."""
    with browser_or_skip() as started:
        yield started.new_context(viewport={"width": 1280, "height": 900})


class Watched:
    """A page of a browser, and all that went on behind it.

    Args:
        started: the browser, or one visitor's share of it.
        **context: of a new page of a browser, such as `color_scheme` or `viewport`.

    Attributes:
        page: Playwright's.
        requests: addresses of all that it asked for.
        complaints: errors and warnings on its console, errors in its scripts, and dialogs that opened.
    """

    def __init__(self, started: Any, **context: Any) -> None:
        self.page = started.new_page(**context)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)

    @property
    def hosts(self) -> set[str]:
        """Where it asked, with ports; "" where it was no network."""
        return {urlsplit(address).netloc for address in self.requests}

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def expect_in_viewport(element: Any) -> None:
    """Wait until an element can be seen without scrolling.

    Raises:
        AssertionError: it does not come into view.
    """
    from playwright.sync_api import expect

    expect(element).to_be_in_viewport()
