"""Feature files on disks that fail, and signals that come while HDF5 works."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.support.runs.disk import largest_file
from utils.basic_utils import PROJECT_ROOT, InputError
from utils.feature_files.feature_file import new_feature_file

# what is written last is written when the file is closed, and the process must end as any other
WRITES = """
import errno, os, sys
from utils.basic_utils import command_line
from utils.feature_files.feature_file import new_feature_file
import numpy as np

pwrite, left = os.pwrite, int(sys.argv[2])

def failing(*args):
    global left
    left -= 1
    if left < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return pwrite(*args)

@command_line
def main():
    os.pwrite = failing
    with new_feature_file(sys.argv[1], made_by="a test") as out:
        for number in range(300):
            out.put(f"video-{number}", np.zeros((4, 8), dtype=np.float32))
    print(int(sys.argv[2]) - left)

main()
"""


def _write(path, n_writes):
    command = [sys.executable, "-c", WRITES, str(path), str(n_writes)]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_a_disk_that_fills_up_at_any_write_is_said_in_one_line(tmp_path):
    path = tmp_path / "a.h5"
    n_writes = int(_write(path, 10**9).stdout)
    for n in (0, 1, 2, 100, n_writes // 2, n_writes - 20, n_writes - 2, n_writes - 1):
        path.write_bytes(b"old")
        ended = _write(path, n)
        assert (n, ended.returncode, ended.stderr.count("\n")) == (n, 2, 1), ended.stderr
        assert "a.h5: cannot be written (No space left on device): make room" in ended.stderr
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a.h5"]


def _write_here(path, disturb=lambda: None):
    with new_feature_file(path) as out:
        disturb()
        for number in range(10):
            out.put(str(number), np.ones((20, 64), dtype=np.float32))


def test_a_limit_that_is_reached_within_an_array_is_an_error(tmp_path):
    with largest_file(30_000), pytest.raises(InputError, match=r"a\.h5: cannot be written \(File too large\)"):
        _write_here(tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_disk_come_out_as_they_are(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        _write_here(tmp_path / "a.h5", lambda: monkeypatch.setattr(os, "pwrite", broken))
    assert os.listdir(tmp_path) == []


def test_an_interrupt_while_hdf5_writes_waits_until_it_is_done(tmp_path, monkeypatch):
    pwrite, before, written = os.pwrite, signal.getsignal(signal.SIGINT), []

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        written.append(pwrite(*args))
        return written[-1]

    def beside_another():
        with new_feature_file(tmp_path / "other.h5"):
            _write_here(tmp_path / "a.h5", lambda: monkeypatch.setattr(os, "pwrite", interrupted))

    with pytest.raises(KeyboardInterrupt):
        beside_another()
    assert written
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_between_two_arrays_comes_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _write_here(tmp_path / "a.h5", lambda: (signal.raise_signal(signal.SIGINT), pytest.fail("it was held back")))
