"""Folders of `.npz` archives: the features are found by their name, and no size is believed that is not there."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feature_forms.converting import FEATURES, RNG, assert_holds, convert, npz_folder, refused
from utils.feature_forms.npz_folder import NpzFolder

TOKENS = RNG.normal(size=(4, 6)).astype(np.float32)


def archive(path: Path, **arrays: object) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays)


def rezipped(path: Path, how: int, content: bytes, member: str = "features.npy") -> None:
    with zipfile.ZipFile(path, "w", how) as out:
        out.writestr(member, content)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_features_of_clips(tmp_path, save):
    (tmp_path / "npz").mkdir()
    for name, rows in FEATURES.items():
        save(tmp_path / "npz" / f"{name}.npz", features=rows)
    assert_holds(convert(tmp_path / "npz"), FEATURES)


@pytest.mark.parametrize("lead", [(), (1,)])
def test_tokens_of_sentences_without_what_is_masked_out(tmp_path, lead):
    rows = TOKENS.reshape(*lead, 4, 6)
    about = {"pooler_output": TOKENS[:1], "last_hidden_state": rows}
    archive(tmp_path / "npz" / "qid2.npz", **about, attention_mask=np.array([1, 1, 1, 0]).reshape(*lead, 4))
    archive(tmp_path / "npz" / "qid3.npz", **about)
    archive(tmp_path / "npz" / "qid4.npz", **about, attention_mask=np.array([True, False, True, True]))
    expected = {"qid2": TOKENS[:3], "qid3": TOKENS, "qid4": TOKENS[[0, 2, 3]]}
    assert_holds(convert(tmp_path / "npz", "--kind", "query"), expected)


def test_the_only_array_is_taken_whatever_its_name_and_said_once(tmp_path, capsys):
    assert_holds(convert(npz_folder(tmp_path / "npz", array="feat")), FEATURES)
    assert capsys.readouterr().err.count("array feat is taken") == 1


def test_several_unknown_arrays_are_refused_until_one_is_named(tmp_path, capsys):
    for name, rows in FEATURES.items():
        archive(tmp_path / "npz" / f"{name}.npz", rgb=rows, flow=rows + 1)
    message = refused(capsys, tmp_path / "npz")
    assert "key cc.npz: has rgb, flow" in message
    assert "--dataset NAME" in message
    assert "has no i3d, but rgb, flow" in refused(capsys, tmp_path / "npz", "--dataset", "i3d")
    assert_holds(convert(tmp_path / "npz", "--dataset", "flow"), {name: rows + 1 for name, rows in FEATURES.items()})


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
def test_fortran_order_and_other_floats(tmp_path, dtype):
    archive(tmp_path / "npz" / "a.npz", features=np.asfortranarray(TOKENS.astype(dtype)))
    assert_holds(convert(tmp_path / "npz"), {"a": TOKENS.astype(dtype).astype(np.float32)})


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": np.ones((2, 3), int)}, "found int64 (2, 3)"),
        ({"features": np.full((2, 3), np.nan)}, "holds NaN or Inf"),
        ({"features": np.array({"a": 1}, dtype=object)}, "found object ()"),
        ({"last_hidden_state": TOKENS, "attention_mask": np.ones(3)}, "attention_mask is float64 (3,)"),
        ({"last_hidden_state": TOKENS, "attention_mask": np.zeros(4)}, "attention_mask leaves no token"),
        ({"last_hidden_state": np.ones((2, 4, 6)), "attention_mask": np.ones(4)}, "found float64 (2, 4, 6)"),
        ({}, "holds no array"),
    ],
)
def test_other_arrays_are_refused_by_name(tmp_path, capsys, arrays, said):
    archive(tmp_path / "npz" / "bad.npz", **arrays)
    message = refused(capsys, tmp_path / "npz")
    assert "key bad.npz: " in message
    assert said in message


@pytest.mark.parametrize("kept", [0, 10, 60, -10])
def test_half_an_archive_is_refused_by_name(tmp_path, capsys, kept):
    folder = npz_folder(tmp_path / "npz")
    (folder / "cc.npz").write_bytes((folder / "cc.npz").read_bytes()[:kept])
    assert "key cc.npz: cannot be read" in refused(capsys, folder)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, capsys):
    folder = npz_folder(tmp_path / "npz")
    header = npy(np.ones((1, 6), np.float32)).replace(b"(1, 6)", b"(9999999, 6)")[:128]
    rezipped(folder / "cc.npz", zipfile.ZIP_DEFLATED, header + bytes(1 << 28))
    tracemalloc.start()
    message = refused(capsys, folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "key cc.npz: cannot be read (claims 229 MiB, but 0.2 MiB are stored)" in message
    assert peak < 4 << 20


def test_a_header_without_end_is_not_read_to_it(tmp_path, capsys):
    folder = npz_folder(tmp_path / "npz")
    start = b"\x93NUMPY\x02\x00" + (1 << 28).to_bytes(4, "little")
    rezipped(folder / "cc.npz", zipfile.ZIP_DEFLATED, start + b" " * (1 << 26))
    tracemalloc.start()
    assert "key cc.npz: cannot be read" in refused(capsys, folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_what_numpy_never_wrote_is_refused(tmp_path, capsys):
    folder = npz_folder(tmp_path / "npz")
    rezipped(folder / "cc.npz", zipfile.ZIP_BZIP2, npy(TOKENS))
    assert "is compressed in another way than numpy's" in refused(capsys, folder)
    rezipped(folder / "cc.npz", zipfile.ZIP_STORED, npy(TOKENS).replace(b"(4, 6)", b"(-4,6)"))
    assert "has the shape (-4, 6)" in refused(capsys, folder)
    rezipped(folder / "cc.npz", zipfile.ZIP_STORED, npy(TOKENS)[:-4])
    assert "key cc.npz: cannot be read" in refused(capsys, folder)


def test_a_form_is_known_without_reading_values(tmp_path):
    archive(tmp_path / "npz" / "a.npz", features=np.full((3, 6), np.nan, np.float16))
    with NpzFolder(tmp_path / "npz") as source:
        assert source.form("a", 6) == (3, 6, "float16")
