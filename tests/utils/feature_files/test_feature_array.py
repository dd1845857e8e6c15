"""What is a feature array does not depend on the file that it lies in."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from utils.feature_files.compare_features import compare
from utils.feature_files.feature_array import rows_and_width
from utils.feature_files.feature_file import FeatureError, FeatureFile
from utils.feature_forms.npy_folder import NpyFolder
from utils.video_feature.convert_feature_frm_to_clip import convert

ROWS, WIDTH = 5, 4
VALUES = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
SAME = [(ROWS, WIDTH), (1, ROWS, WIDTH), (ROWS, 1, WIDTH), (ROWS, 1, 1, WIDTH), (ROWS, WIDTH, 1), (ROWS, WIDTH, 1, 1)]


def in_a_folder(folder: Path, array: np.ndarray) -> NpyFolder:
    (folder / "npy").mkdir()
    np.save(folder / "npy" / "a.npy", array)
    return NpyFolder(folder / "npy")


def in_h5(folder: Path, array: np.ndarray) -> FeatureFile:
    with h5py.File(folder / "a.h5", "w") as file:
        file["a"] = array
    return FeatureFile(folder / "a.h5")


READERS = pytest.mark.parametrize("reader", [in_a_folder, in_h5])


@READERS
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", SAME)
def test_axes_of_length_1_are_left_out_and_said_once(tmp_path, capsys, reader, shape, dtype):
    source = reader(tmp_path, VALUES.astype(dtype).reshape(shape))
    assert source.feature_keys() == ["a"]
    for _ in range(2):
        found = source.read("a", WIDTH)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, VALUES.astype(dtype).astype(np.float32))
    said = capsys.readouterr().err
    assert said.count("is read as (5, 4)") == (0 if len(shape) == 2 else 1)


@READERS
@pytest.mark.parametrize(
    "array",
    [
        np.ones((ROWS, 2, WIDTH), np.float32),
        np.ones((1, ROWS, 2, WIDTH), np.float32),
        np.ones((ROWS, 1, 1), np.float32),  # rows of one number, or one row
        np.ones(WIDTH, np.float32),
        np.ones((0, WIDTH), np.float32),
        np.ones((ROWS, 0), np.float32),
        np.ones((0, 1, WIDTH), np.float32),
        np.ones((ROWS, WIDTH), np.int32),
        np.full((ROWS, WIDTH), np.nan),
        np.full((ROWS, 1, WIDTH), np.inf, np.float32),
        np.full((ROWS, WIDTH), 1e300),
        np.ones((ROWS, 1, WIDTH + 1), np.float32),
    ],
    ids=lambda array: f"{array.dtype} {array.shape} {array.max(initial=1):g}",
)
def test_other_arrays_are_refused_by_both_readers(tmp_path, reader, array):
    source = reader(tmp_path, array)
    assert source.feature_keys() == ["a"]  # rather than passed over
    with pytest.raises(FeatureError, match=r"key a"):
        source.read("a", WIDTH)


@pytest.mark.parametrize(
    ("shape", "counted"), [((1, 1, 4), (1, 4)), ((1, 4, 1, 1), (1, 4)), ((1, 1, 1), (1, 1)), ((5, 1), (5, 1))]
)
def test_one_row_has_the_size_of_many(shape, counted):
    assert rows_and_width(shape) == counted


@pytest.mark.parametrize("shape", SAME)
def test_some_rows_are_those_of_the_whole(tmp_path, shape):
    file = in_h5(tmp_path, VALUES.reshape(shape))
    assert file.form("a") == (ROWS, WIDTH, "float32")
    assert file.width() == WIDTH
    for rows in (range(1, 3), range(4, 5), range(3, 9)):
        np.testing.assert_array_equal(file.read("a", WIDTH, rows), VALUES[rows.start : rows.stop])


def test_tools_read_such_files_as_those_without(tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w") as plain, h5py.File(tmp_path / "other.h5", "w") as other:
        plain["a"], other["a"] = VALUES, VALUES[:, None]
    found = compare(tmp_path / "plain.h5", tmp_path / "other.h5")
    assert (found.lengths, found.largest_difference) == ({}, 0)
    for name in ("plain", "other"):
        assert convert([tmp_path / f"{name}.h5"], tmp_path / f"{name}_clips.h5") == 1
    clips = [FeatureFile(tmp_path / f"{name}_clips.h5").read("a") for name in ("plain", "other")]
    np.testing.assert_array_equal(*clips)


def test_what_says_more_of_features_is_none_of_them(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["a-mask"], file["a-lengths"], file["n"] = VALUES, np.ones(ROWS, "f4"), np.ones(2, "i2"), 3
        file["ski-mask"] = VALUES
    assert FeatureFile(tmp_path / "a.h5").feature_keys() == ["a", "ski-mask"]
