"""Visitors see small pictures of the videos that are searched, and of nothing else, within limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.web_stubs import REASON, VIDEOS, StubSearcher

pytest.importorskip("fastapi_offline", reason=REASON)

from fastapi.testclient import TestClient

from method_tvr.ask.moments import Moment
from method_tvr.web.media import MediaFiles
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.pictures import thumbnails
from tests.support.video_files import number_of, write_video
from tests.support.web_service import UNLIMITED, client_of, media_folder
from utils.basic_utils import InputError

NAME, OTHER, THIRD = (video.vid_name for video in VIDEOS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_folder(tmp_path_factory.mktemp("media"), write_video)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(StubSearcher(), media=folder) as client:
        yield client


@pytest.mark.parametrize("name", [NAME, OTHER])
def test_a_picture_shows_its_second_and_may_be_kept(client, name):
    answer = client.get(f"/api/thumbnails/{name}?time=2.61")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    picture = np.asarray(Image.open(BytesIO(answer.content)))
    assert (picture.shape, number_of(picture)) == ((96, 128, 3), 65)  # at 2.6 s


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (NAME, 422, "time"),
        (f"{NAME}?time=-1", 422, "time"),
        (f"{NAME}?time=nan", 422, "time"),
        (f"{NAME}?time=inf", 422, "time"),
        (f"{THIRD}?time=0", 422, "no picture can be taken out of the file"),
        ("of nobody?time=0", 404, "no file of this video"),
        ("..%2fof nobody?time=0", 404, "no file of this video"),
        (f"{NAME}%00?time=0", 404, "no file of this video"),
    ],
)
def test_what_has_no_picture_is_refused_and_tells_nothing_of_the_server(client, folder, asked, status, said):
    answer = client.get(f"/api/thumbnails/{asked}")
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert str(folder) not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_a_picture_is_made_once_as_long_as_its_file_stays(folder, tmp_path, monkeypatch):
    video = write_video(tmp_path / f"{NAME}.mp4", 50)
    made = []
    real = thumbnails.frame_at
    monkeypatch.setattr(thumbnails, "frame_at", lambda *asked: made.append(asked[1]) or real(*asked))
    with client_of(StubSearcher(), replace(UNLIMITED, max_thumbnails_kept=2), media=tmp_path) as client:
        for second in (0.5, 1.0, 0.52, 1.5, 0.5, 1.0):  # the last one was dropped in between
            assert client.get(f"/api/thumbnails/{NAME}?time={second}").status_code == 200
        assert made == [0.5, 1.0, 1.5, 1.0]
        write_video(video, 60)
        client.get(f"/api/thumbnails/{NAME}?time=1.0")
        assert made == [0.5, 1.0, 1.5, 1.0, 1.0]


def test_so_many_are_made_at_a_time_and_so_many_wait(folder, monkeypatch):
    gate, entered, most, running = threading.Event(), threading.Semaphore(0), 0, 0

    def slow(*_: object) -> np.ndarray:
        nonlocal most, running
        running += 1
        most = max(most, running)
        entered.release()
        assert gate.wait(30)
        running -= 1
        raise InputError("never mind")

    monkeypatch.setattr(thumbnails, "frame_at", slow)
    limits = replace(UNLIMITED, max_thumbnails=1, max_thumbnail_queue=1)
    with client_of(StubSearcher(), limits, media=folder) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.get, f"/api/thumbnails/{NAME}?time=0")
        assert entered.acquire(timeout=30)
        others = [pool.submit(client.get, f"/api/thumbnails/{NAME}?time={second}") for second in (1, 2)]
        refused = next(as_completed(others, 30))
        assert refused.result().status_code == 503
        gate.set()
        assert first.result(30).status_code == 422
        assert sorted(one.result(30).status_code for one in others) == [422, 503]
    assert most == 1


def test_one_that_takes_too_long_is_given_up(folder):
    with client_of(StubSearcher(), replace(UNLIMITED, thumbnail_timeout=0.0), media=folder) as client:
        answer = client.get(f"/api/thumbnails/{NAME}?time=1")
    assert (answer.status_code, "takes too long" in answer.json()["error"]) == (422, True)


def test_they_are_guarded_and_have_a_rate_of_their_own(folder):
    path = f"/api/thumbnails/{NAME}?time=1"
    with client_of(StubSearcher(), media=folder, token="a token of some length") as client:
        assert client.get(path).status_code == 401
    limits = replace(UNLIMITED, rate=0.001, burst=1.0, thumbnail_rate=2.0)
    with client_of(StubSearcher(), limits, media=folder) as client:
        assert [client.get(path).status_code for _ in range(3)] == [200, 200, 429]
        assert client.get("/api/health").status_code == 200
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 400


def test_cards_have_the_pictures_of_videos_with_files(folder, monkeypatch):
    media = MediaFiles.in_folder(folder, [NAME, OTHER])
    shown = [ShownMoment(str(rank), Moment(name, 1.5, 3.0, 2.0), 60.0) for rank, name in enumerate((NAME, "a/b c"))]
    html = MomentView({}, media).cards(shown)
    assert html.count("<img") == 1
    assert f'src="/api/thumbnails/{NAME}?time=2.25"' in html
    assert 'loading="lazy"' in html
    monkeypatch.setattr(thumbnails, "av", None)
    assert "<img" not in MomentView({}, media).cards(shown)
