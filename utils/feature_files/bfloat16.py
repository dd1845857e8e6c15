"""bfloat16 in h5 files: numbers of 2 bytes, the first half of a float32, as a float type that HDF5 can be told of.

h5py and other readers of HDF5 have such arrays as float32. Here the bytes are read as they lie and completed, because
HDF5 converts them one by one.
"""

from __future__ import annotations

import h5py
import numpy as np

NAME = "bfloat16"


def _type() -> h5py.h5t.TypeFloatID:
    """A sign, 8 bits of exponent, and 7 of the mantissa."""
    made = h5py.h5t.IEEE_F32LE.copy()
    made.set_fields(15, 7, 8, 0, 7)
    made.set_size(2)
    made.set_ebias(127)
    return made


TYPE = _type()


def is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether a dataset is stored in this type."""
    return bool(dataset.id.get_type() == TYPE)


def from_bits(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 that came as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bits(array: np.ndarray) -> np.ndarray:
    """uint16 of float32 that are bfloat16's values; `ValueError` if others are among them."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    if (bits & 0xFFFF).any():
        raise ValueError("has values that bfloat16 cannot hold")
    return (bits >> 16).astype(np.uint16)


def write(group: h5py.Group, key: str, array: np.ndarray) -> None:
    """Store float32 that are bfloat16's values, in 2 bytes each."""
    bits = to_bits(array)
    dataset = group.create_dataset(key, bits.shape, h5py.Datatype(TYPE))
    dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, bits, mtype=TYPE)


def read(dataset: h5py.Dataset, which: tuple[slice, ...] = ()) -> np.ndarray:
    """float32 of a dataset of this type, or of slices of its first axes."""
    spans = [part.indices(length)[:2] for part, length in zip(which, dataset.shape, strict=False)]
    spans += [(0, length) for length in dataset.shape[len(spans) :]]
    starts, counts = tuple(start for start, _ in spans), tuple(max(0, stop - start) for start, stop in spans)
    bits = np.empty(counts, np.uint16)
    if bits.size:
        space = dataset.id.get_space()
        space.select_hyperslab(starts, counts)
        dataset.id.read(h5py.h5s.create_simple(counts), space, bits, mtype=TYPE)
    return from_bits(bits)
