"""Folders of other people: only files are taken from them, and what is passed over is said."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from utils.basic_utils import InputError
from utils.storage.folders import files_below, files_in


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """Two files and a link to one, among all that is no file."""
    folder = tmp_path / "odd"
    (folder / "below").mkdir(parents=True)
    (folder / "folder.x").mkdir()
    for name in ("a.x", "b.y", "below/c.x"):
        (folder / name).write_text(name)
    (folder / "link.x").symlink_to("a.x")
    (folder / "nowhere.x").symlink_to("gone")
    (folder / "itself.x").symlink_to("itself.x")
    (folder / "round").symlink_to(".")
    (folder / "below" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.x")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(folder / "socket.x"))
    return folder


def is_x(name: str) -> bool:
    return name.endswith(".x")


def test_files_and_links_to_files_are_taken_and_all_else_is_said(odd_folder, capsys):
    assert [path.name for path in files_in(odd_folder, is_x, "?")] == ["a.x", "link.x"]
    said = capsys.readouterr().err
    assert [name for name in os.listdir(odd_folder) if f"{odd_folder / name}: is a pipe, or" in said] == [
        name for name in os.listdir(odd_folder) if name in ("nowhere.x", "itself.x", "pipe.x", "socket.x")
    ]
    assert said.count("passed over") == 4


def test_folders_below_are_walked_once_and_not_in_circles(odd_folder, capsys):
    found = files_below(odd_folder, is_x, "?")
    assert [str(path.relative_to(odd_folder)) for path in found] == ["a.x", "below/c.x", "link.x"]
    said = capsys.readouterr().err
    assert f"{odd_folder}/round: is a link to a folder: passed over" in said
    assert f"{odd_folder}/below/up: is a link to a folder: passed over" in said


@pytest.mark.parametrize("files", [files_in, files_below])
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, files):
    (tmp_path / "itself").symlink_to("itself")
    for name in ("gone", "itself"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read \(.*\): give another"):
            files(tmp_path / name, is_x, "give another")
