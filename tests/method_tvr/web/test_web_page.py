"""The page's events as they come over HTTP, from its own buttons or from someone who writes them by hand."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.web_stubs import BROKEN, REASON, VIDEOS, StubSearcher

pytest.importorskip("fastapi_offline", reason=REASON)
pytest.importorskip("gradio", reason=REASON)

from fastapi.testclient import TestClient

from method_tvr.ask.questions import QuestionError
from method_tvr.dataset.split_facts import Fact
from method_tvr.web.limits import Limits
from method_tvr.web.outcomes.query_outcomes import QueryOutcomes
from method_tvr.web.page import page as page_module
from method_tvr.web.page.blocks import VisitorQueue
from standalone_eval.aligned import align
from standalone_eval.metrics import Rule
from tests.support.web_service import client_of
from utils.basic_utils import InputError

ANY_QUERY = ["any", 0.5, "any", "any", "", "as annotated"]
NAMES = [video.vid_name for video in VIDEOS]
UNKNOWN = "not_searched"
JSON = "application/json"
FUZZED = int(os.environ.get("FUZZED_EVENTS", "60"))
HALF = "\ud800"  # of a character


def outcomes(*tasks: str, iou_thds: tuple[float, ...] = (0.5, 0.7), sentences: tuple[str, ...] = ()) -> QueryOutcomes:
    """Three queries about the first two videos and one that is not searched, each predicted in two of these."""
    names, rows = [*NAMES, UNKNOWN], []
    said = sentences or ("Omar laughs.", "Nora opens a drawer.", "Somebody leaves.")
    for number, (name, sentence) in enumerate(zip((NAMES[0], NAMES[1], UNKNOWN), said, strict=True)):
        rows.append({"desc_id": number, "desc": sentence, "vid_name": name, "ts": [2, 8]})
    video2idx = {name: number for number, name in enumerate(names)}
    found = [[video2idx[UNKNOWN], 2, 90, 0.9], [0, 2, 8, 0.8]]
    entries = [{"desc_id": number, "predictions": found} for number in range(3)]
    return QueryOutcomes(align({"video2idx": video2idx, **dict.fromkeys(tasks, entries)}, rows), said, Rule(iou_thds))


class Page:
    """Sends the page's events to its server."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        config = client.get("/config").json()
        names = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
        self._events = {
            (names.get(target), event): one["id"] for one in config["dependencies"] for target, event in one["targets"]
        }

    @property
    def queue(self) -> VisitorQueue:
        """Where events wait."""
        (page,) = (route.app for route in self.client.app.routes if hasattr(getattr(route, "app", None), "get_blocks"))
        return page.get_blocks()._queue

    def number(self, element: str, event: str) -> int:
        """Of an event."""
        return int(self._events[element, event])

    def send(self, element: str, event: str, data: Any = (), chosen: Any = None, session: str = "visitor") -> Any:
        """What a visitor's page gets once the event is dealt with."""
        body = {"data": data, "fn_index": self.number(element, event), "event_data": chosen, "session_hash": session}
        content = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        assert self.client.post("/gradio_api/queue/join", **content).status_code == 200
        with self.client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
            messages = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
        (completed,) = (message for message in messages if message["msg"] == "process_completed")
        return completed["output"]

    def filter(self, *data: Any, session: str = "visitor") -> str:
        """The table of queries."""
        return self.send("rank", "change", data or ANY_QUERY, session=session)["data"][0]

    def open(self, number: int, session: str = "visitor") -> list[str]:
        """A query's heading, cards and details."""
        return self.send("queries", "select", [None], {"number": number}, session)["data"][:3]


@contextmanager
def page_of(outcomes: QueryOutcomes | None = None, limits: Limits | None = None) -> Iterator[Page]:
    with client_of(StubSearcher(), limits or Limits(rate=0), outcomes=outcomes) as client:
        yield Page(client)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with page_of(outcomes("VCMR", "SVMR", "VR")) as page:
        yield page


@pytest.mark.parametrize("task", ["VCMR", "SVMR", "VR"])
def test_a_prediction_file_of_one_task_is_browsed(task):
    with page_of(outcomes(task)) as page:
        assert "3 of 3 queries" in page.filter()
        heading, cards, _ = page.open(0)
        assert "Omar laughs." in heading
        assert cards.count('class="moment"') == (2 if task == "SVMR" else 3)
        assert "2 to 10" not in page.filter("any", 0.5, "any", "2 to 10", "", "best first")


