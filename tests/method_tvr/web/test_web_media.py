"""Files of videos are found by name, served in parts, and nothing else ever is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.web_stubs import REASON, VIDEOS, StubSearcher
from utils.basic_utils import InputError

pytest.importorskip("fastapi_offline", reason=REASON)

from fastapi.testclient import TestClient

from method_tvr.web.media import MediaFiles
from tests.support.video_files import write_video
from tests.support.web_service import client_of

NAME, OTHER, THIRD = (video.vid_name for video in VIDEOS)
CONTENT = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two videos, one in a subfolder, among others, and a secret beside the folder."""
    root = tmp_path_factory.mktemp("media")
    (root / "secret.mp4").write_bytes(b"secret")
    videos = root / "videos"
    (videos / "friends").mkdir(parents=True)
    (videos / "friends" / f"{NAME}.mp4").write_bytes(CONTENT)
    (videos / f"{THIRD}.WebM").write_bytes(CONTENT[:10])
    (videos / "of nobody.mp4").write_bytes(b"not searched")
    (videos / f"{OTHER}.txt").write_bytes(b"no video")
    return videos


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(StubSearcher(), media=folder) as client:
        yield client


def test_files_are_found_wherever_they_lie(folder):
    files = MediaFiles.in_folder(folder, [NAME, OTHER, THIRD])
    assert len(files) == 2
    assert [name in files for name in (NAME, OTHER, THIRD)] == [True, False, True]


def test_of_several_files_the_one_that_most_browsers_play_is_taken(tmp_path):
    for suffix in (".mov", ".mkv", ".webm"):
        (tmp_path / f"{NAME}{suffix}").write_bytes(suffix.encode())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{NAME}.webm").write_bytes(b"first by path")
    with client_of(StubSearcher(), media=tmp_path) as client:
        answer = client.get(f"/media/{NAME}")
    assert (answer.content, answer.headers["content-type"]) == (b"first by path", "video/webm")


def test_files_of_one_name_in_several_folders_are_said(tmp_path, folder, capsys):
    for place in ("1", "2"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{NAME}.mp4").write_bytes(CONTENT)
    MediaFiles.in_folder(tmp_path, [NAME])
    assert f"one of which is taken: {NAME}" in capsys.readouterr().err
    MediaFiles.in_folder(folder, [NAME, THIRD])
    assert "several folders" not in capsys.readouterr().err


def test_a_name_may_be_spelt_as_another_system_does(tmp_path):
    for name in ("Cafe\u0301", "3.04\u202fPM", "b", "B"):
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    files = MediaFiles.in_folder(tmp_path, ["caf\u00e9", "3.04 PM", "b"])
    assert {name: path.read_bytes().decode() for name, path in files.items()} == {
        "caf\u00e9": "Cafe\u0301", "3.04 PM": "3.04\u202fPM", "b": "b"
    }  # fmt: skip


def test_a_video_may_be_named_with_a_suffix(tmp_path):
    (tmp_path / "12@N02_ab.mov").write_bytes(b"of didemo")
    (tmp_path / "12@N02_cd.mov.mp4").write_bytes(b"converted")
    files = MediaFiles.in_folder(tmp_path, ["12@N02_ab.mov", "12@N02_cd.mov"])
    assert len(files) == 2


def test_a_whole_file(client):
    answer = client.get(f"/media/{NAME}")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_type_is_that_of_the_file(client):
    assert client.get(f"/media/{THIRD}").headers["content-type"] == "video/webm"


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=1000-", 1000, len(CONTENT)),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
        (f"bytes=5-{10**30}", 5, len(CONTENT)),
    ],
)
def test_a_part_of_a_file(client, asked, first, end):
    answer = client.get(f"/media/{NAME}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[first:end])
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(CONTENT)}"


