"""The form of features is what lies there; what is of no form, or of two, is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.utils.feature_forms.converting import FEATURES, npy_folder, npz_folder
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_forms.npy_folder import NpyFolder
from utils.feature_forms.npz_folder import NpzFolder
from utils.feature_forms.open_source import open_source


def test_forms_are_told_apart(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.update(FEATURES)
    found = [open_source(path) for path in (tmp_path / "a.h5", npy_folder(tmp_path / "y"), npz_folder(tmp_path / "z"))]
    assert [type(source) for source in found] == [FeatureFile, NpyFolder, NpzFolder]
    for source in found:
        with source:
            assert sorted(source.feature_keys()) == sorted(FEATURES)
            assert source.form("cc") == (5, 6, "float32")
            np.testing.assert_array_equal(source.read("cc", 6), FEATURES["cc"])


def test_two_forms_in_a_folder_are_refused(tmp_path):
    folder = npy_folder(tmp_path / "mixed")
    np.savez(folder / "a.npz", features=FEATURES["cc"])
    with pytest.raises(InputError, match=r"mixed: holds \.npy and \.npz files, two forms of features"):
        open_source(folder)
    (folder / "a.npz").rename(folder / "feature.bin")
    with pytest.raises(InputError, match=r"mixed: holds \.npy and feature\.bin files"):
        open_source(folder)


def test_what_is_of_no_form_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"has no \.npy file, nor one of \.npz, \.pt, data\.mdb, feature\.bin"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"a\.csv: cannot be opened as h5"):
        open_source(tmp_path / "a.csv")
    with pytest.raises(InputError, match="feature file not found"):
        open_source(tmp_path / "nothing.pt")


def test_one_file_of_a_folder_is_not_the_folder(tmp_path):
    folder = npz_folder(tmp_path / "npz")
    with pytest.raises(InputError, match=r"cc\.npz: is one file of a folder of features: give the folder"):
        open_source(folder / "cc.npz")
    (folder / "data.mdb").write_bytes(b"")
    with pytest.raises(InputError, match="give the folder"):
        open_source(folder / "data.mdb")


def test_a_dataset_is_for_forms_that_have_names(tmp_path):
    with pytest.raises(InputError, match=r"--dataset x: is not for .*, a folder of \.npy files: leave it out"):
        open_source(npy_folder(tmp_path / "y"), "x")