def test_videos_that_are_not_searched_have_no_curves_and_end_where_their_last_moment_does(page):
    page.filter()
    heading, cards, _ = page.open(2)
    assert "Somebody leaves." in heading
    of_known = cards.partition(NAMES[0])[2]
    assert "polyline" in of_known
    assert "polyline" not in cards.removesuffix(of_known)
    assert "<span>01:30</span>" in cards


def test_queries_that_cannot_be_looked_for_are_shown_all_the_same():
    with page_of(outcomes("VCMR", sentences=("", "  ", "Omar laughs."))) as page:
        page.filter()
        _, cards, details = page.open(0)
        assert "polyline" not in cards + details
        assert NAMES[0] in cards


def test_what_is_wrong_with_the_videos_stands_in_the_heading_and_else_nothing():
    fact = Fact("1 of 3 videos are too short to be found: <b>", "give --min_pred_l 1")
    for facts in ([fact], []):
        with client_of(StubSearcher(), facts=facts) as client:
            values = [str(one["props"].get("value")) for one in client.get("/config").json()["components"]]
        (heading,) = [value for value in values if "page-title" in value]
        assert heading.count('class="note"') == len(facts)
        assert ("too short to be found: &lt;b&gt;: give --min_pred_l 1" in heading) == bool(facts)


def test_thresholds_may_be_whole_numbers():
    with page_of(outcomes("VCMR", iou_thds=(0.5, 1))) as page:
        assert "3 of 3 queries" in page.filter("any", 1, "any", "any", "", "worst first")


@pytest.mark.parametrize(
    ("element", "event", "data", "chosen"),
    [
        ("ask", "click", [{"a": 1}, 3, [1], 7], None),
        ("ask", "click", ["Omar laughs.", None, None, None], None),
        ("ask", "click", ["Omar laughs.", float("nan"), "", ""], None),
        ("ask", "click", ["Omar laughs.", 1e308, "", ""], None),
        ("ask", "click", ["x" * 5000, 3, "", ""], None),
        ("ask", "click", [HALF, 3, HALF, HALF], None),
        ("ask", "click", [BROKEN, 3, "", ""], None),
        ("ask", "click", [], None),
        ("rank", "change", [None] * 6, None),
        ("rank", "change", [["any"], [0.5], [], ["1"], [], []], None),
        ("rank", "change", ["any", "0.5", "any", {}, "", ""], None),
        ("rank", "change", ["any", 0.5, "any", "any", HALF, "as annotated"], None),
        ("queries-on", "click", [10**30, *ANY_QUERY], None),
        ("queries-back", "click", ["x", *ANY_QUERY], None),
        *(("queries", "select", [[0]], chosen) for chosen in ({"number": 10**30}, {"number": -9}, 5, "number", [1])),
        *(("query-cards", "select", [[0]], chosen) for chosen in ({"number": "x"}, {"_data": 1}, None)),
    ],
)
def test_whatever_is_sent_is_answered_and_nothing_of_the_server_is_told(page, element, event, data, chosen):
    page.filter()
    page.open(1)
    answer = json.dumps(page.send(element, event, data, chosen))
    assert "Traceback" not in answer
    assert "secret" not in answer
    assert "3 of 3 queries" in page.filter()


@pytest.mark.parametrize("chosen", [5, "number", [1], None, {"number": None}])
def test_what_is_no_choice_chooses_the_first(page, chosen):
    page.filter()
    assert "Omar laughs." in page.send("queries", "select", [None], chosen)["data"][0]


def test_a_filter_that_is_cleared_leaves_its_property_open(page):
    assert page.filter(None, None, None, None, None, None) == page.filter()


def test_messages_are_sent_whatever_the_visitor_wrote(monkeypatch):
    def none_found(searcher: StubSearcher, sentences: list[str], top_k: int, video: str, *_: object) -> None:
        raise QuestionError(f"there is no video {video}")

    monkeypatch.setattr(StubSearcher, "search", none_found)
    with page_of() as page:
        assert "there is no video ?" in page.send("ask", "click", ["Omar laughs.", 3, HALF, ""])["data"][0]