def test_a_part_that_is_not_there_is_refused_in_json(client):
    answer = client.get(f"/media/{NAME}", headers={"Range": f"bytes={len(CONTENT)}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"].endswith(f"*/{len(CONTENT)}")
    assert "Range" in answer.json()["error"]
    assert client.get(f"/media/{NAME}", headers={"Range": "bytes=9-1"}).status_code == 400
    assert "error" in client.get(f"/media/{NAME}", headers={"Range": "miles=9"}).json()


def test_the_head_of_a_file(client):
    answer = client.head(f"/media/{NAME}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    "name",
    [
        OTHER,
        "of nobody",
        "of nobody.mp4",
        f"friends/{NAME}",
        f"{NAME}.mp4",
        "..%2fsecret",
        "%2e%2e/secret.mp4",
        "..%5csecret",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        f"{NAME}%00",
        f"{NAME}%00.mp4",
        f"{NAME}.mp4%0d%0aSet-Cookie: a=b",
        "%ff%fe",
        "",
        ".",
    ],
)
def test_nothing_but_the_videos_files_is_served(client, name):
    answer = client.get(f"/media/{name}")
    assert answer.status_code in (404, 405)
    assert "secret" not in answer.text
    assert set(answer.json()) == {"error"}


def test_links_do_not_lead_out_of_the_folder(folder, tmp_path):
    (tmp_path / "inside.mp4").write_bytes(b"inside")
    (tmp_path / f"{NAME}.mp4").symlink_to(folder.parent / "secret.mp4")
    (tmp_path / f"{THIRD}.mp4").symlink_to(tmp_path / "inside.mp4")
    (tmp_path / "elsewhere").symlink_to(folder.parent)
    (tmp_path / f"{OTHER}.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / f"{OTHER}.webm").symlink_to(f"{OTHER}.webm")
    with client_of(StubSearcher(), media=tmp_path) as client:
        assert client.get(f"/media/{NAME}").status_code == 404
        assert client.get(f"/media/{OTHER}").status_code == 404
        assert client.get(f"/media/{THIRD}").content == b"inside"


def test_a_file_that_went_or_became_a_link_later_is_not_served(folder, tmp_path):
    for name in (NAME, THIRD):
        (tmp_path / f"{name}.mp4").write_bytes(b"at first")
    with client_of(StubSearcher(), media=tmp_path) as client:
        (tmp_path / f"{NAME}.mp4").unlink()
        (tmp_path / f"{THIRD}.mp4").unlink()
        (tmp_path / f"{THIRD}.mp4").symlink_to(folder.parent / "secret.mp4")
        assert client.get(f"/media/{NAME}").status_code == 404
        assert client.get(f"/media/{THIRD}").status_code == 404
        (tmp_path / f"{NAME}.mp4").symlink_to(f"{NAME}.mp4")
        assert client.get(f"/media/{NAME}").status_code == 404


def test_a_folder_that_cannot_be_listed_is_said(tmp_path):
    with pytest.raises(InputError, match=r"gone: cannot be read .*--videos"):
        MediaFiles.in_folder(tmp_path / "gone", [NAME])


@given(name=st.text(max_size=30))
def test_no_name_reaches_what_is_not_listed(folder, name):
    files = MediaFiles.in_folder(folder, [NAME, THIRD])
    assert (files.response(name).status_code == 404) == (name not in (NAME, THIRD))


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_an_mp4_whose_clock_begins_late_is_served_as_one_that_begins_at_0(tmp_path, size):
    write_video(tmp_path / f"{NAME}.mp4", times=[7 + n / 25 for n in range(50)])
    content = (tmp_path / f"{NAME}.mp4").read_bytes()
    with client_of(StubSearcher(), media=tmp_path) as client:
        whole = client.get(f"/media/{NAME}")
        parts = [
            client.get(f"/media/{NAME}", headers={"Range": f"bytes={at}-{at + size - 1}"}).content
            for at in range(content.index(b"elst"), content.index(b"elst") + 20, size)
        ]
    assert whole.headers["clock-start"] == "0.000"
    at = content.index(b"elst")
    assert [n for n, (ours, theirs) in enumerate(zip(whole.content, content, strict=True)) if ours != theirs]
    assert b"".join(parts)[:20] == whole.content[at : at + 20]
    (tmp_path / "served.mp4").write_bytes(whole.content)
    with av.open(str(tmp_path / "served.mp4")) as container:
        assert container.start_time == 0


def test_the_clock_of_another_file_is_told(tmp_path):
    write_video(tmp_path / f"{NAME}.mkv", times=[7 + n / 25 for n in range(50)])
    with client_of(StubSearcher(), media=tmp_path) as client:
        answer = client.get(f"/media/{NAME}")
    assert answer.headers["clock-start"] == "7.000"
    assert answer.content == (tmp_path / f"{NAME}.mkv").read_bytes()
