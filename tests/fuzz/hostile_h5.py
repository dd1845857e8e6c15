"""h5 files that are not what a feature file should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import h5py
import numpy as np

from tests.fuzz.mutations import mutate_bytes
from utils.feature_files import bfloat16

ROWS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
Spoil = Callable[[h5py.File, str, Random], None]


def _typed(dtype: object, shape: tuple[int, ...] = (6, 4)) -> Spoil:
    def spoil(file: h5py.File, key: str, rng: Random) -> None:
        file.create_dataset(key, shape, dtype=dtype)

    return spoil


def _unallocated(file: h5py.File, key: str, rng: Random) -> None:
    shape = rng.choice(((1 << 40, 4), (1 << 20, 1 << 14), (4, 1 << 50), (1 << 22, 4), (1, 1 << 17), (0, 4), (6, 0)))
    file.create_dataset(key, shape, np.float32)


def _compressed(file: h5py.File, key: str, rng: Random) -> None:
    shape = rng.choice(((1 << 30, 64), (1 << 24, 4), (1 << 12, 1 << 10)))
    data = file.create_dataset(key, shape, "f4", compression=rng.choice(("gzip", "lzf")), fillvalue=0.5)
    data[:10] = 0


def _compressed_twice(file: h5py.File, key: str, rng: Random) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1 << 12, 64))
    properties.set_deflate(9)
    properties.set_deflate(9)
    space = h5py.h5s.create_simple((1 << 12, 64))
    made = h5py.h5d.create(file.id, key.encode(), h5py.h5t.IEEE_F32LE, space, dcpl=properties)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((1 << 12, 64), np.float32))


def _huge_chunk(file: h5py.File, key: str, rng: Random) -> None:
    file.create_dataset(key, (6, 4), "f4", chunks=(1 << 14, 1 << 14), maxshape=(None, None))


def _virtual(file: h5py.File, key: str, rng: Random) -> None:
    layout = h5py.VirtualLayout((6, 4), "f4")
    layout[:] = h5py.VirtualSource(rng.choice(("/dev/zero", "pipe", "/etc/passwd", ".")), "x", shape=(6, 4))
    file.create_virtual_dataset(key, layout)


def _external_storage(file: h5py.File, key: str, rng: Random) -> None:
    name = rng.choice(("/etc/passwd", "/dev/zero", "pipe", "../x"))
    file.create_dataset(key, (6, 4), "f4", external=[(name, 0, h5py.h5f.UNLIMITED)])


def _external_link(file: h5py.File, key: str, rng: Random) -> None:
    file[key] = h5py.ExternalLink(rng.choice(("/dev/zero", "pipe", "/etc/passwd", "other.h5")), "x")


def _soft_link(file: h5py.File, key: str, rng: Random) -> None:
    file["elsewhere"] = h5py.ExternalLink("pipe", "/")
    file[key] = h5py.SoftLink(rng.choice(("/v0", "/nothing", "/elsewhere/v0", "/" + key)))


def _group(file: h5py.File, key: str, rng: Random) -> None:
    file.create_group(key)[rng.choice(("x", "x/y"))] = ROWS


def _named_type(file: h5py.File, key: str, rng: Random) -> None:
    file[key] = np.dtype("f4")


def _null(file: h5py.File, key: str, rng: Random) -> None:
    file[key] = h5py.Empty("f4")


def _odd_float(file: h5py.File, key: str, rng: Random) -> None:
    odd = h5py.h5t.IEEE_F64LE.copy()
    odd.set_fields(63, 40, rng.choice((11, 23)), 0, 40)
    h5py.h5d.create(file.id, key.encode(), odd, h5py.h5s.create_simple((6, 4)))


def _attributes(file: h5py.File, key: str, rng: Random) -> None:
    file.attrs["made_by"] = rng.choice((np.zeros(5000), "x" * 60000, h5py.Empty("f4"), np.array([b"a", b"\xff"])))
    file.attrs[key] = rng.choice((1, "ü", [1.5, 2]))


def _odd_names(file: h5py.File, key: str, rng: Random) -> None:
    h5py.h5d.create(
        file.id,
        rng.choice((b"\xff\xfe", b".", b"x" * 3000, b"\n")),
        h5py.h5t.IEEE_F32LE,
        h5py.h5s.create_simple((6, 4)),
    )


def _many_names(file: h5py.File, key: str, rng: Random) -> None:
    made = file.create_dataset(key, (1 << 12, 1 << 12), "f4")
    for number in range(300):
        file[f"{key}-{number}"] = made


COMPOUND = np.dtype([("a", "f4"), ("b", "i8")])
TYPES = (
    np.int64, np.uint8, np.bool_, np.float16, np.float64, ">f4", ">f8", np.longdouble, np.complex64, "S7", COMPOUND,
    h5py.string_dtype(), h5py.vlen_dtype(np.float32), h5py.ref_dtype, h5py.regionref_dtype,
    h5py.enum_dtype({"a": 0}), h5py.opaque_dtype(np.dtype("M8[s]")), np.dtype((np.float32, (3,))),
    h5py.Datatype(bfloat16.TYPE),
)  # fmt: skip
SPOILS: tuple[Spoil, ...] = (
    *map(_typed, TYPES), _typed("f4", ()), _typed("f4", (24,)), _typed("f4", (1, 2, 3)), _unallocated, _unallocated,
    _compressed, _compressed_twice, _huge_chunk, _virtual, _external_storage, _external_link, _soft_link, _group,
    _named_type, _null, _odd_float, _attributes, _odd_names, _many_names,
)  # fmt: skip


def write_h5(rng: Random, path: Path, spoil: Spoil | None = None) -> None:
    """A small feature file with up to two odd things in it, or with bytes that were hit, or both."""
    with h5py.File(path, "w", libver=rng.choice(("latest", "earliest"))) as file:
        file.attrs["format_version"] = 1
        for number in range(3):
            options = rng.choice(
                ({}, {"compression": "gzip"}, {"chunks": (2, 4), "fletcher32": True}, {"shuffle": True})
            )
            file.create_dataset(f"v{number}", data=ROWS, **options)
        damaged = spoil is None and rng.random() < 0.6
        for number in range(0 if damaged and rng.random() < 0.7 else rng.choice((1, 2))):
            chosen = spoil or rng.choice(SPOILS)
            key = rng.choice(("a", "w", "z")) + str(number)
            try:
                chosen(file, key, rng)
            except (OSError, RuntimeError, ValueError, TypeError, KeyError):
                continue  # what this version of HDF5 does not write
    if damaged:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
