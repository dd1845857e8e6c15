"""Arrays in msgpack as msgpack-numpy encodes them, `{b"nd": True, b"type": "<f4", b"shape": …, b"data": …}`.

Its decoder would unpickle what says it is of kind O; this one knows floats and whole numbers alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from utils.feature_forms.source import Stored

MOST_ENTRIES = 1 << 12  # of a list or dict: room is made for as many as are claimed
_TYPE = re.compile(r"[<>=|]?[fiub]\d{1,2}")


def unpack(msgpack: Any, packed: Any) -> Any:
    """What a value of bytes says, with arrays in it as `Stored`; a `ValueError` if it is damaged, or of another kind.

    `msgpack` is the package.
    """
    most = {"max_array_len": MOST_ENTRIES, "max_map_len": MOST_ENTRIES}
    return msgpack.unpackb(packed, raw=False, strict_map_key=False, object_hook=_decoded, **most)


def _decoded(entries: dict[Any, Any]) -> Any:
    """The array that a dict stands for; any other dict as it is."""
    plain = {key.decode("ascii", "replace") if isinstance(key, bytes) else key: entries[key] for key in entries}
    if plain.get("nd") is not True or "data" not in plain:
        return plain
    name, shape, data = plain.get("type"), plain.get("shape"), plain["data"]
    name = name.decode("ascii", "replace") if isinstance(name, bytes) else name
    if not isinstance(name, str) or not _TYPE.fullmatch(name):
        raise ValueError("has an array of another type than numbers")
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("has an array without a shape")
    if not isinstance(data, bytes):
        raise ValueError("has an array without bytes")
    return Stored(tuple(shape), np.dtype(name), _reading(data, np.dtype(name), shape))


def _reading(data: bytes, dtype: np.dtype, shape: list[int]) -> Callable[[], np.ndarray]:
    return lambda: np.frombuffer(data, dtype).reshape(shape)
