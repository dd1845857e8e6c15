"""The HTTP API: answers in JSON, refusals that say what would help, and nothing that breaks it or leaks from it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.web_stubs import BROKEN, NO_WORDS, REASON, VIDEOS, StubSearcher, moments_for

pytest.importorskip("fastapi_offline", reason=REASON)

from fastapi.testclient import TestClient

from method_tvr.config import SERVE, parse_inference_options
from method_tvr.web.answers import Question
from method_tvr.web.app import assemble
from method_tvr.web.limits import Limits
from method_tvr.web.middleware import SECURITY_HEADERS
from method_tvr.web.service import open_service, read_token
from tests.support.web_service import client_of
from utils.basic_utils import InputError

JSON = {"Content-Type": "application/json"}
NAME = VIDEOS[0].vid_name


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(StubSearcher()) as client:
        yield client


def found(*asked: Any, **where: Any) -> dict[str, Any]:
    """The answer to a question, as `moments_for` finds it."""
    return {"query": asked[0], "moments": [asdict(moment) for moment in moments_for(*asked, **where)]}


def said(answer: Any, status: int) -> str:
    """What a refusal says."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    return answer.json()["error"]


# ---------------------------------------------------------------------------- answers


def test_a_sentence_gets_the_moments_that_the_searcher_finds(client):
    answer = client.post("/api/search", json={"sentence": "Omar laughs.", "top_k": 3})
    assert (answer.status_code, answer.json()) == (200, found("Omar laughs.", 3))
    assert answer.headers["content-type"] == "application/json"
    assert client.post("/api/search", json={"sentence": "Omar"}).json() == found("Omar", 10)


@pytest.mark.parametrize("proved", [False, True])
def test_a_server_with_an_index_says_whether_an_answer_is_proved(proved):
    with client_of(StubSearcher(proved=proved)) as client:
        answer = client.post("/api/search", json={"sentence": "Omar laughs.", "top_k": 3}).json()
    assert answer == {**found("Omar laughs.", 3), "proved": proved}


def test_a_search_can_be_kept_to_a_video_or_a_show(client):
    asked = {"sentence": "Omar", "top_k": 1}
    assert client.post("/api/search", json={**asked, "video": NAME}).json() == found("Omar", 1, video=NAME)
    for show in ("friends", "friends_s01e01", "house"):
        assert client.post("/api/search", json={**asked, "show": show}).json() == found("Omar", 1, show=show)


@pytest.mark.parametrize(
    "sentence", ["يضحك عمر", "奥马尔笑了", "😀🏳️‍🌈", "a\x00b", "\u202eabc", "x" * 1000, "' OR 1=1; --", "<script>"]
)
def test_any_language_is_answered(client, sentence):
    answer = client.post("/api/search", json={"sentence": sentence, "top_k": 1})
    assert (answer.status_code, answer.json()) == (200, found(sentence, 1))


def test_videos_are_listed_with_their_durations(client):
    listed = [{"vid_name": video.vid_name, "duration": video.duration} for video in VIDEOS]
    assert client.get("/api/videos").json() == {"n_videos": 3, "videos": listed}
    assert client.get("/api/videos?prefix=friends&limit=1").json() == {"n_videos": 2, "videos": listed[:1]}
    assert client.get("/api/videos?prefix=%00").json() == {"n_videos": 0, "videos": []}


def test_health_says_what_is_served_and_not_where_it_lies(client):
    assert client.get("/api/health").json() == {"ready": True, "model": "model-1", "n_videos": 3}


