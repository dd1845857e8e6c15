"""Visitors save clips of the videos that are searched, and of nothing else, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.web_stubs import REASON, VIDEOS, StubSearcher

pytest.importorskip("fastapi_offline", reason=REASON)

from fastapi.testclient import TestClient

from method_tvr.ask.moments import Moment
from method_tvr.web.media import MediaFiles
from method_tvr.web.page.moment_view import MomentView, ShownMoment
from method_tvr.web.saving import cuts
from method_tvr.web.saving.cuts import clip_url
from tests.support.sounding_videos import tone_in, write_sounding_video
from tests.support.video_files import number_of
from tests.support.web_service import UNLIMITED, client_of, media_folder
from utils.video_feature.frames import open_video

NAME, OTHER, THIRD = (video.vid_name for video in VIDEOS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_folder(tmp_path_factory.mktemp("media"), write_sounding_video)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(StubSearcher(), media=folder) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "suffix", "kind"), [(NAME, ".mp4", "video/mp4"), (OTHER, ".ts", "video/mp2t")], ids=["mp4", "ts"]
)
def test_a_clip_is_sent_as_a_file_that_is_saved(client, folder, tmp_path, monkeypatch, name, suffix, kind):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    answer = client.get(f"/api/clips/{name}?start=0.52&end=2.6")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}_0.52-2.60{suffix}"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert list(tmp_path.iterdir()) == []
    saved = tmp_path / f"saved{suffix}"
    saved.write_bytes(answer.content)
    (source,) = folder.glob(f"{name}.*")
    first, there = (next(open_video(path).frames([at]))[1] for path, at in ((saved, 0.0), (source, 0.52)))
    assert number_of(first) == number_of(there)
    assert tone_in(saved)[1] == pytest.approx(tone_in(source)[1] - 0.52, abs=0.03)


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (f"{NAME}?start=1", 422, "end"),
        (f"{NAME}?start=2&end=1", 422, "end: must be after start, by 300 s at most"),
        (f"{NAME}?start=0&end=301", 422, "end: must be after start, by 300 s at most"),
        (f"{NAME}?start=-1&end=1", 422, "start"),
        (f"{NAME}?start=nan&end=1", 422, "start"),
        (f"{NAME}?start=0&end=inf", 422, "end"),
        (f"{NAME}?start=9&end=10", 422, "cannot be cut out of its file: the server's log says why"),
        (f"{THIRD}?start=0&end=1", 422, "cannot be cut out of its file: the server's log says why"),
        ("of nobody?start=0&end=1", 404, "no file of this video"),
        ("..%2fof nobody?start=0&end=1", 404, "no file of this video"),
        (f"{NAME}%00?start=0&end=1", 404, "no file of this video"),
    ],
)
def test_what_is_not_cut_is_refused_and_tells_nothing_of_the_server(client, folder, asked, status, said):
    answer = client.get(f"/api/clips/{asked}")
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert said in answer.json()["error"]
    assert str(folder) not in answer.text


@pytest.mark.parametrize("limits", [{"clip_timeout": 0.0}, {"max_clip_bytes": 1000}])
def test_a_clip_that_takes_too_much_is_given_up(folder, limits):
    with client_of(StubSearcher(), replace(UNLIMITED, **limits), media=folder) as client:
        answer = client.get(f"/api/clips/{NAME}?start=0.52&end=2.6")
    assert (answer.status_code, answer.json()["error"][:25]) == (422, "this clip takes too long,")


def test_so_many_are_cut_at_a_time(folder):
    with client_of(StubSearcher(), replace(UNLIMITED, max_cuts=1), media=folder) as client:
        statuses = []

        def ask_meanwhile(*_: object) -> None:
            statuses.append(client.get(f"/api/clips/{NAME}?start=0&end=1").status_code)
            raise cuts.InputError("never mind")

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cuts, "cut_clip", ask_meanwhile)
            assert client.get(f"/api/clips/{NAME}?start=0&end=1").status_code == 422
        assert statuses == [503]
        assert client.get(f"/api/clips/{NAME}?start=0&end=1").status_code == 200


def test_clips_are_guarded_as_all_of_the_api(folder):
    path = f"/api/clips/{NAME}?start=0&end=1"
    with client_of(StubSearcher(), media=folder, token="a token of some length") as client:
        assert client.get(path).status_code == 401
    with client_of(StubSearcher(), replace(UNLIMITED, rate=0.001, burst=1.0), media=folder) as client:
        assert [client.get(path).status_code for _ in range(2)] == [200, 429]
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 400


def test_the_page_links_to_the_clip_of_a_moment_that_has_a_file(folder, monkeypatch):
    media = MediaFiles.in_folder(folder, [NAME, OTHER])
    for name in (NAME, OTHER):
        html = MomentView({}, media).details(ShownMoment("1", Moment(name, 1.5, 3.0, 2.0), 60.0), play=False)
        assert f'href="/api/clips/{name}?start=1.500&amp;end=3.000" download' in html
    assert clip_url(media, Moment("a/b c", 1.0, 2.0)) is None
    monkeypatch.setattr(cuts, "av", None)
    html = MomentView({}, media).details(ShownMoment("1", Moment(NAME, 1.5, 3.0, 2.0), 60.0), play=False)
    assert "/api/clips" not in html
