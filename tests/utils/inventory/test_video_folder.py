"""A folder of videos of somebody's: all that lies in it is taken or told of, and one odd thing stops nothing else."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.basic_utils import InputError
from utils.inventory import video_folder
from utils.inventory.video_folder import find_videos, take_inventory
from utils.video_feature.pipeline import videos_of


def folder_of(root: Path, *places: str) -> Path:
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()
    return root


def taken(root: Path) -> dict[str, str]:
    return {name: str(path.relative_to(root)) for name, path in take_inventory(root).taken.items()}


def test_videos_of_a_folder_and_those_below_go_by_their_names(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.mp4", "a.MKV", "trip/walk.mp4", "trip/far/swim.mov", "c.d/frame_0.png", "c.d/frame_1.png")
    assert taken(tmp_path) == {
        "a": "a.MKV", "b": "b.mp4", "walk": "trip/walk.mp4", "swim": "trip/far/swim.mov", "c.d": "c.d"
    }  # fmt: skip


def test_all_that_is_not_taken_is_told_of_once_and_recorded(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.mp4", "notes.txt", "a.mts", ".DS_Store", "._b.mp4", ".old/x.mp4", "b.srt", "me.jpg")
    (tmp_path / "round").symlink_to(".")
    found = take_inventory(tmp_path)
    assert found.notes() == {
        video_folder.OTHER_SUFFIX: ["a.mts", "notes.txt"],
        video_folder.HIDDEN: [".old/"],
        video_folder.SUBTITLES: ["b.srt"],
        video_folder.PHOTOS: ["me.jpg"],
        video_folder.LINKED: ["round/"],
    }
    assert found.record()["passed_over"][video_folder.OF_SYSTEM] == [".DS_Store", "._b.mp4"]
    assert "1 videos; 6 other files" in found.summary()
    json.dumps(found.record())


def test_nothing_is_said_where_all_are_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(find_videos(folder_of(tmp_path, "a.mp4", "b.mp4"))) == ["a", "b"]
    assert capsys.readouterr().err == ""
    assert take_inventory(tmp_path).summary().endswith(": 2 videos")


def test_files_that_are_read_or_written_otherwise_are_no_news(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.mp4", "a.srt", "subs/a.vtt", "q.jsonl", "corpus/x.h5", "corpus/x.mp4")
    made, read = [tmp_path / "corpus"], [tmp_path, tmp_path / "subs", tmp_path / "q.jsonl"]
    assert not take_inventory(tmp_path, made, read).passed_over
    assert len(take_inventory(tmp_path).passed_over) == 2


def test_what_a_command_writes_beside_the_videos_is_no_news(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of(tmp_path, "a.mp4", "f.h5", "f.h5.partial/items", "d.json")
    args = argparse.Namespace(videos=str(tmp_path), out=str(tmp_path / "f.h5"), durations=str(tmp_path / "d.json"))
    assert list(videos_of(args)) == ["a"]
    assert capsys.readouterr().err == ""


def test_photos_beside_videos_hide_none(tmp_path: Path) -> None:
    root = folder_of(
        tmp_path, "x.mp4", *(f"DCIM/IMG_{n}.jpg" for n in range(3)), "DCIM/far/MVI_1.mp4", "p/a.jpg", "p/b.jpg"
    )
    assert sorted(taken(root)) == ["MVI_1", "x"]
    assert len(take_inventory(root).notes()[video_folder.PHOTOS]) == 5


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["00001", "00002"], True),
        (["img_9", "IMG_10", "img_11"], True),
        (["one_1"], True),
        (["cover"], False),
        (["a", "b"], False),
        (["a_1", "b_1"], False),
        (["IMG_20240101_120000", "IMG_20240102_130000"], False),
        (["1", "a1b2"], False),
    ],
)
def test_frames_are_called_the_same_but_for_one_number(tmp_path: Path, names: list[str], frames: bool) -> None:
    root = folder_of(tmp_path, "x.mp4", *(f"p/{name}.png" for name in names), "p/times.txt", "p/flow/1.png")
    assert ("p" in taken(root)) == frames
    if frames:
        assert take_inventory(root).notes()[video_folder.BESIDE_FRAMES] == ["p/flow/", "p/times.txt"]


def test_a_linked_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "v/x.mp4", "frames/1.png", "frames/2.png") / "v"
    (root / "y").symlink_to("../frames")
    assert sorted(taken(root)) == ["x", "y"]


def test_of_equal_names_the_one_higher_up_is_taken_and_else_none_but_all_others(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "a.mp4", "old/a.mp4", "1/b.mp4", "2/b.mp4", "c.mp4", "c.webm", "d.mp4")
    found = take_inventory(root)
    assert taken(root) == {"a": "a.mp4", "d": "d.mp4"}
    assert found.notes() == {video_folder.HIGHER_UP: ["old/a.mp4"]}
    assert "1/b.mp4 and 2/b.mp4 would have one name: rename one" in found.failed["b"]
    assert "c.mp4 and c.webm would have one name" in found.failed["c"]


@pytest.mark.skipif(sys.platform == "darwin", reason="names are text there")
@pytest.mark.parametrize(
    "bad", [b"caf\xe9", b"a\nb", b"\x1b[2J", "x\u202ey".encode(), b" ", b"\x85".decode("latin-1").encode()]
)
def test_a_name_that_no_feature_file_can_hold_is_told_and_stops_no_other(tmp_path: Path, bad: bytes) -> None:
    root = folder_of(tmp_path, "good.mp4", os.fsdecode(bad) + ".mp4")
    found = take_inventory(root)
    assert list(found.taken) == ["good"]
    ((name, reason),) = found.failed.items()
    assert "rename it" in reason
    assert f"{name}{reason}".isprintable()
    json.dumps(found.record()).encode()


@pytest.mark.parametrize(
    "name", ["3.04\u202fPM", "v\u00a013", "東京\u3000旅行", "\U0001f468\u200d\U0001f467", "co\u00adop"]
)
def test_names_as_other_systems_make_them_are_taken(tmp_path: Path, name: str) -> None:
    assert list(taken(folder_of(tmp_path, f"{name}.mp4"))) == [name]


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    folder_of(tmp_path, "a.mp4", "lost+found/1.png")
    iterdir = Path.iterdir

    def refused(folder: Path) -> Iterator[Path]:
        if folder.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert list(find_videos(tmp_path)) == ["a"]
    assert f"{video_folder.CLOSED}: lost+found/" in capsys.readouterr().err


def test_folders_without_videos_are_named_with_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no videos"):
        take_inventory(tmp_path)
    with pytest.raises(InputError, match=r"not looked at: a\.mts"):
        take_inventory(folder_of(tmp_path, "a.mts"))
    with pytest.raises(InputError, match="would have one name"):
        take_inventory(folder_of(tmp_path, "a.mp4", "a.mov"))
    with pytest.raises(InputError, match="cannot be read"):
        take_inventory(tmp_path / "nothing")
