"""Rows are read from an open file, whatever becomes of the file meanwhile."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from utils.basic_utils import InputError
from utils.storage.array_file import ArrayFile, open_array
from utils.storage.whole_folder import file_digest

REMEDY = "make it again"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", np.arange(40, dtype=np.float32).reshape(20, 2))
    return tmp_path / "rows.npy"


def opened(path: Path) -> ArrayFile:
    array = open_array(path, (20, 2), "float32", REMEDY)
    assert array is not None
    return array


@pytest.mark.parametrize("some", [slice(None), slice(3, 7), slice(5), slice(20, 30), slice(7, 3)])
def test_rows_are_read_as_they_were_saved(saved, some):
    array = opened(saved)
    assert (len(array), array.shape, array.dtype) == (20, (20, 2), np.float32)
    np.testing.assert_array_equal(array[some], np.load(saved)[some])
    assert array[some].flags.writeable


def test_a_place_is_given_by_its_first_indices(saved):
    out = np.zeros(4, np.float32)
    opened(saved).read_into(out, 5, 1)
    assert out.tolist() == [11, 12, 13, 14]


@pytest.mark.parametrize("left", [0, 130, 287])
def test_a_file_that_is_cut_short_while_it_is_open_is_said_where_what_is_read_is_gone(saved, left):
    array = opened(saved)
    os.truncate(saved, left)
    with pytest.raises(InputError, match=r"rows\.npy: has been cut short since it was opened: make it again"):
        array[:]
    if left > 280:
        assert array[:19].shape == (19, 2)


def test_what_was_opened_is_read_on_where_the_name_is_given_to_another_file(saved):
    array, before, digest = opened(saved), np.load(saved), file_digest(saved)
    saved.with_name("other").write_bytes(b"x")
    saved.with_name("other").replace(saved)
    np.testing.assert_array_equal(array[:], before)
    assert array.digest() == digest


def test_files_are_closed_when_nothing_refers_to_them(saved):
    before = len(os.listdir("/dev/fd"))
    arrays = [opened(saved) for _ in range(5)]
    assert open_array(saved, (1,), "float32", REMEDY) is None
    assert len(os.listdir("/dev/fd")) == before + 5
    del arrays
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 20), "float32"), ((20, 2), "float16"), ((-20, 2), "float32"), ((1 << 62, 2), "float32")]
)
def test_an_array_of_another_shape_or_type_is_none(saved, shape, dtype):
    assert open_array(saved, shape, dtype, REMEDY) is None


@pytest.mark.parametrize(
    "text",
    [
        b"(" * 150,  # numpy would interpret the text, and fail in ways of its own
        b"  x\n y",
        b"{[]: 1}",
        b"-" * 9000,
        b"{'descr': '<f4', 'fortran_order': True, 'shape': (20, 2), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (20, 2), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-20, 2), }",
        b"",
    ],
)
def test_a_file_that_begins_otherwise_is_none(saved, text):
    content = saved.read_bytes()
    saved.write_bytes(content[:8] + len(text).to_bytes(2, "little") + text + content[128:])
    assert open_array(saved, (20, 2), "float32", REMEDY) is None


def test_blanks_that_fill_the_text_up_may_be_fewer(saved):
    content = saved.read_bytes()
    text = re.sub(rb" +\n", b"\n", content[10:128])
    saved.write_bytes(content[:8] + len(text).to_bytes(2, "little") + text + content[128:])
    np.testing.assert_array_equal(opened(saved)[:], np.arange(40).reshape(20, 2))


@pytest.mark.parametrize("left", [-1, 128, 60, 5, 0])
def test_a_file_of_another_length_is_none(saved, left):
    saved.write_bytes(saved.read_bytes()[:left])
    assert open_array(saved, (20, 2), "float32", REMEDY) is None


def test_a_pipe_is_not_waited_for_and_a_missing_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_array(tmp_path / "pipe", (1,), "float32", REMEDY)
    with pytest.raises(FileNotFoundError):
        open_array(tmp_path / "nothing", (1,), "float32", REMEDY)
