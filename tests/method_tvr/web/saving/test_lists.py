"""Visitors save the moments of a sentence as a table."""

from __future__ import annotations

import csv
import io

import pytest

from tests.support.web_stubs import NO_WORDS, REASON, StubSearcher, moments_for

pytest.importorskip("fastapi_offline", reason=REASON)

from method_tvr.web.limits import Limits
from method_tvr.web.media import MediaFiles
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.saving.lists import list_url
from tests.support.web_service import client_of


def test_the_list_has_what_the_page_shows():
    searcher = StubSearcher()
    with client_of(searcher) as client:
        answer = client.get(list_url("=Omar & Nora, 100 %", None, 3, None, "friends"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="moments.csv"'
    assert searcher.calls == [(["=Omar & Nora, 100 %"], 3, None, "friends")]
    assert searcher.nms_thds == [0.5]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""), strict=True))
    assert [row["sentence"] for row in rows] == ["'=Omar & Nora, 100 %"] * 3
    wanted = moments_for("=Omar & Nora, 100 %", 3, show="friends")
    assert [(float(row["start"]), float(row["score"])) for row in rows] == [(one.start, one.score) for one in wanted]
    assert rows[0]["video_match"] == "0.25"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("sentence=", 422),
        ("sentence=a&top_k=0", 422),
        (f"sentence={NO_WORDS}", 422),
        ("sentence=" + "a" * 1001, 422),
    ],
)
def test_what_cannot_be_asked_is_refused_in_the_form_of_all_refusals(query, status):
    with client_of(StubSearcher()) as client:
        answer = client.get(f"/api/moments.csv?{query}")
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_lists_are_limited_as_questions_are():
    with client_of(StubSearcher(), Limits(rate=0.001, burst=1.0, max_top_k=2)) as client:
        answer = client.get(list_url("Omar laughs.", None, 50, None, None))
        assert len(answer.content.decode().splitlines()) == 3
        assert client.get(list_url("Omar laughs.", None, 50, None, None)).status_code == 429


def test_the_page_links_to_the_list_of_moments_that_were_asked_for():
    shown = [ShownMoment("1", moments_for("a", 1)[0], 60.0)]
    view = MomentView({}, MediaFiles({}))
    url = list_url('a "b" <c>', None, 5, None, None)
    assert 'href="/api/moments.csv?sentence=a+%22b%22+%3Cc%3E&amp;top_k=5" download' in view.cards(shown, url)
    assert "moments.csv" not in view.cards(shown) + view.cards([], url)
