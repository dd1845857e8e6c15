"""Features in other projects' forms that were hit on the way or made to do harm: converting them."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.mutations import mutate_bytes
from utils.feature_files.feature_file import FeatureFile
from utils.feature_forms.conversion import choose, convert
from utils.feature_forms.open_source import open_source

HEADERS = (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (4, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 12), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 3L), }",
    b"{'descr': [('x', '<f4', (9999999, 999999))], 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': ('<f4', (2, 2)), 'fortran_order': False, 'shape': (4, 3), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': '<f2', 'fortran_order': False, 'shape': (8, 3), }",
    b"{'descr': '>f4', 'fortran_order': False, 'shape': (4, 1, 3), }",
    b"{'descr': '<f16', 'fortran_order': False, 'shape': (1, 3), }",
    b"{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3), }", b"{[]: 1}", b"{'descr'", b"  x\n y", b"'''",
    b"(" * 150, b"-" * 9000, b"{'descr': " + b"[" * 90 + b"]" * 90 + b"}", b"__import__('os')", b"\xff", b"1" * 5000,
)  # fmt: skip
NAMES = ("ü", "\udce4", " ", "a\nb", "", "-x", "x" * 200)
GOOD = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
ODD_ARRAYS: tuple[Any, ...] = (
    np.full((2, 3), np.nan, np.float32), np.full((2, 3), 3e38), np.full((2, 3), 1e-40, np.float32), np.ones((2, 3)),
    np.ones(3, np.float32), np.ones((2, 4), np.float32), np.ones((1, 4, 3), np.float16), np.ones((0, 3), np.float32),
    np.ones((2, 3), np.int64), np.array({"features": 1}, dtype=object), np.zeros((2, 3), [("x", "f4")]),
    np.array("text"), np.float32(7), np.ones((2, 3), np.complex64), np.ones((2, 3), np.longdouble),
)  # fmt: skip


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _with_header(rng: Random, content: bytes) -> bytes:
    """An npy file whose header is another."""
    text = rng.choice(HEADERS)
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    size = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    if rng.random() < 0.1:
        size = b"\xff" * len(size)
    return b"\x93NUMPY" + version + size + text + content[-48:]


def _write_npy(rng: Random, public: Path) -> None:
    for number in range(3):
        np.save(public / f"v{number}.npy", GOOD[number:] * (number + 1))
    hit, kind = public / f"v{rng.randrange(3)}.npy", rng.randrange(5)
    content = hit.read_bytes()
    if kind == 0:
        hit.write_bytes(_with_header(rng, content))
    elif kind == 1:
        np.save(hit, rng.choice(ODD_ARRAYS), allow_pickle=True)
    elif kind == 2:
        _odd_names(rng, public, hit)
    else:
        hit.write_bytes(mutate_bytes(rng, content))


def _odd_names(rng: Random, public: Path, hit: Path) -> None:
    os.mkfifo(public / f"pipe{hit.suffix}")  # reading it would never end
    (public / f"folder{hit.suffix}").mkdir()
    hit.rename(public / f"{rng.choice(NAMES)}{hit.suffix}")


def _hostile_npz(rng: Random) -> bytes:
    """An archive of arrays of which some are odd, with another header, or far larger than they look."""
    out, names = io.BytesIO(), ["features", "last_hidden_state", "attention_mask", "pooler_output", "x", "../y"]
    how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", how) as archive:
        for name in rng.sample(names, rng.choice((1, 1, 2, 3))):
            content, kind = _npy(GOOD), rng.randrange(7)
            if kind == 0:
                content = _with_header(rng, content)
            elif kind == 1:
                content = _npy(rng.choice(ODD_ARRAYS))
            elif kind == 2:  # small on the disk where it is compressed
                content = _npy(np.zeros((1 << 20, 3), np.float32))
            elif kind == 3:
                content = _npy(np.array(rng.choice(([1, 1, 0, 0], [[0, 0, 0, 0]], [1], [True] * 4, [0.5] * 4, "x"))))
            elif kind == 4:  # a GiB that is claimed, and not there
                content = _npy(GOOD).replace(b"(4, 3)", b"(99999999, 3)")
            archive.writestr(name + rng.choice((".npy", ".npy", ".npy", "")), content)
    data = out.getvalue()
    return mutate_bytes(rng, data) if rng.random() < 0.3 else data


def _write_npz(rng: Random, public: Path) -> None:
    save = rng.choice((np.savez, np.savez_compressed))
    for number in range(3):
        save(public / f"v{number}.npz", features=GOOD[number:])
    hit, kind = public / f"v{rng.randrange(3)}.npz", rng.randrange(5)
    if kind == 0:
        _odd_names(rng, public, hit)
    elif kind == 1:
        hit.write_bytes(mutate_bytes(rng, hit.read_bytes()))
    else:
        hit.write_bytes(_hostile_npz(rng))


def _write_torch(rng: Random, public: Path) -> None:
    import torch

    from tests.fuzz.hostile_checkpoint import ODD_VALUES, Calls, inflated, with_another_pickle

    types = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    content: dict[Any, Any] = {f"v{n}": torch.from_numpy(GOOD[n:].copy()).to(rng.choice(types)) for n in range(3)}
    marker = str(public / "marker")
    odd = (
        *ODD_VALUES, {"features": content["v0"]}, {"x": content["v0"], "y": 1}, torch.zeros(1).expand(1 << 30, 3),
        torch.zeros(2, 3, device="meta"), torch.zeros(6).as_strided((2, 3), (1, 2)), torch.ones(2, 3).t().t(),
        torch.nn.Parameter(torch.ones(2, 3)), torch.full((2, 3), torch.inf), GOOD, Calls(os.mkdir, marker),
        Calls(os.system, f"touch {marker}"), Calls(bytearray, 1 << 40), torch.ones(2, 3).to(torch.float8_e5m2),
    )  # fmt: skip
    if kind := rng.randrange(3):
        content[rng.choice(("v0", "v2", "w", 7, None, 2.5, ""))] = rng.choice(odd)
    alone = rng.random() < 0.4
    for name, value in {"all": content}.items() if alone else content.items():
        buffer = io.BytesIO()
        torch.save(value, buffer, _use_new_zipfile_serialization=rng.random() < 0.7)
        data = buffer.getvalue()
        if kind == 0 and (alone or rng.random() < 0.5):
            change = rng.choice((mutate_bytes, mutate_bytes, with_another_pickle, inflated))
            data = change(rng, data) if change is mutate_bytes or zipfile.is_zipfile(buffer) else data
        (public / f"{name}.pt").write_bytes(data)


def _hostile_msgpack(rng: Random) -> Any:
    """What msgpack-numpy would have made of an array, but for something."""
    entries: dict[Any, Any] = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [4, 3], b"data": GOOD.tobytes()}
    odd = (
        None, 0, -1, 1 << 60, True, "", "O", "|O", "<f4", "<f8", ">f2", "<f99", "f4,f4", b"<f4", b"\xff", [], [4, 3],
        [-4, -3], [1 << 40, 1 << 40], [3, 4, 1], [True, 12], ["4", "3"], [[4], 3], {}, {"x": [1]}, b"x" * 48, "x" * 48,
    )  # fmt: skip
    for _ in range(rng.choice((0, 1, 1, 2))):
        if rng.random() < 0.2:
            entries.pop(rng.choice(list(entries)), None)
        else:
            entries[rng.choice([*entries, "nd", b"complex", b"x"])] = rng.choice(odd)
    outer = {
        rng.choice(("features", "features", "x", b"features", 3)): entries,
        "norm_bb": [[1.5]] * rng.choice((1, 9)),
    }
    return rng.choice((outer, outer, outer, entries, [entries], 3))


def _write_lmdb(rng: Random, public: Path) -> None:
    import lmdb
    import msgpack

    good = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": GOOD.shape, b"data": GOOD.tobytes()}
    values = {f"v{n}".encode(): msgpack.packb({"features": good}, use_bin_type=True) for n in range(3)}
    values[b"__keys__"] = b"[]"
    kind, hit = rng.randrange(9), rng.choice([*values, b"w", b"\xff", b"a\nb"])
    if kind == 0:
        values[hit] = mutate_bytes(rng, values[b"v0"])
    elif kind == 1:
        values[hit] = _hostile_npz(rng)
    elif kind == 2:
        deep = rng.choice((b"\x91", b"\xdd\x00\x00\x0f\xff", b"\x81\xa1x")) * rng.choice((3, 600, 5000))
        values[hit] = rng.choice(
            (b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc7\x04\x05hey!", deep)
        )
    elif kind < 7:
        values[hit] = msgpack.packb(_hostile_msgpack(rng), use_bin_type=rng.random() < 0.8)
    with lmdb.open(str(public), map_size=1 << 25, lock=False) as env, env.begin(write=True) as transaction:
        for name, value in values.items():
            transaction.put(name, value)
    if kind >= 7:
        content = (public / "data.mdb").read_bytes()
        (public / "data.mdb").write_bytes(
            content[: rng.randrange(len(content))] if kind == 7 else mutate_bytes(rng, content)
        )


ODD_FILES = {
    "id.txt": (
        b"", b"v0#enc#0 " * 12, b"\xff" * 12, b"a_" + b"9" * 5000, b"_1 " * 12, b"0 1 2 3 4 5 6 7 8 9 10 11",
        b"a_0 a_1 a_2 a_3 a_4 a_5 a_6 a_7 a_8 a_9 a_10 a", b"x#enc#0 x#enc#1 x_1 x_2 3 4 5 6 7 8 9 10",
    ),
    "shape.txt": (
        b"", b"12", b"3 12", b"-12 -3", b"99999999999 3", b"12 0", b"0 3", b"12 3 1", b"1" * 5000 + b" 3",
        "١٢ ٣".encode(), b"6 6", b"36 1",
    ),
    "video2frames.txt": (
        b"", b"{}", b"[]", b"{1: ['v0_0']}", b"{'a': []}", b"{'a': 'v0_0'}", b"{'a': ['x']}", b"{'a': [['v0_0']]}",
        b"__import__('os').mkdir('x')", b"(" * 5000, b"-" * 100000, b"{'a': 1e999}", b"{'a': ['v0_0', 'v0_0']}",
        b"{" * 90 + b"}" * 90, b"{[]: 1}", b"'" + b"a" * 9000, b"\0", b"{'a': ['v0_0'], 'a': ['v0_1']}",
        b"{'a': {'v0_0': 1}}", b"[" * 100000, b"1+" * 50000 + b"1", b"{'a': [True]}", b"{'a': ['v0_0']}" * 2,
    ),
    "feature.bin": (b"", b"\xff" * 144, b"\0" * 143, b"\0" * 145),
}  # fmt: skip


def _write_bigfile(rng: Random, public: Path) -> None:
    ids = [f"v{number % 3}_{number // 3}" for number in range(12)]
    files = {
        "id.txt": " ".join(ids).encode(),
        "shape.txt": b"12 3",
        "video2frames.txt": repr({f"v{n}": [i for i in ids if i.startswith(f"v{n}")] for n in range(3)}).encode(),
        "feature.bin": np.linspace(-1, 1, 36, dtype="<f4").tobytes(),
    }
    if rng.random() < 0.3:
        del files["video2frames.txt"]
    name = rng.choice(list(files))
    for file, content in files.items():
        if file == name:
            content = rng.choice(ODD_FILES[file]) if rng.random() < 0.6 else mutate_bytes(rng, content)
            if rng.random() < 0.1:
                os.mkfifo(public / file)
                continue
        (public / file).write_bytes(content)


WRITERS: dict[str, Callable[[Random, Path], None]] = {
    "npy_folder": _write_npy,
    "npz_folder": _write_npz,
    "torch_files": _write_torch,
    "lmdb_folder": _write_lmdb,
    "bigfile_folder": _write_bigfile,
}


def write(name: str, rng: Random, folder: Path) -> None:
    """A hostile source of one of `WRITERS`."""
    (folder / "public").mkdir()
    WRITERS[name](rng, folder / "public")


def read(name: str, folder: Path) -> None:
    """Convert it, and read what was written, which must be what the source has."""
    public = folder / "public"
    path = public / "all.pt" if (public / "all.pt").exists() else public
    with open_source(path) as source:
        keys = choose(source).keys
        report = convert(source, keys, folder / "video.h5")
        with FeatureFile(folder / "video.h5") as file:
            assert sorted(file.keys()) == sorted(report.done) == sorted(source.feature_keys())
            for key in report.done:
                features = file.read(key, report.width)
                assert features.dtype == np.float32
                assert np.isfinite(features).all()
                np.testing.assert_array_equal(features, source.read(key))
                rows, width, stored_as = source.form(key)
                kept = stored_as if stored_as in ("float16", "bfloat16") else "float32"
                assert file.form(key) == (rows, width, kept)