def test_a_real_model_gives_the_searchers_own_answers(tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run"))
    service = open_service(parse_inference_options(["--model_dir", str(folder), "--device", "-1"], SERVE))
    with TestClient(assemble(service), base_url="http://localhost") as client:
        wanted = service.searcher.search("Omar laughs.", top_k=100)
        answer = client.post("/api/search", json={"sentence": "Omar laughs.", "top_k": 100}).json()
        assert answer["moments"] == [asdict(moment) for moment in wanted]
        assert len(wanted) == 100
        video = service.videos[0].vid_name
        kept = client.post("/api/search", json={"sentence": "عمر 😀", "video": video}).json()
        assert {moment["vid_name"] for moment in kept["moments"]} == {video}
        assert client.post("/api/search", json={"sentence": "a", "top_k": 101}).status_code == 422
    service.close()


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "sentence: field required"),
        ({"sentence": None}, 422, "sentence: input should be a valid string"),
        ({"sentence": ["a"]}, 422, "sentence: input should be a valid string"),
        ({"sentence": ""}, 422, "sentence: "),
        ({"sentence": " \n\u2003"}, 422, "a sentence is blank: write what to look for"),
        ({"sentence": NO_WORDS}, 422, "has no words that can be looked for"),
        ({"sentence": "x" * 1001}, 422, "sentence: must have at most 1000 characters"),
        ({"sentence": "a", "top_k": 0}, 422, "top_k: input should be greater than or equal to 1"),
        ({"sentence": "a", "top_k": 101}, 422, "top_k: must be at most 100"),
        ({"sentence": "a", "top_k": "5"}, 422, "top_k: input should be a valid integer"),
        ({"sentence": "a", "top_k": True}, 422, "top_k: input should be a valid integer"),
        ({"sentence": "a", "top_k": 10**40}, 422, "top_k: "),
        ({"sentence": "a", "top_k": -(2**63)}, 422, "top_k: "),
        ({"sentence": "a", "topk": 5}, 422, "topk: extra inputs are not permitted"),
        ({"sentence": "a", "video": "nowhere"}, 404, "video: there is none of this name: GET /api/videos lists them"),
        ({"sentence": "a", "video": "x" * 501}, 422, "video: "),
        ({"sentence": "a", "show": "frien"}, 404, "show: no video's name begins with it"),
        ({"sentence": "a", "show": 7}, 422, "show: input should be a valid string"),
        (["a"], 422, "the body must be an object"),
        (None, 422, "the body must be an object"),
    ],
)
def test_wrong_fields_are_named_with_what_is_allowed(client, body, status, message):
    assert message in said(client.post("/api/search", content=json.dumps(body), headers=JSON), status)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'{"sentence": NaN}',
        b'{"sentence": "a", "top_k": Infinity}',
        b'{"sentence": "a", "top_k": 1' + b"0" * 5000 + b"}",
        b'{"sentence": "\\ud800"}',
        b'{"sentence": "\xed\xa0\x80"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_what_is_not_json_is_refused(client, body):
    assert "not valid JSON in UTF-8" in said(client.post("/api/search", content=body, headers=JSON), 400)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_other_kinds_of_bodies_are_refused(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/api/search", content=b'{"sentence": "a"}', headers=headers)
    assert "application/json" in said(answer, 415)


def test_bodies_that_are_too_large_are_refused_with_a_length_or_without(client):
    large = json.dumps({"sentence": "a" * 70_000}).encode()
    assert "65536 bytes" in said(client.post("/api/search", content=large, headers=JSON), 413)
    parts = (large[first : first + 1000] for first in range(0, len(large), 1000))
    assert "65536 bytes" in said(client.post("/api/search", content=parts, headers=JSON), 413)
    assert "65536 bytes" in said(client.post("/nowhere", content=large), 413)


def test_a_body_that_does_not_arrive_is_not_waited_for():
    async def ask(app: Any) -> list[dict[str, Any]]:
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/api/search", "query_string": b"", "headers": headers}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return sent

    with client_of(StubSearcher(), Limits(timeout=0.2)) as client:
        start, body = asyncio.run(ask(client.app))
    assert start["status"] == 408
    assert "did not arrive within 0.2 s" in json.loads(body["body"])["error"]


def test_who_asks_too_often_is_told_when_to_come_back():
    with client_of(StubSearcher(), Limits(rate=0.01, burst=3)) as client:
        forged = {"X-Forwarded-For": "9.9.9.9", "Forwarded": "for=9.9.9.9"}
        for headers in ({}, forged, {}):
            assert client.get("/api/health", headers=headers).status_code == 200
        answer = client.post("/api/search", json={"sentence": "a"}, headers=forged)
        assert "too many requests" in said(answer, 429)
        assert 90 <= int(answer.headers["retry-after"]) <= 100
        assert client.get("/media/x").status_code == 404
        other = TestClient(client.app, base_url="http://localhost", client=("10.0.0.9", 1))
        assert other.get("/api/health").status_code == 200


def test_a_search_that_takes_too_long_is_given_up():
    searcher = StubSearcher()
    searcher.gate.clear()
    with client_of(searcher, Limits(rate=0, timeout=0.05)) as client:
        answer = client.post("/api/search", json={"sentence": "a"})
    assert "try again" in said(answer, 503)
    assert answer.headers["retry-after"] == "1"


def test_an_error_of_ours_is_told_to_the_log_alone(client, caplog):
    answer = client.post("/api/search", json={"sentence": BROKEN})
    assert said(answer, 500) == "internal error: see the server's log"
    assert "/secret/place" in caplog.text
    assert client.post("/api/search", json={"sentence": "a", "top_k": 1}).status_code == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [("limit=0", "limit: "), ("limit=1001", "limit: "), ("limit=" + "9" * 400, "limit: "), ("limit=x", "limit: "),
     ("prefix=" + "x" * 501, "prefix: ")],
)  # fmt: skip
def test_wrong_lists_are_refused(client, query, message):
    assert message in said(client.get(f"/api/videos?{query}"), 422)


