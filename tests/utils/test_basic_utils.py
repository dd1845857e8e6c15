"""Errors, whole files, JSON and progress."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.basic_utils import (
    PROJECT_ROOT,
    InputError,
    Meter,
    command_line,
    first_few,
    named_when_full,
    progress,
    read_json,
    read_jsonl,
    whole_file,
    write_json,
    write_jsonl,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole_file(path) as part:
        part.write_text("half")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["file.txt"]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half of the new o")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys; from utils.basic_utils import whole_file\n"
        "with whole_file(sys.argv[1]) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=PROJECT_ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_the_old_file_can_be_kept(tmp_path):
    for content in ("first", "second", "third"):
        with whole_file(tmp_path / "file.txt", tmp_path / "old.txt") as part:
            part.write_text(content)
    assert (tmp_path / "file.txt").read_text() == "third"
    assert (tmp_path / "old.txt").read_text() == "second"
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "old.txt"]


def test_file_and_folder_are_on_the_disk_before_and_after_the_renaming(tmp_path, monkeypatch):
    path, synced, fsync = tmp_path / "file.txt", [], os.fsync

    def noted(handle: int) -> None:
        synced.append((os.path.isdir(f"/proc/self/fd/{handle}"), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_json({}, path)
    assert synced == [(False, False), (True, True)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_and_leaves_the_old_files(tmp_path, number):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fill() -> None:
        with whole_file(path, tmp_path / "older.txt"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match=r"file\.txt: cannot be written .*: make room"):
        fill()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), named_when_full(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_files_are_as_readable_as_any_other(tmp_path):
    old = os.umask(0o027)
    try:
        write_json({}, tmp_path / "a.json")
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_json_comes_back_as_it_was(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "round_trip.json"
    write_json(data, path)
    assert read_json(path) == data
    assert json.loads(path.read_text(encoding="utf-8")) == data


def test_numpy_values_are_written_as_numbers(tmp_path):
    write_json({"a": np.float32(0.5), "b": np.arange(3), "c": np.int64(7)}, tmp_path / "a.json", indent=True)
    assert read_json(tmp_path / "a.json") == {"a": 0.5, "b": [0, 1, 2], "c": 7}


def test_jsonl_comes_back_line_by_line(tmp_path):
    rows = [{"a": 1}, {"b": "line\nbreak", "c": "Umlaut ä"}]
    write_jsonl(iter(rows), tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8").count("\n") == 2
    assert read_jsonl(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no lines"),
        ("\n\n", "has no lines"),
        ('{"a": 1}\n{"a": ', "line 2: is not valid JSON"),
        ('{"a": 1}\n\n{"a": 2}\n', "line 2: is not valid JSON"),
        ('{"a": 1}\n[1]\n', "line 2: expected an object"),
    ],
)
def test_broken_jsonl_is_refused_by_line(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_jsonl(path)
    assert str(path) in str(caught.value)


def test_missing_and_broken_json_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: cannot be read .*: look elsewhere"):
        read_json(tmp_path / "gone.json", "look elsewhere")
    (tmp_path / "a.json").write_text('{"a"')
    with pytest.raises(InputError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)


@pytest.mark.parametrize("read", [read_json, read_jsonl])
def test_pipes_devices_and_folders_are_refused_and_links_followed(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .it is not a regular file.: look elsewhere"):
            read(path, "look elsewhere")
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to("file")
    assert read(tmp_path / "link") in ({}, [{}])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "loop")


@pytest.mark.parametrize("content", [b"[" * 10**6, b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"1e999", b'"\\ud800"', b"\0"])
def test_hostile_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    for read in (read_json, read_jsonl):
        with pytest.raises(InputError, match=r"a\.json.*: is not valid JSON") as caught:
            read(tmp_path / "a.json")
        assert len(str(caught.value)) < 500


def test_the_first_few_names_say_how_many_there_are():
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list(range(5))) == "0, 1, 2, 3, 4"
    assert first_few(list(range(12)), limit=3) == "0, 1, 2 … (12 in all)"


def test_bad_input_is_one_message_and_exit_code_2(capsys):
    @command_line
    def main() -> None:
        raise InputError("file.txt: is odd: mend it")

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: file.txt: is odd: mend it\n"


def test_an_interrupt_is_no_traceback(capsys):
    @command_line
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_mistake_of_ours_stays_visible():
    @command_line
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_progress_hands_over_every_item_and_is_plain_lines_away_from_a_terminal(capsys):
    assert list(progress(range(4), "counting", every_s=0)) == [0, 1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [f"counting: {i}/4" for i in range(1, 5)]


def test_a_meter_says_how_long_it_will_take_and_nothing_about_what_is_short(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter("a.mp4", 600.0, "s of video")
    for second in range(0, 600, 60):
        now[0] += 4
        meter.reach(second)
    meter.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "a.mp4: 180 of 600 s of video in 16 s, 37 s left",
        "a.mp4: 420 of 600 s of video in 32 s, 14 s left",
    ]


def test_progress_is_silent_about_short_work(capsys):
    assert list(progress(iter("ab"), "counting")) == ["a", "b"]
    assert list(progress(["alone"], "counting", every_s=0)) == ["alone"]
    assert capsys.readouterr().err == ""
