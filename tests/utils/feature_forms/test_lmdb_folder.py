"""LMDBs as HERO's: values are msgpack, compressed or not; nothing in them is unpickled."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feature_forms.converting import FEATURES, RNG, assert_holds, convert, refused

lmdb = pytest.importorskip("lmdb")
msgpack = pytest.importorskip("msgpack")


def encoded(array: np.ndarray, **other: object) -> dict[bytes, object]:
    """As msgpack-numpy encodes an array."""
    entries = {"nd": True, "type": array.dtype.str, "kind": b"", "shape": array.shape, "data": array.tobytes()}
    return {name.encode(): value for name, value in (entries | other).items()}


def folder_of(tmp_path: Path, values: dict[str, bytes]) -> Path:
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 26) as env, env.begin(write=True) as transaction:
        for name, value in values.items():
            transaction.put(name.encode(), value)
    (tmp_path / "db" / "lock.mdb").unlink()
    return tmp_path / "db"


def plain(array: np.ndarray, use_bin_type: bool = True) -> bytes:
    return msgpack.packb({"features": encoded(array), "n": 3}, use_bin_type=use_bin_type)


def compressed(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, features=array)
    return out.getvalue()


@pytest.mark.parametrize("pack", [plain, compressed])
def test_values_in_either_form(tmp_path, pack):
    values = {name: pack(rows) for name, rows in FEATURES.items()}
    folder = folder_of(tmp_path, {**values, "__keys__": b"[]"})
    assert_holds(convert(folder), FEATURES)
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]  # no lock was taken


def test_large_values_lie_on_pages_of_their_own(tmp_path):
    features = {f"v{number}": RNG.normal(size=(400, 64)).astype(np.float16) for number in range(8)}
    folder = folder_of(tmp_path, {name: plain(rows) for name, rows in features.items()})
    assert_holds(convert(folder), {name: rows.astype(np.float32) for name, rows in features.items()})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "cannot be read"),
        (b"\xc1", "cannot be read"),
        (plain(FEATURES["cc"])[:-7], "cannot be read"),
        (compressed(FEATURES["cc"])[:-30], "cannot be read"),
        (b"\xdd\xff\xff\xff\xff", "cannot be read"),
        (b"\x91" * 5000, "cannot be read"),
        (msgpack.packb(3), "is a int, expected a dict with features"),
        (msgpack.packb({"x": 1}), "holds no array"),
        (msgpack.packb({"features": encoded(FEATURES["cc"], type="|O")}), "array of another type than numbers"),
        (msgpack.packb({"features": encoded(FEATURES["cc"], type="<M8")}), "array of another type than numbers"),
        (msgpack.packb({"features": encoded(FEATURES["cc"], shape=[-5, -6])}), "array without a shape"),
        (msgpack.packb({"features": encoded(FEATURES["cc"], shape=[1 << 40, 6])}), "cannot be read"),
        (msgpack.packb({"features": encoded(FEATURES["cc"], data=7)}), "array without bytes"),
        (msgpack.packb({"a": encoded(FEATURES["cc"]), "b": encoded(FEATURES["cc"])}), "has a, b: --dataset"),
        (plain(FEATURES["cc"][:, :5]), "features are 5 wide, expected 6"),
        (plain(FEATURES["cc"] * np.inf), "holds NaN or Inf"),
    ],
)
def test_other_values_are_refused_by_name(tmp_path, capsys, value, said):
    values = {"cc": plain(FEATURES["cc"]), "v_zz": value}
    message = refused(capsys, folder_of(tmp_path, values))
    assert "key v_zz: " in message
    assert said in message


def test_no_pickle_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pickle, "loads", lambda *args, **kwargs: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    data = pickle.dumps(FEATURES["cc"])
    value = msgpack.packb({"features": encoded(FEATURES["cc"], kind=b"O", type="|O", data=data)})
    assert "key cc: cannot be read" in refused(capsys, folder_of(tmp_path, {"cc": value}))


def test_keys_of_older_msgpack_are_text(tmp_path):
    text = {name.decode(): value for name, value in encoded(FEATURES["cc"]).items()}
    value = msgpack.packb({b"features": text})
    assert_holds(convert(folder_of(tmp_path, {"cc": value})), {"cc": FEATURES["cc"]})


@pytest.mark.parametrize("kept", [0, 100, 5000, -4096])
def test_half_a_file_is_refused(tmp_path, capsys, kept):
    folder = folder_of(tmp_path, {name: plain(np.tile(rows, (300, 1))) for name, rows in FEATURES.items()})
    (folder / "data.mdb").write_bytes((folder / "data.mdb").read_bytes()[:kept])
    assert "data.mdb: " in refused(capsys, folder)


def test_an_empty_one_is_refused(tmp_path, capsys):
    assert "data.mdb: has no entry" in refused(capsys, folder_of(tmp_path, {}))


@pytest.mark.parametrize("package", ["lmdb", "msgpack"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys, package):
    folder = folder_of(tmp_path, {"cc": plain(FEATURES["cc"])})
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(capsys, folder)
    assert f"needs {package}" in message
    assert "pip install -r utils/feature_forms/requirements.txt -c constraints.txt" in message
