"""float16 and bfloat16 keep their 2 bytes on the disk, and their values, exactly, wherever they are read."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from method_tvr.dataset.feature_cache import packed_rows
from method_tvr.dataset.feature_store import Preparation
from tests.utils.feature_forms.converting import assert_holds, convert, npy_folder, npz_folder
from utils.feature_files import bfloat16
from utils.feature_files.compare_features import compare
from utils.feature_files.feature_file import FeatureError, FeatureFile, new_feature_file

RNG = np.random.default_rng(5)
VALUES = {name: RNG.normal(size=(rows, 64)).astype(np.float32) for name, rows in (("a", 70), ("b", 1), ("c", 9))}
HALF = {name: rows.astype(np.float16) for name, rows in VALUES.items()}
BFLOAT = {name: torch.from_numpy(rows).to(torch.bfloat16) for name, rows in VALUES.items()}
EXACT = {
    "float16": {name: rows.astype(np.float32) for name, rows in HALF.items()},
    "bfloat16": {name: rows.float().numpy() for name, rows in BFLOAT.items()},
    "float32": VALUES,
}


def h5_of(folder: Path, stored_as: str) -> Path:
    """Converted from npz or torch's files."""
    folder.mkdir()
    if stored_as == "bfloat16":
        torch.save(BFLOAT, folder / "all.pt")
        return convert(folder / "all.pt")
    return convert(npz_folder(folder / "npz", HALF if stored_as == "float16" else VALUES))


@pytest.mark.parametrize("stored_as", EXACT)
def test_types_and_values_are_kept_through_two_conversions(tmp_path, capsys, stored_as):
    first = h5_of(tmp_path / "first", stored_as)
    assert (", from " + stored_as in capsys.readouterr().out) == (stored_as != "float32")
    again = convert(first, name="again.h5")
    for path in (first, again):
        assert_holds(path, EXACT[stored_as])
        with FeatureFile(path) as file, h5py.File(path) as h5:
            assert file.form("a") == (70, 64, stored_as)
            assert h5["a"].id.get_storage_size() == 70 * 64 * (4 if stored_as == "float32" else 2)
            np.testing.assert_array_equal(h5["a"][()], EXACT[stored_as]["a"])  # as h5py reads it by itself
            np.testing.assert_array_equal(file.read("a", 64, range(3, 8)), EXACT[stored_as]["a"][3:8])
            assert file.width() == 64


def test_all_finite_numbers_of_bfloat16_keep_their_bits(tmp_path):
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = bfloat16.from_bits(bits)
    numbers = numbers[np.isfinite(numbers)].reshape(-1, 255)
    with new_feature_file(tmp_path / "a.h5") as out:
        out.put("a", numbers, bfloat16.NAME)
    with FeatureFile(tmp_path / "a.h5") as file, h5py.File(tmp_path / "a.h5") as h5:
        for read in (file.read("a"), h5["a"][()]):
            np.testing.assert_array_equal(read.view(np.uint32), numbers.view(np.uint32))
    assert os.path.getsize(tmp_path / "a.h5") < 2 * numbers.size + 4096


def test_other_numbers_are_not_rounded_unasked(tmp_path):
    with pytest.raises(ValueError, match="bfloat16 cannot hold"), new_feature_file(tmp_path / "a.h5") as out:
        out.put("a", VALUES["a"], bfloat16.NAME)
    assert not (tmp_path / "a.h5").exists()


def test_infinite_ones_are_refused(tmp_path):
    for value in (np.inf, np.nan):
        with new_feature_file(tmp_path / "a.h5") as out:
            out.put("a", bfloat16.from_bits(np.full((2, 3), bfloat16.to_bits(np.float32([value]))[0])), bfloat16.NAME)
        with FeatureFile(tmp_path / "a.h5") as file, pytest.raises(FeatureError, match="holds NaN or Inf"):
            file.read("a")


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"chunks": (8, 16), "shuffle": True}])
def test_compressed_bfloat16_is_read(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("a", data=EXACT["bfloat16"]["a"], dtype=h5py.Datatype(bfloat16.TYPE), **options)
    assert_holds(tmp_path / "a.h5", {"a": EXACT["bfloat16"]["a"]})
    with FeatureFile(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.read("a", rows=range(60, 99)), EXACT["bfloat16"]["a"][60:])


@pytest.mark.parametrize("stored_as", ["float16", "bfloat16"])
@pytest.mark.parametrize("normalize", [False, True])
def test_training_reads_what_it_reads_of_float32(tmp_path, stored_as, normalize):
    halves = h5_of(tmp_path / "halves", stored_as)
    with new_feature_file(tmp_path / "full.h5") as out:
        for name, rows in EXACT[stored_as].items():
            out.put(name, rows)
    preparation = Preparation(max_rows=20, average=True, normalize=normalize)
    with FeatureFile(halves) as one, FeatureFile(tmp_path / "full.h5") as other:
        packed = [packed_rows(file, 64, preparation, "float32") for file in (one, other)]
    for name in VALUES:
        np.testing.assert_array_equal(packed[0].of(name), packed[1].of(name))
    assert compare(halves, tmp_path / "full.h5").largest_difference == 0


def test_each_key_has_its_own_type(tmp_path):
    folder = npy_folder(tmp_path / "npy", {"a": HALF["a"], "b": VALUES["b"], "c": VALUES["c"].astype(np.float64)})
    with FeatureFile(convert(folder)) as file:
        assert {key: file.form(key)[2] for key in VALUES} == {"a": "float16", "b": "float32", "c": "float32"}
