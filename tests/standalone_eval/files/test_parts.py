"""What killed writers leave is removed, and nothing else."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from standalone_eval.files import parts
from standalone_eval.files.command import BadInput
from standalone_eval.files.parts import part_folder
from standalone_eval.files.writing import whole_file as standalone_whole_file
from tests.support.shell import PROJECT_ROOT
from utils.basic_utils import InputError, whole_file

KILLED = """
import os, signal, sys
from pathlib import Path
from standalone_eval.files.writing import whole_file as standalone
from standalone_eval.files.parts import part_folder
from utils.basic_utils import whole_file
target = Path(sys.argv[2])
with part_folder(target.parent, f".{target.name}.") if sys.argv[1] == "folder" else eval(sys.argv[1])(target) as part:
    (part / "file" if part.is_dir() else part).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _killed(kind, path):
    """Start to write, and be killed."""
    ended = subprocess.run([sys.executable, "-c", KILLED, kind, str(path)], cwd=PROJECT_ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("kind", "writer"), [("whole_file", whole_file), ("standalone", standalone_whole_file)])
def test_the_next_writer_removes_what_killed_ones_left(tmp_path, kind, writer):
    path = tmp_path / "a [1].json"
    for _ in range(2):
        _killed(kind, path)
    assert os.listdir(tmp_path)
    with writer(path) as part:
        part.write_text("whole")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("writer", "error"), [(whole_file, InputError), (standalone_whole_file, BadInput)])
def test_a_disk_that_fills_up_is_named_with_the_file_and_leaves_nothing(tmp_path, writer, error):
    path = tmp_path / "a.json"
    with pytest.raises(error, match=r"a\.json: cannot be written \(No space left on device\): make room"), writer(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    _killed("folder", tmp_path / "model")
    assert len(os.listdir(tmp_path)) == 1
    with part_folder(tmp_path, ".model."):
        pass
    assert os.listdir(tmp_path) == []


def test_what_is_being_written_or_belongs_to_another_file_stays(tmp_path):
    for name in (".a.json.abcdefgh.part", ".a.json.backup", ".a.json.part", ".other.json.abcdefgh.part"):
        (tmp_path / name).write_text("theirs")
    os.mkfifo(tmp_path / ".a.json.pipepipe.part.x")
    with whole_file(tmp_path / "a.json") as first:
        first.write_text("first")
        with whole_file(tmp_path / "a.json") as second:
            second.write_text("second")
        assert first.exists()
    assert (tmp_path / "a.json").read_text() == "first"
    kept = {".a.json.backup", ".a.json.part", ".other.json.abcdefgh.part", ".a.json.pipepipe.part.x", "a.json"}
    assert set(os.listdir(tmp_path)) == kept


def test_where_there_are_no_locks_nothing_is_taken_for_abandoned(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no locks here")

    (tmp_path / ".a.json.abcdefgh.part").write_text("perhaps being written")
    monkeypatch.setattr(fcntl, "flock", refused)
    with whole_file(tmp_path / "a.json") as part:
        part.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [".a.json.abcdefgh.part", "a.json"]


def test_a_part_that_is_taken_before_it_is_held_is_made_anew(tmp_path, monkeypatch):
    flock, asked = fcntl.flock, []

    def lost_once(handle, how):
        asked.append(how)
        if len(asked) == 1:  # another process has just found it without a lock
            for path in tmp_path.iterdir():
                path.unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", lost_once)
    with whole_file(tmp_path / "a.json") as part:
        part.write_text("whole")
    assert (tmp_path / "a.json").read_text() == "whole"
    assert len(asked) == 2


def test_without_locks_nothing_is_removed_and_files_are_whole_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "fcntl", None)
    (tmp_path / ".x.abcdefgh.part").write_text("left over")
    with parts.part_file(tmp_path, ".x.") as part:
        part.write_text("whole")
        part.rename(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.abcdefgh.part", "x"]
