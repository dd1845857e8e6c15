"""A folder with one `.npy` file of features for each video, read like a feature file."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from utils.basic_utils import Closing, InputError, first_line
from utils.feature_files.feature_array import as_features, tell_left_out, why_not_features
from utils.feature_files.feature_file import FeatureError
from utils.storage.folders import files_in

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
        """(rows, D) float32, finite, of one file; axes of length 1 besides are taken out, see `feature_array`.

        `FeatureError` when it is damaged or not an array of that kind, of D = `width` if that is given.
        """
        name = key + SUFFIX
        try:  # mapped, so that a made up shape is found out before there is memory for it
            array = np.lib.format.open_memmap(self.path / name, mode="r")
        except _DAMAGED as err:
            raise FeatureError(self.path, name, f"cannot be read ({first_line(err)}): copy it again") from err
        if wrong := why_not_features(array.shape, array.dtype, width):
            raise FeatureError(self.path, name, wrong)
        tell_left_out(self.path, name, array.shape)
        features = as_features(np.array(array))  # not mapped any more
        if features is None:
            raise FeatureError(self.path, name, "holds NaN or Inf: extract it again")
        return features
