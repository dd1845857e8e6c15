"""A folder is there whole or not at all, one process at a time is in it, and what it holds is checked, not trusted."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from utils.basic_utils import InputError
from utils.storage.whole_folder import (
    file_digest,
    lock,
    lock_file,
    part_folder,
    put_in_place,
    read_sealed,
    remove_left_over,
    write_sealed,
)

BUSY = InputError("somebody is in")


# ---------------------------------------------------------------------------- locks


@contextmanager
def another_process_in(folder: Path, seconds: float) -> Iterator[None]:
    script = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
        f"print('in', flush=True); time.sleep({seconds})"
    )
    command = [sys.executable, "-c", script, str(folder / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        try:
            yield
        finally:
            process.kill()


def test_another_process_is_refused_until_the_lock_is_closed(tmp_path):
    with lock_file(tmp_path) as one:
        assert lock(one, tmp_path, BUSY)
        with lock_file(tmp_path) as other, pytest.raises(InputError, match="somebody is in"):
            lock(other, tmp_path, BUSY)
    with lock_file(tmp_path) as other:
        assert lock(other, tmp_path, BUSY)


def test_patience_outlasts_a_process_that_is_about_to_end(tmp_path):
    with another_process_in(tmp_path, 0.4), lock_file(tmp_path) as handle:
        assert lock(handle, tmp_path, BUSY, patience_s=60)


def test_a_note_is_said_before_waiting(tmp_path, capsys):
    with another_process_in(tmp_path, 0.4), lock_file(tmp_path) as handle:
        assert lock(handle, tmp_path, "waiting for somebody")
    assert capsys.readouterr().err == "note: waiting for somebody\n"


@pytest.mark.parametrize("no_locks", [None, "let nobody in"])
def test_without_locks_the_user_is_told_what_to_see_to(tmp_path, monkeypatch, capsys, no_locks):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_file(tmp_path) as handle:
        assert not lock(handle, tmp_path, BUSY, no_locks)
    said = f"note: {tmp_path}: cannot be locked (no locks here): let nobody in\n" if no_locks else ""
    assert capsys.readouterr().err == said


def a_link(path: Path) -> None:
    path.symlink_to(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("make", [a_link, os.mkfifo, Path.mkdir])
def test_a_lock_that_is_no_file_is_refused_not_followed_and_not_waited_for(tmp_path, make: Callable[[Path], object]):
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / ".lock")
    with pytest.raises(OSError, match=r"\.lock"), lock_file(folder):
        pass
    assert not (tmp_path / "elsewhere").exists()


# ---------------------------------------------------------------------------- folders


def build(folder: Path, content: str, gives_way: Callable[[], bool] | None = None) -> None:
    with part_folder(folder.parent, ".part-") as part:
        (part / "file").write_text(content)
        put_in_place(part, folder, gives_way)


def test_a_folder_gets_its_name_when_it_is_whole_and_ordinary_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        build(tmp_path / "a", "one")
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "file").read_text() == "one"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    def stop_half_way() -> None:
        with part_folder(tmp_path, ".part-") as part:
            (part / "file").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        stop_half_way()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("gives_way", "left"), [(None, "one"), (lambda: False, "one"), (lambda: True, "two")])
def test_what_is_there_stays_unless_it_gives_way(tmp_path, gives_way, left):
    build(tmp_path / "a", "one")
    if gives_way is None:
        with pytest.raises(OSError, match="not empty"):
            build(tmp_path / "a", "two")
    else:
        build(tmp_path / "a", "two", gives_way)
    assert (tmp_path / "a" / "file").read_text() == left
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("make", [Path.touch, a_link])
def test_what_is_no_folder_never_gives_way(tmp_path, make):
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "here" / "a"
    place.parent.mkdir()
    make(place)
    with pytest.raises(OSError, match="directory"):
        build(place, "two", lambda: True)
    assert os.listdir(place.parent) == ["a"]


def test_what_killed_runs_left_goes_and_what_only_looks_like_it_stays(tmp_path):
    (tmp_path / ".part-killed").mkdir()
    (tmp_path / ".part-killed" / "file").touch()
    (tmp_path / ".part-file").touch()
    os.mkfifo(tmp_path / ".part-pipe")
    (tmp_path / ".part-link").symlink_to(tmp_path.parent)
    remove_left_over(tmp_path, ".part-")
    assert sorted(os.listdir(tmp_path)) == [".part-file", ".part-link", ".part-pipe"]
    assert tmp_path.parent.exists()


# ---------------------------------------------------------------------------- seals and arrays


def test_sealed_content_comes_back_and_a_change_is_noticed(tmp_path):
    path = tmp_path / "index.json"
    write_sealed(path, {"n": np.arange(3), "name": "a"})
    assert read_sealed(path, "mend it") == {"n": [0, 1, 2], "name": "a"}
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    with pytest.raises(InputError, match=r"index\.json: is damaged: mend it"):
        read_sealed(path, "mend it")


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"content": [], "sha256": ""}', '{"content": {}, "sha256": null}'])
def test_what_is_not_sealed_is_damaged(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="is damaged: mend it"):
        read_sealed(tmp_path / "a.json", "mend it")


def test_the_digest_of_a_file_is_that_of_all_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    command = ["sha256sum", str(tmp_path / "a")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert file_digest(tmp_path / "a") == said.split()[0]
