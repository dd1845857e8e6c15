"""What counts as the feature array of a video or query, wherever it is read: floats (rows, size), finite, not empty.

Published features have axes of length 1 besides: (1, rows, size), (rows, 1, size) or (rows, size, 1, 1). These are
taken out; what is left says which axis is which, but for (n, 1, 1), which may be n rows or one vector.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAX_WIDTH = 1 << 17  # the widest features that people extract are 2048x7x7
NORM_EPS = 1e-5
_TOLD: set[Path] = set()  # of these it has been said how they are read


def rows_and_width(shape: Sequence[int]) -> tuple[int, int] | None:
    """(rows, size) of an array of that shape; None if it is none of features."""
    longer = [length for length in shape if length != 1]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) < 2 or len(longer) > 2 or (len(longer) == 1 and shape[0] != 1):
        return None
    return (longer[0], longer[1]) if len(longer) == 2 else (1, shape[-1] if not longer else longer[0])


def rows_of(shape: Sequence[int], which: slice) -> tuple[slice, ...]:
    """What selects some rows of an array of features of that shape."""
    counted = rows_and_width(shape)
    assert counted is not None
    axis = 0 if len(shape) == 2 or counted[0] == 1 else next(i for i, length in enumerate(shape) if length != 1)
    return (*[slice(None)] * axis, which)


def why_not_features(shape: Sequence[int], dtype: np.dtype, width: int | None = None) -> str | None:
    """What is wrong with an array of that shape and type, of which rows of size `width` are expected; None if nothing.

    Its values are looked at by `as_features`.
    """
    counted = rows_and_width(shape)
    if counted is None or 0 in counted or dtype.kind != "f":
        return f"expected floats of shape (rows, size) with rows >= 1, found {dtype} {tuple(shape)}: extract it again"
    if width is not None and counted[1] != width:
        return f"features are {counted[1]} wide, expected {width}: give the size that the file has, or another file"
    if counted[1] > MAX_WIDTH:
        return f"features are {counted[1]} wide, expected at most {MAX_WIDTH}: pool them"
    return None


def as_features(array: np.ndarray) -> np.ndarray | None:
    """(rows, size) float32 of an array with nothing wrong, or of some of its rows.

    None if values are NaN or Inf, or too large for float32.
    """
    counted = rows_and_width(array.shape)
    assert counted is not None
    with np.errstate(over="ignore"):
        features = array.reshape(counted).astype(np.float32, copy=False)
    return features if np.isfinite(features).all() else None


def normalized(features: np.ndarray) -> np.ndarray:
    """Divide each row of (L, D) by its L2 norm + 1e-5; rows of zeros stay so."""
    return features / (np.linalg.norm(features, axis=-1, keepdims=True) + NORM_EPS)


def tell_left_out(path: Path, key: str, shape: Sequence[int]) -> None:
    """Say, once for each file or folder, that its arrays are read without their axes of length 1."""
    if len(shape) != 2 and path not in _TOLD:
        _TOLD.add(path)
        how = f"{tuple(shape)} of {key} is read as {rows_and_width(shape)}"
        print(f"note: {path}: axes of length 1 are left out: {how}", file=sys.stderr, flush=True)
