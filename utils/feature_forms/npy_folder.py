"""A folder with one `.npy` file of features for each video."""

from __future__ import annotations

import numpy as np

from utils.feature_forms.file_folder import FileFolder
from utils.feature_forms.source import Stored


class NpyFolder(FileFolder):
    """Checked reading of `DIR/KEY.npy`."""

    suffixes = (".npy",)

    def find(self, key: str) -> Stored:
        """The file, mapped, so that a made up shape is found out before there is memory for it."""
        array = np.lib.format.open_memmap(self.path / self.name_of(key), mode="r")
        return Stored(array.shape, array.dtype, lambda: np.array(array))
