"""A folder with one `.npy` file of features for each video, read like a feature file."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from utils.basic_utils import Closing, InputError, first_line
from utils.feature_files.feature_file import MAX_WIDTH, FeatureError
from utils.folders import files_in

SUFFIX = ".npy"
# what numpy raises on damaged files, whose header is Python source; nested too deeply, that is a lack of memory
_DAMAGED = (
    OSError, ValueError, TypeError, ArithmeticError, EOFError, SyntaxError, TokenError, RecursionError, MemoryError,
)  # fmt: skip


class NpyFolder(Closing):
    """Checked reading of `DIR/KEY.npy`, beside which other files and folders may lie; `InputError` if there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files = files_in(path, lambda name: Path(name).suffix == SUFFIX, "check the path")
        if not files:
            raise InputError(f"{path}: has no {SUFFIX} file: give the folder that has one for each video")
        self._keys = sorted(file.stem for file in files)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def feature_keys(self) -> list[str]:
        """Names of the files without suffix, sorted."""
        return self._keys

    def made_by(self) -> dict[str, Any]:
        """Nothing: such files do not say what made them."""
        return {}

    def read(self, key: str, width: int | None = None) -> np.ndarray:
        """(rows, D) float32, finite, of one file; axes of length 1 between the first and the last are taken out.

        `FeatureError` when it is damaged or not an array of that kind, of D = `width` if that is given.
        """
        name = key + SUFFIX
        try:  # mapped, so that a made up shape is found out before there is memory for it
            array = np.lib.format.open_memmap(self.path / name, mode="r")
        except _DAMAGED as err:
            raise FeatureError(self.path, name, f"cannot be read ({first_line(err)}): copy it again") from err
        flat = array.ndim >= 2 and all(length == 1 for length in array.shape[1:-1])
        if not flat or array.dtype.kind != "f" or not array.size:
            found = f"found {array.dtype} {array.shape}"
            raise FeatureError(self.path, name, f"expected floats of shape (rows, size), {found}")
        if array.shape[-1] > MAX_WIDTH:
            raise FeatureError(self.path, name, f"is {array.shape[-1]} wide, expected at most {MAX_WIDTH}: pool it")
        if width is not None and array.shape[-1] != width:
            raise FeatureError(self.path, name, f"is {array.shape[-1]} wide, files before it {width}: which is right?")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as Inf
            features = np.array(array.reshape(-1, array.shape[-1]), dtype=np.float32)
        if not np.isfinite(features).all():
            raise FeatureError(self.path, name, "holds NaN or Inf: extract it again")
        return features