def test_what_is_not_there_is_refused_and_the_right_method_named(client):
    assert "GET /api/docs" in said(client.get("/api/nothing"), 404)
    answer = client.get("/api/search")
    assert "only POST here" in said(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert "only GET here" in said(client.delete("/api/videos"), 405)
    said(client.get("/nothing"), 404)
    said(client.post("/media/x"), 405)


# ---------------------------------------------------------------------------- who may ask


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.5", ""])
def test_other_names_for_this_machine_are_refused(client, host):
    for path in ("/api/health", "/", "/media/x", "/api/docs"):
        assert "does not go by that name" in said(client.get(path, headers={"Host": host}), 400)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:80", "[::1]:7860", "[::1]"])
def test_the_names_of_this_machine_are_taken(client, host):
    assert client.get("/api/health", headers={"Host": host}).status_code == 200


def test_a_server_for_others_goes_by_the_names_of_its_machine_and_those_that_are_allowed():
    names = ["lab.example", "Other.Example:81"]
    with client_of(StubSearcher(), host="0.0.0.0", allowed_hosts=names) as client:
        for host in ("lab.example:7860", "LAB.example", "other.example", socket.gethostname(), "127.0.0.1:7860"):
            assert client.get("/api/health", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "evil.lab.example", "192.0.2.9", ""):
            assert "does not go by that name" in said(client.get("/api/health", headers={"Host": host}), 400)


def test_the_address_that_was_connected_to_is_taken():
    with client_of(StubSearcher(), host="0.0.0.0") as client:
        client.base_url = "http://192.0.2.1:7860"
        assert client.get("/api/health").status_code == 200


TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def guarded():
    with client_of(StubSearcher(), token=TOKEN) as client:
        yield client


@pytest.mark.parametrize("path", ["/api/health", "/api/docs", "/media/x", "/config", "/theme.css", "/assets/x.js"])
@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_without_the_token_nothing_is_told(guarded, path, shown):
    headers = {"Authorization": shown.encode("latin-1")} if shown else {}
    assert "Authorization: Bearer TOKEN" in said(guarded.get(path, headers=headers), 401)


def test_the_token_opens_the_api(guarded):
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/api/health", headers=shown).status_code == 200
    assert guarded.post("/api/search", json={"sentence": "Omar laughs."}, headers=shown).status_code == 200


def test_a_person_types_the_token_once(guarded):
    asked = guarded.get("/")
    assert asked.status_code == 401
    assert 'name="token"' in asked.text
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 401
    assert guarded.get("/config").status_code == 401
    opened = guarded.post("/login", data={"token": TOKEN}, follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
    assert guarded.get("/config").status_code == 200
    guarded.cookies.clear()


def test_pages_of_other_sites_may_not_try_tokens(guarded):
    assert guarded.post("/login", data={"token": TOKEN}, headers={"Origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("content", ["", "short", "two lines of\ntokens, each long enough", "ünicode-and-long-enough"])
def test_a_token_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(InputError, match=f"--token_file {path}: must hold one line of 16"):
        read_token(str(path))


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/api/health", "no-store"),
        ("/", "no-store"),
        ("/config", "no-store"),
        ("/assets/no-such-file.js", "no-store"),
        ("/api/docs/static/swagger-ui.css", "public, max-age=3600"),
    ],
)
def test_browsers_keep_files_alone(client, path, kept):
    assert client.get(path).headers["Cache-Control"] == kept


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://[", "localhost:7860"])
def test_pages_of_other_sites_may_not_ask(client, origin):
    answer = client.post("/api/search", json={"sentence": "a"}, headers={"Origin": origin})
    assert "other sites may not ask" in said(answer, 403)
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = client.options("/api/search", headers=asked)
    said(preflight, 403)
    assert not [name for name in (*preflight.headers, *answer.headers) if name.startswith("access-control")]


def test_the_servers_own_page_may_ask(client):
    own = {"Origin": "http://localhost:7860"}
    assert client.post("/api/search", json={"sentence": "a"}, headers=own).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/api/health", {}),
        ("GET", "/api/docs", {}),
        ("GET", "/", {"follow_redirects": False}),
        ("GET", "/nothing", {}),
        ("GET", "/api/health", {"headers": {"Host": "evil.example"}}),
        ("POST", "/api/search", {"headers": {"Origin": "null"}}),
        ("POST", "/api/search", {"json": {"sentence": BROKEN}}),
        ("POST", "/api/search", {"content": b"x" * 70_000}),
    ],
)
def test_every_answer_has_the_security_headers(client, method, path, options):
    answer = client.request(method, path, **options)
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


