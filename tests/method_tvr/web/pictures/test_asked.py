"""Visitors ask with pictures that they send: within limits, guarded as all else, and searched for beside sentences."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.web_stubs import REASON, StubSearcher, moments_for

pytest.importorskip("fastapi_offline", reason=REASON)

from fastapi.testclient import TestClient

from method_tvr.ask.questions import QuestionError
from method_tvr.web.batching import BatchedSearcher, Busy
from method_tvr.web.pictures.asked import AskedPictures
from method_tvr.web.saving.lists import list_url
from tests.support.web_service import UNLIMITED, client_of

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def stub() -> StubSearcher:
    return StubSearcher(compares_pictures=True)


@pytest.fixture
def client(stub: StubSearcher) -> Iterator[TestClient]:
    with client_of(stub) as client:
        yield client


def send(client: TestClient, content: bytes = b"7", headers: dict[str, str] = JPEG) -> Any:
    return client.post("/api/pictures", content=content, headers=headers)


def test_a_picture_is_asked_with_by_the_name_that_it_got(client):
    answer = send(client)
    assert answer.status_code == 200
    name = answer.json()["picture"]
    found = client.post("/api/search", json={"picture": name, "top_k": 2, "show": "friends"})
    expected = [moment.as_json() for moment in moments_for("picture 7", 2, show="friends")]
    assert found.json() == {"query_image": name, "moments": expected}


def test_a_list_of_its_moments_can_be_saved(client):
    name = send(client).json()["picture"]
    answer = client.get(list_url(None, name, 2, None, None))
    rows = list(csv.DictReader(answer.content.decode("utf-8-sig").splitlines()))
    assert [row["sentence"] for row in rows] == [f"picture {name}"] * 2
    assert [row["video"] for row in rows] == ["picture 7 in None"] * 2


def test_the_same_picture_is_looked_at_once(client, stub):
    assert send(client).json() == send(client).json()
    assert send(client, b"8").json() != send(client).json()
    assert stub.n_encoded == 2


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"no picture", JPEG, 422, "the picture: is none that can be read"),
        (b"", JPEG, 422, "the picture: is none that can be read"),
        (b"7", {"Content-Type": "application/json"}, 415, "Content-Type: must be that of a picture"),
        (b"7", {}, 415, "Content-Type: must be that of a picture"),
        (b"7" * 2000, JPEG, 413, "more than 1000 bytes"),
        (b"7", {**JPEG, "Origin": "http://evil.example"}, 403, "Origin"),
        (b"7", {**JPEG, "Host": "evil.example"}, 400, "Host"),
    ],
)
def test_what_cannot_be_asked_with_is_refused(stub, content, headers, status, said):
    with client_of(stub, replace(UNLIMITED, max_picture=1000)) as client:
        answer = send(client, content, headers)
        assert answer.status_code == status
        assert said in answer.json()["error"]
        assert client.post("/api/search", content=b"7" * 2000, headers=headers).status_code != 413  # has its own limit


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "sentence: field required, or picture in its place"),
        ({"sentence": "a", "picture": "b"}, "not both"),
        ({"picture": "0" * 32}, "picture: none of this name is remembered: send it to /api/pictures again"),
        ({"picture": 7}, "picture: "),
        ({"picture": "x" * 501}, "picture: "),
    ],
)
def test_a_question_is_a_sentence_or_a_picture_that_is_known(client, question, said):
    answer = client.post("/api/search", json=question)
    assert (answer.status_code, said in answer.json()["error"]) == (422, True)


def test_a_model_that_compares_none_refuses_pictures_and_the_page_has_no_place_for_them(client):
    with client_of(StubSearcher()) as other:
        assert "this model compares no pictures" in send(other).json()["error"]
        assert "ask-picture" not in other.get("/config").text
    assert "ask-picture" in client.get("/config").text


def test_a_token_and_a_rate_are_asked_for(stub):
    with client_of(stub, token="a token of some length") as client:
        assert send(client).status_code == 401
    with client_of(stub, replace(UNLIMITED, rate=0.001, burst=1.0)) as client:
        assert [send(client).status_code for _ in range(2)] == [200, 429]


def test_so_many_are_received_at_a_time_of_all_and_of_one(stub):
    pictures = AskedPictures(stub, replace(UNLIMITED, max_pictures=3, max_pictures_of_client=2))
    with pictures.receiving("a"), pictures.receiving("a"):
        with pytest.raises(Busy), pictures.receiving("a"):
            pass
        with pictures.receiving("b"), pytest.raises(Busy), pictures.receiving("c"):
            pass
        with pictures.receiving("c"):
            pass
    with pictures.receiving("a"), pictures.receiving("a"):
        pass


def test_the_latest_are_remembered(stub):
    pictures = AskedPictures(stub, replace(UNLIMITED, max_pictures_kept=2))
    first, second = pictures.take(b"1"), pictures.take(b"2")
    assert pictures.features(first)[0, 0] == 1.0  # and so the second is the one that was asked with longest ago
    pictures.take(b"3")
    assert pictures.features(first)[0, 0] == 1.0
    with pytest.raises(QuestionError, match="none of this name is remembered"):
        pictures.features(second)


def test_a_picture_that_is_refused_holds_no_place(stub):
    with client_of(stub, replace(UNLIMITED, max_pictures=1)) as client:
        assert [send(client, content).status_code for content in (b"no picture", b"8", b"8")] == [422, 200, 200]


def test_pictures_and_sentences_wait_in_one_queue(stub):
    batched = BatchedSearcher(stub, max_batch=8)
    stub.gate.clear()
    first = batched.submit("first", 1)
    assert stub.entered.wait(30)
    asked = ["a", stub.of_picture(b"1"), "b", stub.of_picture(b"2")]
    answers = [batched.submit(one, 1) for one in asked]
    stub.gate.set()
    expected = ["first", "a", "picture 1", "b", "picture 2"]
    assert [one.result(30) for one in (first, *answers)] == [moments_for(name, 1) for name in expected]
    assert [names for names, *_ in stub.calls] == [["first"], ["a", "b"], ["picture 1", "picture 2"]]
    batched.close()