def test_the_page_asks_for_moments_without_overlaps_and_the_api_for_all():
    searcher = StubSearcher()
    with client_of(searcher, Limits(rate=0)) as client:
        Page(client).send("ask", "click", ["Omar laughs.", 3, "", ""])
        assert client.post("/api/search", json={"sentence": "Omar laughs."}).status_code == 200
    with client_of(searcher, Limits(rate=0), nms_thd=-1) as client:
        Page(client).send("ask", "click", ["Omar laughs.", 3, "", ""])
    assert searcher.nms_thds == [0.5, None, -1]


def test_the_page_does_not_say_where_anything_lies(page):
    assert "secret" not in page.client.get("/").text
    assert "secret" not in page.client.get("/config").text


def test_lists_of_visitors_who_came_long_ago_are_forgotten_and_that_is_said(monkeypatch):
    monkeypatch.setattr(page_module, "MAX_SESSIONS", 2)
    with page_of(outcomes("VCMR")) as page:
        for session in ("first", "second", "third"):
            page.filter(session=session)
        assert "Omar laughs." in page.open(0, session="third")[0]
        heading, cards, details = page.open(0, session="first")
        assert "too long ago" in heading
        assert (cards, details) == ("", "")
        (said,) = page.send("query-cards", "select", [None], {"number": 0}, session="first")["data"]
        assert "too long ago" in said


def test_events_of_the_page_count_for_the_rate_of_a_client():
    with page_of(outcomes("VCMR"), Limits(rate=0.01, burst=2)) as page:
        page.filter()
        page.filter()
        answer = page.client.post("/gradio_api/queue/join", json={})
        assert answer.status_code == 429


# ---------------------------------------------------------------------------- what strangers send, and leave unread

HOSTILE = {
    "a file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    "a file in a list": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}],
    "a file of another server": {"url": "http://127.0.0.1:9/x", "path": "x", "meta": {"_type": "gradio.FileData"}},
    "a property": {"value": "x", "__type__": "update"},
    "a long text": "a" * 5000,
    "no number": float("nan"),
    "endless": float("inf"),
    "a large number": 10**300,
    "yes": True,
    "a list": [],
}


def inputs_of_events(page: Page) -> list[tuple[int, list[dict[str, Any]]]]:
    """The number of each event that takes inputs from the page, and their components."""
    config = page.client.get("/config").json()
    components = {one["id"]: one for one in config["components"]}
    events = [(one["id"], [components[number] for number in one["inputs"]]) for one in config["dependencies"]]
    return [(number, inputs) for number, inputs in events if any(one["type"] != "state" for one in inputs)]


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_no_event_takes_anything_but_plain_values(page, monkeypatch, capfd, value):
    monkeypatch.setattr("gradio.processing_utils.async_move_files_to_cache", lambda *_, **__: pytest.fail("looked at"))
    events = inputs_of_events(page)
    assert len(events) >= 9
    for event, inputs in events:
        for place, component in enumerate(inputs):
            if component["type"] == "state":
                continue
            data = [one["props"].get("value") for one in inputs]
            data[place] = value
            body = {"data": data, "fn_index": event, "session_hash": "stranger"}
            page.client.post("/gradio_api/queue/join", content=json.dumps(body), headers={"Content-Type": JSON})
            with page.client.stream("GET", "/gradio_api/queue/data?session_hash=stranger") as stream:
                said = "".join(stream.iter_lines())
            assert "cannot be that" in said, (component["type"], said)
            assert len(said) < 1000
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("data", [[], [None] * 50])
def test_an_event_with_other_inputs_is_refused(page, capfd, data):
    assert "other inputs" in page.send("rank", "change", data)["error"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        {"fn_index": 999},
        {"fn_index": -1},
        {"fn_index": None},
        {"session_hash": "a" * 101},
        {"event_data": {"number": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}},
        {"event_data": [[1]]},
        {"event_data": [1] * 11},
        {"event_data": {"number": "a" * 101}},
    ],
)
def test_events_and_sessions_that_cannot_be_are_refused_quietly(page, capfd, body):
    asked = {"data": [], "fn_index": 0, "session_hash": "visitor"} | body
    assert page.client.post("/gradio_api/queue/join", json=asked).status_code == 400
    assert page.client.get("/gradio_api/queue/data?session_hash=nobody").status_code == 404
    assert page.client.get("/gradio_api/queue/data").status_code == 404
    assert "Traceback" not in capfd.readouterr().err


