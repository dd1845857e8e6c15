"""`.pt` and `.pth` files, alone or in folders: tensors are read, and nothing that would run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.utils.feature_forms.converting import FEATURES, assert_holds, convert, refused
from utils.feature_forms.torch_files import TorchFile

TENSORS = {name: torch.from_numpy(rows) for name, rows in FEATURES.items()}


class Calls:
    def __reduce__(self):
        return os.mkdir, ("made_by_pickle",)


def folder_of(tmp_path: Path, suffix: str = ".pt", zipped: bool = True) -> Path:
    (tmp_path / "pt").mkdir()
    for name, tensor in TENSORS.items():
        torch.save(tensor, tmp_path / "pt" / f"{name}{suffix}", _use_new_zipfile_serialization=zipped)
    return tmp_path / "pt"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_file_for_each_video(tmp_path, suffix, zipped):
    assert_holds(convert(folder_of(tmp_path, suffix, zipped)), FEATURES)


@pytest.mark.parametrize("zipped", [True, False])
def test_one_file_of_them_all(tmp_path, zipped):
    torch.save(TENSORS, tmp_path / "all.pt", _use_new_zipfile_serialization=zipped)
    assert_holds(convert(tmp_path / "all.pt"), FEATURES)
    torch.save({7: TENSORS["cc"][None]}, tmp_path / "all.pt")
    assert_holds(convert(tmp_path / "all.pt"), {"7": FEATURES["cc"]})


def test_dicts_of_tensors(tmp_path):
    folder = folder_of(tmp_path)
    mask = torch.tensor([1, 0, 1, 1, 1])
    torch.save({"features": TENSORS["cc"] * 2, "fps": 3}, folder / "v_aa.pt")
    torch.save({"last_hidden_state": TENSORS["cc"], "attention_mask": mask}, folder / "cc.pt")
    expected = {**FEATURES, "v_aa": FEATURES["cc"] * 2, "cc": FEATURES["cc"][[0, 2, 3, 4]]}
    with pytest.raises(SystemExit):  # fps is no tensor, and features stand beside it
        convert(folder, "--dataset", "fps")
    assert_holds(convert(folder), expected)


def test_views_and_parameters_are_what_they_show(tmp_path):
    wide = torch.arange(48.0).reshape(6, 8)
    torch.save({"a": wide.t()[:, :6], "b": torch.nn.Parameter(wide[:2, :6])}, tmp_path / "all.pt")
    assert_holds(convert(tmp_path / "all.pt"), {"a": wide.t()[:, :6].numpy(), "b": wide[:2, :6].numpy()})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "is a list"),
        (torch.ones(2, 6, dtype=torch.int64), "found int64 (2, 6)"),
        (torch.ones(2, 7), "features are 7 wide, expected 6"),
        (torch.full((2, 6), torch.inf), "holds NaN or Inf"),
        (torch.zeros(1).expand(1 << 30, 6), "claims 24,576 MiB, but 0.0 MiB are stored"),
        (torch.zeros(2, 6).to_sparse(), "asks for torch._utils._rebuild_sparse_tensor"),
        ({"a": torch.ones(2, 6), "b": torch.ones(2, 6)}, "has a, b: --dataset NAME"),
        (np.ones((2, 6)), "asks for numpy"),
        (Calls(), "mkdir"),
    ],
)
def test_other_content_is_refused_by_name(tmp_path, monkeypatch, capsys, value, said):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path)
    torch.save(value, folder / "v_zz.pt")
    message = refused(capsys, folder)
    assert "v_zz.pt" in message
    assert said in message
    assert not (tmp_path / "made_by_pickle").exists()


@pytest.mark.parametrize("kept", [0, 20, 400, -30])
def test_half_a_file_is_refused_by_name(tmp_path, capsys, kept):
    folder = folder_of(tmp_path)
    (folder / "cc.pt").write_bytes((folder / "cc.pt").read_bytes()[:kept])
    assert "cc.pt: cannot be read as tensors" in refused(capsys, folder)


def test_a_file_of_something_else_is_refused(tmp_path, capsys):
    torch.save(TENSORS["cc"], tmp_path / "all.pt")
    assert "all.pt: holds a Tensor, expected {name: tensor}" in refused(capsys, tmp_path / "all.pt")
    torch.save({}, tmp_path / "all.pt")
    assert "holds an empty dict" in refused(capsys, tmp_path / "all.pt")
    torch.save({2.5: TENSORS["cc"]}, tmp_path / "all.pt")
    assert "keys that are no names, 2.5" in refused(capsys, tmp_path / "all.pt")


def test_one_name_in_two_types_is_refused(tmp_path, capsys):
    torch.save({7: TENSORS["cc"], "7": TENSORS["cc"]}, tmp_path / "all.pt")
    assert "has 7 as numbers and as text" in refused(capsys, tmp_path / "all.pt")


def test_two_files_of_one_video_are_refused(tmp_path, capsys):
    folder = folder_of(tmp_path)
    torch.save(TENSORS["cc"], folder / "cc.pth")
    assert "has cc.pt and cc.pth" in refused(capsys, folder)


def test_a_type_that_numpy_lacks_keeps_its_bits(tmp_path):
    values = torch.randn(3, 6).to(torch.bfloat16)
    torch.save({"a": values}, tmp_path / "all.pt")
    with TorchFile(tmp_path / "all.pt") as source:
        assert source.form("a") == (3, 6, "bfloat16")
        np.testing.assert_array_equal(source.read("a"), values.float().numpy())