# ---------------------------------------------------------------------------- documentation


def test_the_documentation_needs_no_other_machine(client):
    page = client.get("/api/docs").text
    linked = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert [link for link in linked if link.endswith(".js")]
    assert [link for link in linked if link.endswith(".css")]
    for link in linked:
        assert link.startswith("/"), link
        assert client.get(link).status_code == 200
    assert "http://" not in page
    assert "https://" not in page


def test_the_openapi_document_says_what_is_asked_and_answered(client):
    document = client.get("/api/openapi.json").json()
    assert set(document["paths"]) == {
        "/api/search",
        "/api/pictures",
        "/api/videos",
        "/api/health",
        "/api/clips/{vid_name}",
        "/api/thumbnails/{vid_name}",
        "/api/moments.csv",
        "/media/{vid_name}",
    }
    search = document["paths"]["/api/search"]["post"]
    asked = search["requestBody"]["content"]["application/json"]["schema"]
    assert all(prop["description"] for prop in asked["properties"].values())
    assert Question.model_validate(asked["example"])
    assert {"200", "400", "404", "413", "415", "422", "429", "503"} <= set(search["responses"])
    limits = Limits()
    for limit in (limits.max_sentence, limits.max_top_k, limits.max_body):
        assert str(limit) in document["info"]["description"]


# ---------------------------------------------------------------------------- anything

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "sentence": st.text(max_size=40) | VALUES,
        "top_k": st.integers(-5, 120) | VALUES,
        "video": st.sampled_from([NAME, "x"]) | VALUES,
        "show": st.sampled_from(["friends", "x"]) | VALUES,
    },
)


def check_answer(answer: Any) -> None:
    if answer.status_code == 200:
        assert set(answer.json()) == {"query", "moments"}
    else:
        assert 400 <= answer.status_code < 500
        assert set(answer.json()) == {"error"}
        assert isinstance(answer.json()["error"], str)


@given(body=FIELDS | VALUES)
def test_any_json_is_answered_or_refused(client, body):
    content = json.dumps(body, ensure_ascii=True).encode()  # halves of characters go through as escapes
    check_answer(client.post("/api/search", content=content, headers=JSON))


@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused(client, body):
    check_answer(client.post("/api/search", content=body, headers=JSON))


@given(path=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_path_is_answered_or_refused(client, path):
    assert client.get(f"/api/{quote(path)}", follow_redirects=False).status_code < 500


def test_a_corpus_that_was_cut_short_is_said_in_the_log_alone_and_the_server_goes_on(monkeypatch, caplog):
    def cut(*_: object) -> None:
        raise InputError("/secret/place/rows.npy: has been cut short")

    with client_of(StubSearcher()) as client:
        monkeypatch.setattr(StubSearcher, "search", cut)
        answer = client.post("/api/search", json={"sentence": "Omar laughs."})
        assert "its log says which" in said(answer, 503)
        assert "/secret/place/rows.npy" in caplog.text
        monkeypatch.undo()
        assert client.post("/api/search", json={"sentence": "Omar laughs."}).status_code == 200