def join(page: Page, session: str) -> int:
    """The status of asking, under a session's name, for what is not fetched."""
    body = {"data": ["Omar laughs.", 5, "", ""], "fn_index": page.number("ask", "click"), "session_hash": session}
    return int(page.client.post("/gradio_api/queue/join", json=body).status_code)


def wait_for_answers(queue: Any) -> None:
    """Until nothing is being worked on."""
    end = time.monotonic() + 20
    while len(queue) or any(queue.active_jobs):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_client_with_much_unread_is_refused_until_it_reads(monkeypatch):
    monkeypatch.setattr(VisitorQueue, "MAX_UNREAD", 5)
    with page_of() as page:
        assert [join(page, f"session {number % 2}") for number in range(7)] == [200] * 5 + [429] * 2
        for session in ("session 0", "session 1"):
            with page.client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
                assert "process_completed" in "".join(stream.iter_lines())
        assert join(page, "session 0") == 200


def test_large_answers_count_by_their_size(monkeypatch):
    monkeypatch.setattr(VisitorQueue, "MAX_UNREAD_BYTES", 1)
    with page_of() as page:
        assert join(page, "one") == 200
        wait_for_answers(page.queue)
        assert join(page, "two") == 429


def test_what_is_unread_for_long_or_is_too_much_in_all_is_forgotten(monkeypatch):
    with page_of() as page:
        assert join(page, "old") == 200
        wait_for_answers(page.queue)
        assert page.queue.blocks.knows_session("old")
        monkeypatch.setattr(VisitorQueue, "MAX_UNREAD_S", 0.0)
        page.queue.forget_unread()
        assert not page.queue.blocks.knows_session("old")
        assert not page.queue.event_ids_to_events
        assert not page.queue.pending_event_ids_session
        monkeypatch.setattr(VisitorQueue, "MAX_UNREAD_S", 60.0)
        monkeypatch.setattr(VisitorQueue, "MAX_UNREAD_BYTES_IN_ALL", 1)
        assert join(page, "large") == 200
        wait_for_answers(page.queue)
        assert not page.queue.blocks.knows_session("large")


def test_a_file_that_is_gone_is_told_in_the_log_alone(monkeypatch, caplog):
    def gone(*_: object) -> None:
        raise InputError("/secret/place/rows.npy: is gone")

    with page_of() as page:
        monkeypatch.setattr(StubSearcher, "search", gone)
        shown = page.send("ask", "click", ["Omar laughs.", 5, "", ""])["data"][0]
    assert "its log says which" in shown
    assert "/secret" not in shown
    assert "/secret/place/rows.npy" in caplog.text


def test_an_example_is_put_into_the_box(page):
    assert page.send("examples", "select", [], {"number": 1})["data"][0] == "Nora opens a drawer."
    for odd in (-5, 10**30, None, True, "1"):
        assert page.send("examples", "select", [], {"number": odd})["data"][0].endswith(".")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(HOSTILE["a file"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=FUZZED, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.fixed_dictionaries(
        {"data": st.lists(anything, max_size=8) | anything},
        optional={
            "fn_index": st.integers(-2, 40) | anything,
            "event_data": anything,
            "session_hash": st.just("fuzz") | anything,
            "trigger_id": anything,
            "batched": anything,
            "event_id": anything,
            "simple_format": anything,
        },
    )
)
def test_any_event_is_answered_or_refused(page, capfd, body):
    content = {"content": json.dumps(body), "headers": {"Content-Type": JSON}}
    status = page.client.post("/gradio_api/queue/join", **content).status_code
    assert status in (200, 400, 422, 429), status
    wait_for_answers(page.queue)
    for session in list(page.queue.pending_messages_per_session):
        page.queue.forget(session)
    assert page.client.get("/api/health").status_code == 200
    assert "Traceback" not in capfd.readouterr().err
