"""A folder with an `.npz` archive for each video or sentence, as HERO's extractor and Moment-DETR publish features."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError, named_when_full
from utils.storage.whole_folder import put_in_place

LONGEST_NAME = 255  # bytes, on most file systems


class NpzWriter:
    """Fills one folder; see `new_npz_folder`."""

    def __init__(self, folder: Path, array: str) -> None:
        self._folder, self._array = folder, array

    def put(self, key: str, features: np.ndarray, stored_as: str) -> None:
        """Write an archive; float16 stays that, everything else is float32, as numpy has no bfloat16."""
        name = f"{key}.npz"
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(f"key {key[:50]}…: is too long for the name of a file: give --videos or --queries")
        dtype = np.float16 if stored_as == "float16" else np.float32
        arrays: dict[str, Any] = {self._array: features.astype(dtype, copy=False)}
        np.savez(self._folder / name, **arrays)


@contextmanager
def new_npz_folder(folder: Path, array: str) -> Iterator[NpzWriter]:
    """Write a new folder whole or not at all; its archives have one array, of that name."""
    with named_when_full(folder), part_folder(folder.parent, f".{folder.name}.") as part:
        yield NpzWriter(part, array)
        put_in_place(part, folder)
